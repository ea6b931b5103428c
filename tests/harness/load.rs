//! Clients that use a mail system all the time while it is harmed, and the book of what was acknowledged to them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::Scope;
use std::time::{Duration, Instant};

use base::{Clock as _, SystemClock};

use super::wire::{Ended, Place, Said, Wire};
use super::{PASSWORD, base64, letter};

/// Who gets mail; the last one is written to by IMAP alone.
pub const USERS: [&str; 4] = ["user1", "user2", "user3", "user4"];
const RECIPIENTS: u32 = 3;
/// A client's pause between two things that it does.
const PAUSE: Duration = Duration::from_millis(50);

/// What all clients share.
pub struct Load {
    places: Vec<Place>,
    /// SMTP clients of each place.
    senders: usize,
    /// Messages of which one is so long; the others are a few kilobytes.
    long: Option<(u32, usize)>,
    stop: AtomicBool,
    next: AtomicU32,
    /// Messages that each place took by SMTP; watched places come after these.
    taken: Vec<AtomicU32>,
    book: Mutex<Book>,
}

/// What clients did and heard.
#[derive(Default)]
pub struct Book {
    pub letters: HashMap<u32, Letter>,
    /// When something was done for a client, by protocol and place.
    pub answers: HashMap<(&'static str, usize), Vec<Instant>>,
    /// Times that a client was told to come again.
    pub refused: HashMap<(&'static str, usize), u32>,
    /// Connections that ended without a word.
    pub left: Vec<String>,
    /// What no client should hear.
    pub faults: Vec<String>,
    /// UIDs of the last user's INBOX.
    pub flagged: Vec<String>,
    /// What was looked for so far: each user's last UID, and the numbers found.
    checked: (HashMap<&'static str, u32>, HashSet<u32>),
    /// What any reader has seen at a place: it stays there.
    seen: HashMap<(&'static str, u32), u32>,
}

/// A message that a client wants to get rid of.
#[derive(Default)]
pub struct Letter {
    pub is_mail: bool,
    pub is_acknowledged: bool,
    /// Times that it was sent whole and refused for now, or was not answered.
    pub refused: u32,
    pub unanswered: u32,
}

/// What was found of the letters.
#[derive(Default, Clone, Copy)]
pub struct Found {
    pub acknowledged: usize,
    pub refused: u32,
    pub unanswered: u32,
    /// Copies beyond the first, each with a try that was not answered or refused.
    pub doubled: u32,
}

/// Ends the load when it goes, also if a test fails meanwhile: its clients would not end else.
pub struct Stop<'a>(pub &'a Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// One client.
struct Client<'a> {
    load: &'a Load,
    name: &'static str,
    place: usize,
}

impl Client<'_> {
    fn was_served(&self) {
        self.load.book().answers.entry((self.name, self.place)).or_default().push(SystemClock.now());
    }

    fn was_told_to_wait(&self) {
        *self.load.book().refused.entry((self.name, self.place)).or_default() += 1;
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Notes a connection's end, unless it came with a word.
    fn was_left(&self, ended: Ended, when: &str) {
        if ended != Ended::Politely {
            let left = format!("{} at {}: {ended:?} after {when}", self.name, self.load.places[self.place].name);
            self.load.book().left.push(left);
        }
        self.was_told_to_wait();
    }

    fn heard(&self, what: &str) {
        let fault = format!("{} at {}: {what}", self.name, self.load.places[self.place].name);
        self.load.book().faults.push(fault);
        std::thread::sleep(Duration::from_millis(200));
    }

    /// An IMAP command that did not succeed.
    fn was_refused(&self, status: &str) {
        match status.starts_with("NO [UNAVAILABLE]") {
            true => self.was_told_to_wait(),
            false => self.heard(status),
        }
    }
}

impl Load {
    pub fn new(places: Vec<Place>, senders: usize, long: Option<(u32, usize)>) -> Self {
        let taken = places.iter().filter(|place| !place.is_watched).map(|_| AtomicU32::new(0)).collect();
        let (stop, next) = (AtomicBool::new(false), AtomicU32::new(0));
        Self { places, senders, long, stop, next, taken, book: Mutex::default() }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// A user who does something all the time, always at the same place's first host while it can be reached.
    pub fn watch(&self, name: &'static str, place: usize, user: &str) {
        let client = Client { load: self, name, place };
        let mut session = None;
        let mut sign = '+';
        while self.is_on() {
            let Some(imap) = self.session(&mut session, user, &client) else { continue };
            match imap.asks_imap(&format!("UID STORE 1 {sign}FLAGS (\\Flagged)")) {
                Ok(said) if said.status.starts_with("OK") => {
                    sign = if sign == '+' { '-' } else { '+' };
                    client.was_served();
                }
                Ok(said) => client.was_refused(&said.status),
                Err(ended) => {
                    session = None;
                    client.was_left(ended, "STORE");
                }
            }
            std::thread::sleep(PAUSE * 2);
        }
    }

    /// Starts all clients of all places but the watched ones.
    pub fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        for place in 0..self.taken.len() {
            for _ in 0..self.senders {
                scope.spawn(move || self.send_mail(place));
            }
            scope.spawn(move || self.append_and_flag(place));
            scope.spawn(move || self.read_by_imap(place));
            scope.spawn(move || self.read_by_pop3(place));
            scope.spawn(move || self.read_by_http(place));
        }
    }

    pub fn is_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub fn taken(&self) -> Vec<u32> {
        self.taken.iter().map(|taken| taken.load(Ordering::Relaxed)).collect()
    }

    /// Waits until each place has taken that many more messages.
    #[track_caller]
    pub fn go_on(&self, more: u32, longest: Duration) {
        let (before, deadline) = (self.taken(), SystemClock.now() + longest);
        while self.taken().iter().zip(&before).any(|(now, before)| *now < before + more) {
            assert!(SystemClock.now() < deadline, "no service again: {before:?}, then {:?}", self.taken());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The longest time without an answer since `from`, of each protocol and place that has clients.
    pub fn gaps_since(&self, from: Instant) -> HashMap<(&'static str, usize), Gap> {
        let (book, now) = (self.book(), SystemClock.now());
        let gap = |times: &Vec<Instant>| {
            let mut times = times.clone();
            times.sort();
            let later = times.iter().copied().filter(|at| *at >= from);
            let before = times.iter().copied().filter(|at| *at < from).max().unwrap_or(from);
            let all: Vec<Instant> = std::iter::once(before).chain(later).chain([now]).collect();
            let longest = all.windows(2).max_by_key(|pair| pair[1] - pair[0]).map(|pair| (pair[0], pair[1]));
            let (began, ended) = longest.unwrap_or((from, now));
            Gap { began, ended }
        };
        book.answers.iter().map(|(of, times)| (*of, gap(times))).collect()
    }

    /// As an MTA: a message that is refused for now, or not answered, is sent again.
    fn send_mail(&self, place: usize) {
        let client = Client { load: self, name: "smtp", place };
        let mut kept = None;
        while self.is_on() {
            let number = self.new_letter(true);
            while self.is_on() {
                match self.transmit(&mut kept, place, number) {
                    Ok(answer) if answer.starts_with('2') => {
                        self.was_taken(number);
                        self.taken[place].fetch_add(1, Ordering::Relaxed);
                        client.was_served();
                        break;
                    }
                    Ok(answer) if answer.starts_with('4') => client.was_told_to_wait(),
                    Ok(answer) => client.heard(&answer),
                    Err(ended) => client.was_left(ended, "SMTP"),
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn new_letter(&self, is_mail: bool) -> u32 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.book().letters.insert(number, Letter { is_mail, ..Letter::default() });
        number
    }

    fn was_taken(&self, number: u32) {
        self.note(number, |letter| letter.is_acknowledged = true);
    }

    fn note(&self, number: u32, what: impl FnOnce(&mut Letter)) {
        what(self.book().letters.entry(number).or_default());
    }

    /// The last answer. The connection is kept if the message was taken.
    fn transmit(&self, kept: &mut Option<Wire>, place: usize, number: u32) -> Result<String, Ended> {
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => {
                let mut wire = self.places[place].open("smtp")?;
                for words in ["", "EHLO client.example.org\r\n"] {
                    let answer = wire.asks_smtp(words)?;
                    if !answer.starts_with('2') {
                        return Ok(answer);
                    }
                }
                wire
            }
        };
        let recipient = format!("RCPT TO:<user{}@example.test>\r\n", 1 + number % RECIPIENTS);
        for words in ["MAIL FROM:<a@x.example>\r\n", &recipient, "DATA\r\n"] {
            let answer = wire.asks_smtp(words)?;
            if !answer.starts_with(['2', '3']) {
                return Ok(answer);
            }
        }
        let answer = wire.asks_smtp(&format!("{}.\r\n", self.content(number)));
        match &answer {
            Ok(answer) if answer.starts_with('2') => *kept = Some(wire),
            Ok(_) => self.note(number, |letter| letter.refused += 1),
            Err(_) => self.note(number, |letter| letter.unanswered += 1),
        }
        answer
    }

    /// Appends a message, sets a flag on it.
    fn append_and_flag(&self, place: usize) {
        let client = Client { load: self, name: "imap write", place };
        let mut session = None;
        while self.is_on() {
            let number = self.new_letter(false);
            while self.is_on() {
                let Some(imap) = self.session(&mut session, USERS[3], &client) else { continue };
                let text = self.content(number);
                let command = format!("APPEND INBOX (\\Seen) {{{}+}}\r\n{text}", text.len());
                match imap.asks_imap(&command) {
                    Ok(said) if said.status.starts_with("OK") => {
                        self.was_taken(number);
                        client.was_served();
                        let uid = said.status.split(' ').nth(3).unwrap().trim_end_matches(']').to_owned();
                        self.flag(&mut session, uid, &client);
                        break;
                    }
                    Ok(said) => {
                        self.note(number, |letter| letter.refused += 1);
                        client.was_refused(&said.status);
                    }
                    Err(ended) => {
                        self.note(number, |letter| letter.unanswered += 1);
                        session = None;
                        client.was_left(ended, "APPEND");
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn flag(&self, session: &mut Option<Wire>, uid: String, client: &Client<'_>) {
        while self.is_on() {
            let Some(imap) = self.session(session, USERS[3], client) else { continue };
            match imap.asks_imap(&format!("UID STORE {uid} +FLAGS (\\Flagged)")) {
                Ok(said) if said.status.starts_with("OK") => {
                    client.was_served();
                    return self.book().flagged.push(uid);
                }
                Ok(said) => client.was_refused(&said.status),
                Err(ended) => {
                    *session = None;
                    client.was_left(ended, "STORE");
                }
            }
        }
    }

    /// A session with INBOX selected: the one there is, or a new one if it can be had.
    fn session<'b>(&self, session: &'b mut Option<Wire>, user: &str, client: &Client<'_>) -> Option<&'b mut Wire> {
        if session.is_none() {
            match self.places[client.place].sign_in(user) {
                Ok(Ok(wire)) => *session = Some(wire),
                Ok(Err(status)) => client.was_refused(&status),
                Err(ended) => client.was_left(ended, "signing in"),
            }
        }
        session.as_mut()
    }

    /// Reads what is new, and the last one before: it must be as it was.
    fn read_by_imap(&self, place: usize) {
        let client = Client { load: self, name: "imap read", place };
        let mut sessions: [Option<Wire>; 3] = Default::default();
        let mut last = [1u32; 3];
        while self.is_on() {
            for (nth, user) in USERS.into_iter().take(sessions.len()).enumerate() {
                let Some(imap) = self.session(&mut sessions[nth], user, &client) else { continue };
                match imap.asks_imap(&format!("UID FETCH {}:* (UID BODY.PEEK[])", last[nth])) {
                    Ok(said) => {
                        // What came before a refusal counts too.
                        for (uid, text) in said.bodies() {
                            last[nth] = uid.max(last[nth]);
                            self.see(user, uid, &text, &client);
                        }
                        if said.status.starts_with("OK") {
                            client.was_served();
                        } else {
                            client.was_refused(&said.status);
                        }
                    }
                    Err(ended) => {
                        sessions[nth] = None;
                        client.was_left(ended, "FETCH");
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn see(&self, user: &'static str, uid: u32, text: &str, client: &Client<'_>) {
        let Some(number) = self.number_of(text) else {
            return client.heard(&format!("{user} {uid}: not whole: {text:.2000}"));
        };
        let known = *self.book().seen.entry((user, uid)).or_insert(number);
        if known != number {
            client.heard(&format!("{user} {uid}: message {known} became {number}"));
        }
    }

    /// Each time anew, the newest message.
    fn read_by_pop3(&self, place: usize) {
        let client = Client { load: self, name: "pop3", place };
        let user = USERS[1 + place % 2];
        while self.is_on() {
            match self.newest(place, user) {
                Ok(Ok(None)) => client.was_served(),
                Ok(Ok(Some(text))) if self.number_of(&text).is_some() => client.was_served(),
                Ok(Ok(Some(text))) => client.heard(&format!("not whole: {text:.2000}")),
                Ok(Err(answer)) if ["[SYS/TEMP]", "[IN-USE]"].iter().any(|code| answer.contains(code)) => {
                    client.was_told_to_wait();
                }
                Ok(Err(answer)) => client.heard(&answer),
                Err(ended) => client.was_left(ended, "POP3"),
            }
            std::thread::sleep(PAUSE * 2);
        }
    }

    /// The text, or the answer that is none.
    fn newest(&self, place: usize, user: &str) -> Result<Result<Option<String>, String>, Ended> {
        let mut wire = self.places[place].open("pop3")?;
        let mut answer = wire.line()?;
        for command in [format!("USER {user}@example.test"), format!("PASS {PASSWORD}"), "STAT".to_owned()] {
            if !answer.starts_with("+OK") {
                return Ok(Err(answer));
            }
            wire.say(&format!("{command}\r\n"));
            answer = wire.line()?;
        }
        let Some(count) = answer.strip_prefix("+OK ").and_then(|rest| rest.split(' ').next()) else {
            return Ok(Err(answer));
        };
        if count == "0" {
            return Ok(Ok(None));
        }
        wire.say(&format!("RETR {count}\r\n"));
        let answer = wire.line()?;
        if !answer.starts_with("+OK") {
            return Ok(Err(answer));
        }
        let mut text = String::new();
        loop {
            match wire.line()?.as_str() {
                "." => break,
                line => text.push_str(&format!("{line}\r\n")),
            }
        }
        wire.say("QUIT\r\n");
        wire.line()?;
        Ok(Ok(Some(text)))
    }

    fn read_by_http(&self, place: usize) {
        let client = Client { load: self, name: "jmap", place };
        let login = base64(format!("{}@example.test:{PASSWORD}", USERS[0]).as_bytes());
        let headers = format!("Authorization: Basic {login}\r\nContent-Type: application/json\r\n");
        let query = r##"{"using":["urn:ietf:params:jmap:core","urn:ietf:params:jmap:mail"],"methodCalls":[
            ["Email/query",{"accountId":"a1","limit":1},"0"],
            ["Email/get",{"accountId":"a1","#ids":{"resultOf":"0","name":"Email/query","path":"/ids"},"properties":["subject"]},"1"]]}"##;
        while self.is_on() {
            let answer =
                self.places[place].open("http").and_then(|mut wire| wire.asks_http("POST /jmap/", &headers, query));
            match answer {
                Ok((503, _)) => client.was_told_to_wait(),
                Ok((200, body)) if body.contains("serverUnavailable") => client.was_told_to_wait(),
                Ok((200, body)) if body.contains("\"list\"") => client.was_served(),
                Ok((status, body)) => client.heard(&format!("{status} {body}")),
                Err(ended) => client.was_left(ended, "HTTP"),
            }
            std::thread::sleep(PAUSE * 2);
        }
    }

    /// While the load goes on: everything acknowledged so far is there. Looks only at what came since the last time.
    #[track_caller]
    pub fn check_so_far(&self, place: &Place) {
        let acknowledged = |(number, letter): (&u32, &Letter)| letter.is_acknowledged.then_some(*number);
        let taken: Vec<u32> = self.book().letters.iter().filter_map(acknowledged).collect();
        for user in USERS {
            let last = self.book().checked.0.get(user).copied().unwrap_or(0);
            let said = asks(place, user, &format!("UID FETCH {}:* (UID BODY.PEEK[])", last + 1));
            for (uid, text) in said.bodies().filter(|(uid, _)| *uid > last) {
                let number = self.number_of(&text).unwrap_or_else(|| panic!("{user} {uid}: not whole: {text:.2000}"));
                let mut book = self.book();
                book.checked.1.insert(number);
                let last = book.checked.0.entry(user).or_default();
                *last = uid.max(*last);
            }
        }
        let book = self.book();
        let lost: Vec<&u32> = taken.iter().filter(|number| !book.checked.1.contains(number)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    }

    /// Every acknowledged message is there whole, and no more often than its sender has reason to expect; so is whatever a
    /// reader saw. The load has ended.
    #[track_caller]
    pub fn check_letters(&self, place: &Place, is_mail: bool) -> Found {
        let users = if is_mail { &USERS[..3] } else { &USERS[3..] };
        let mut copies: HashMap<u32, u32> = HashMap::new();
        let mut gone = Vec::new();
        for user in users {
            let mut places = HashMap::new();
            let said = asks(place, user, "UID FETCH 1:* (UID BODY.PEEK[])");
            for (uid, text) in said.bodies() {
                let number = self.number_of(&text).unwrap_or_else(|| panic!("{user} {uid}: not whole: {text:.2000}"));
                *copies.entry(number).or_default() += 1;
                places.insert(uid, number);
            }
            let book = self.book();
            let missing = book.seen.iter().filter(|((of, uid), number)| of == user && places.get(uid) != Some(*number));
            gone.extend(missing.map(|((_, uid), number)| (*user, *uid, *number)));
        }
        let book = self.book();
        let letters = || book.letters.iter().filter(|(_, letter)| letter.is_mail == is_mail);
        let lost = letters().filter(|(number, letter)| letter.is_acknowledged && !copies.contains_key(number));
        let lost: Vec<u32> = lost.map(|(number, _)| *number).collect();
        assert!(lost.is_empty(), "lost: {lost:?}; seen and gone: {gone:?}");
        assert!(gone.is_empty(), "seen and gone: {gone:?}");
        let mut sum = Found::default();
        for (number, letter) in letters() {
            let found = copies.get(number).copied().unwrap_or(0);
            let sent = letter.refused + letter.unanswered + u32::from(letter.is_acknowledged);
            assert!(found <= sent, "{number} is there {found} times, and was sent {sent} times");
            sum.doubled += found.saturating_sub(1);
            sum.refused += letter.refused;
            sum.unanswered += letter.unanswered;
            sum.acknowledged += usize::from(letter.is_acknowledged);
        }
        sum
    }

    /// Every flag that was acknowledged is there; how many.
    #[track_caller]
    pub fn check_flags(&self, place: &Place) -> usize {
        let said = asks(place, USERS[3], "UID SEARCH FLAGGED");
        let found = said.lines.concat();
        let found: Vec<&str> = found.split(' ').collect();
        let book = self.book();
        let lost: Vec<&String> = book.flagged.iter().filter(|uid| !found.contains(&uid.as_str())).collect();
        assert!(lost.is_empty(), "flags lost: {lost:?}");
        book.flagged.len()
    }

    fn content(&self, number: u32) -> String {
        let length = match self.long {
            Some((every, length)) if number.is_multiple_of(every) => length / 30,
            _ => 1 + number as usize % 100,
        };
        let filler = "some words to make it longer\r\n".repeat(length);
        String::from_utf8(letter(&format!("number {number}"), &format!("{filler}end {number}"))).unwrap()
    }

    /// Of a message of ours that is whole.
    fn number_of(&self, text: &str) -> Option<u32> {
        let number = text.split("Subject: number ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        text.ends_with(&self.content(number)).then_some(number)
    }
}

/// The answer to a command that must succeed, now or, if something has just come back, soon.
#[track_caller]
fn asks(place: &Place, user: &str, command: &str) -> Said {
    let mut said = Vec::new();
    for _ in 0..5 {
        match place.sign_in(user) {
            Ok(Ok(mut imap)) => match imap.asks_imap(command) {
                Ok(answer) if answer.status.starts_with("OK") => return answer,
                Ok(answer) => said.push(answer.status),
                Err(ended) => said.push(format!("{ended:?}")),
            },
            Ok(Err(status)) => said.push(status),
            Err(ended) => said.push(format!("{ended:?}")),
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    panic!("{user}: {command}: {said:?}")
}

/// A time without an answer.
#[derive(Clone, Copy)]
pub struct Gap {
    pub began: Instant,
    pub ended: Instant,
}

impl Gap {
    pub fn length(&self) -> Duration {
        self.ended - self.began
    }
}
