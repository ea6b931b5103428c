-- A mail server as libmilter's own tool plays it. `address` and `version` are given on the command line.

local conn

-- The tool keeps what errors say to itself.
local function fail(what)
  mt.echo(what)
  error(what)
end

local function begin()
  conn = mt.connect(address, 20, 0.2)
  if conn == nil then fail("nobody listens at " .. address) end
  -- Version 2 knows the first six actions and seven steps (libmilter, SMFI_V2_ACTS and SMFI_V2_PROT).
  local failed
  if version == "2" then
    failed = mt.negotiate(conn, 2, 0x3f, 0x7f)
  else
    failed = mt.negotiate(conn, 6, nil, nil)
  end
  if failed ~= nil then fail("no agreement: " .. failed) end
  for _, action in ipairs({ SMFIF_ADDHDRS, SMFIF_CHGHDRS, SMFIF_QUARANTINE }) do
    if not mt.test_action(conn, action) then fail("an action is not asked for") end
  end
  if mt.test_action(conn, SMFIF_CHGBODY) then fail("bodies are never changed") end
  if mt.conninfo(conn, "mail.sender.example", "192.0.2.7") ~= nil then fail("connect") end
  if mt.helo(conn, "mail.sender.example") ~= nil then fail("helo") end
end

local function wants(what, op, ...)
  if not mt.eom_check(conn, op, ...) then fail(what .. " is missing") end
end

local function message(subject, text)
  mt.macro(conn, SMFIC_MAIL, "i", "queue-id")
  if mt.mailfrom(conn, "<anna@sender.example>", "SIZE=100") ~= nil then fail("mail") end
  if mt.rcptto(conn, "<user1@example.test>") ~= nil then fail("rcpt") end
  -- Version 2 has no such step, and who asks to leave it out is not told.
  if version ~= "2" and not mt.test_option(conn, SMFIP_NODATA) then fail("DATA says nothing to us") end
  local fields = {
    { "From", "Anna Gruber <anna@sender.example>" },
    { "To", "user1@example.test" },
    { "Subject", subject },
    -- Of today: rules look at the age of a letter.
    { "Date", os.date("!%a, %d %b %Y %H:%M:%S +0000", os.time() - 3600) },
    { "Message-ID", "<1@sender.example>" },
    { "X-Spam-Flag", "NO" },
  }
  for _, field in ipairs(fields) do
    if mt.header(conn, field[1], field[2]) ~= nil then fail("header") end
    local reply = mt.getreply(conn)
    if reply ~= SMFIR_CONTINUE then fail("a header field is answered with " .. string.char(reply)) end
  end
  if mt.eoh(conn) ~= nil then fail("eoh") end
  if mt.bodystring(conn, text) ~= nil then fail("body") end
  if mt.eom(conn) ~= nil then fail("eom") end
end

local function answers(reply)
  if mt.getreply(conn) ~= reply then fail("answered with " .. string.char(mt.getreply(conn))) end
end

begin()
message("Lunch", "Shall we have lunch on Friday?\r\n")
answers(SMFIR_CONTINUE)
wants("a status", MT_HDRADD, "X-Spam-Status")
wants("a score", MT_HDRADD, "X-Spam-Score")
wants("the forged flag's end", MT_HDRDELETE, "X-Spam-Flag")
wants("the results of authentication", MT_HDRINSERT, "Authentication-Results")
if mt.eom_check(conn, MT_BODYCHANGE) or mt.eom_check(conn, MT_QUARANTINE) then
  fail("clean mail is neither changed nor held")
end

-- The next messages of the same connection.
message("Tagged", "Please tag-this-one.\r\n")
answers(SMFIR_CONTINUE)
-- Version 6 may agree that values bring the space after the colon themselves.
local gap = version ~= "2" and mt.test_option(conn, SMFIP_HDR_LEADSPC) and " " or ""
wants("a flag", MT_HDRADD, "X-Spam-Flag", gap .. "YES")
wants("a tagged subject", MT_HDRCHANGE, "Subject", gap .. "[SPAM] Tagged")

message("Held", "Please hold-this-one.\r\n")
answers(SMFIR_CONTINUE)
wants("quarantine", MT_QUARANTINE)

message("Refused", "Please refuse-this-one.\r\n")
answers(SMFIR_REPLYCODE)
wants("a reply", MT_SMTPREPLY, "554", "5.7.1", "Message refused as spam")
mt.disconnect(conn)

-- One that is broken off, then another connection.
begin()
mt.mailfrom(conn, "<anna@sender.example>")
mt.disconnect(conn, false)
begin()
mt.macro(conn, SMFIC_MAIL, "{auth_authen}", "anna")
message("Submitted", "Shall we have lunch on Friday?\r\n")
answers(SMFIR_CONTINUE)
if mt.eom_check(conn, MT_HDRINSERT, "Authentication-Results") then fail("who is signed in proves nothing more") end
mt.disconnect(conn)
mt.echo("all is well")
