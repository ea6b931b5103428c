// What roles let one change, as the server said at sign-in, so that pages offer nothing in vain. The server is who decides.
export const may = (session, what) => session.may.includes(what);

/** The roles that one may give others. */
export const gives = (session) => session.gives.map(({ role }) => role);

/** What such a role is held for: `system`, `tenant` or `domain`. */
export const heldFor = (session, role) => session.gives.find((one) => one.role === role)?.for;
