//! Names of log events. A log line is a name from here plus typed fields, never a sentence with values pasted in.

pub const NODE_READY: &str = "node.ready";
pub const NODE_STOPPING: &str = "node.stopping";
pub const NODE_STOPPED: &str = "node.stopped";
pub const NODE_STATE: &str = "node.state";
pub const NODE_JOINS: &str = "node.joins";
pub const NODE_REFUSED: &str = "node.refused";
pub const CLUSTER_LOST: &str = "cluster.lost";
pub const SESSION_STAYED: &str = "session.stayed";
pub const LISTENER_FAILED: &str = "listener.failed";
pub const SESSION_OPENED: &str = "session.opened";
pub const SESSION_CLOSED: &str = "session.closed";
pub const SENDING_LOCKED: &str = "sending.locked";
pub const SESSION_PANICKED: &str = "session.panicked";
pub const SESSION_REFUSED: &str = "session.refused";
pub const LOGIN_ACCEPTED: &str = "login.accepted";
pub const LOGIN_REFUSED: &str = "login.refused";
pub const RECIPIENT_REFUSED: &str = "recipient.refused";
pub const MESSAGE_ACCEPTED: &str = "message.accepted";
pub const MESSAGE_REFUSED: &str = "message.refused";
pub const MESSAGE_DEFERRED: &str = "message.deferred";
/// It waits for a server elsewhere; such a server has it; or it is given up.
pub const MESSAGE_QUEUED: &str = "message.queued";
pub const MESSAGE_SENT: &str = "message.sent";
pub const MESSAGE_BOUNCED: &str = "message.bounced";
/// A key cannot be used, or the DNS shows another one; or keys took turns.
pub const SIGNING_FAILED: &str = "signing.failed";
pub const SIGNING_KEY: &str = "signing.key";
/// A domain announces a policy of MTA-STS that cannot be had.
pub const STS_FAILED: &str = "sts.failed";
/// A report to or from another mail system.
pub const REPORT_READ: &str = "report.read";
pub const REPORT_FAILED: &str = "report.failed";
pub const ROUTES_FAILED: &str = "routes.failed";
pub const CALL_AHEAD_FAILED: &str = "call_ahead.failed";
pub const ROUTES_READ: &str = "routes.read";
pub const DNS_DOWN: &str = "dns.down";
/// Whether name servers let answers be proven; and one that ought to be and is not.
pub const DNS_PROOFS: &str = "dns.proofs";
pub const DNS_UNPROVEN: &str = "dns.unproven";
pub const DNS_UP: &str = "dns.up";
/// A DNS list is not believed, or not asked, for now; or again.
pub const LIST_ASIDE: &str = "dns_list.aside";
pub const LIST_WELL: &str = "dns_list.well";
pub const LIST_EXHAUSTED: &str = "dns_list.exhausted";
/// The database of countries was read again, or cannot be.
pub const COUNTRIES_READ: &str = "countries.read";
pub const COUNTRIES_FAILED: &str = "countries.failed";
pub const SCANNER_UNAVAILABLE: &str = "scanner.unavailable";
pub const SCANNER_UP: &str = "scanner.up";
pub const SCANNER_DOWN: &str = "scanner.down";
pub const SCANNER_VERSION: &str = "scanner.version";
pub const SCANNER_OUTDATED: &str = "scanner.outdated";
/// What an owner said of a message cannot be learned for now, or is given up.
pub const LESSON_FAILED: &str = "lesson.failed";
pub const STORE_FAILED: &str = "store.failed";
pub const STORE_DAMAGED: &str = "store.damaged";
pub const AUDIT_PROBLEM: &str = "audit.problem";
pub const STORE_REPAIRED: &str = "store.repaired";
pub const DISK_FULL: &str = "disk.full";
pub const DISK_HEALED: &str = "disk.healed";
pub const TRAIL_DROPPED: &str = "trail.dropped";
/// An old server does not do its part.
pub const LEGACY_FAILED: &str = "legacy.failed";
pub const TRAIL_AWAY: &str = "trail.away";
