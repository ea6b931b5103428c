//! What is known of one list: whether it is to be believed, and how often it was asked. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use base::UtcMillis;

/// Why a list is set aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It answers that it does not answer, to us or through our name servers.
    Refuses(Ipv4Addr),
    /// It answers with an address that no list gives (RFC 5782 §2.1): somebody else holds the name now.
    Foreign(Ipv4Addr),
    /// It lists what no list lists (RFC 5782 §5).
    ListsAll,
    /// It does not list what every list lists (RFC 5782 §5).
    ListsNothing,
    Silent,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuses(code) => write!(f, "it refuses to answer ({code})"),
            Self::Foreign(address) => write!(f, "it answers with {address}, which is no answer of a list"),
            Self::ListsAll => f.write_str("it lists everything"),
            Self::ListsNothing => f.write_str("it does not list its own test entry"),
            Self::Silent => f.write_str("it does not answer"),
        }
    }
}

impl Trouble {
    /// What an operator does about it.
    pub const fn next_step(self) -> &'static str {
        match self {
            Self::Refuses(_) => "ask through name servers of your own, or register and set filter.dns_list_keys",
            Self::Foreign(_) | Self::ListsAll => "take it out of filter.dns_lists if it has ceased",
            Self::ListsNothing => "name what it lists with `dns_list_test` in a rule file, if it has no test entry",
            Self::Silent => "it is asked again when it answers",
        }
    }

    /// What an answer says of the list itself. `of_names`: a list of names, which refuses with its lowest bit.
    pub fn told_by(answer: Ipv4Addr, of_names: bool) -> Option<Self> {
        match answer.octets() {
            [127, 255, 255, _] => Some(Self::Refuses(answer)),
            [127, 0, 0, 1] if of_names => Some(Self::Refuses(answer)),
            [127, ..] => None,
            _ => Some(Self::Foreign(answer)),
        }
    }
}

/// How often one list may be asked. Zero: without limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    pub per_second: u32,
    pub per_day: u32,
}

/// One list.
#[derive(Debug)]
pub(super) struct Zone {
    state: State,
    /// Questions without an answer, one after the other.
    silences: u32,
    second: Window,
    day: Window,
    is_exhausted: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Not looked at yet: not asked.
    Unknown,
    Well {
        check_at: Instant,
    },
    Aside {
        trouble: Trouble,
        check_at: Instant,
        waited: Duration,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    number: i64,
    count: u32,
}

impl Window {
    /// True if one more fits, which then counts.
    fn takes(&mut self, number: i64, max: u32) -> bool {
        if self.number != number {
            *self = Self { number, count: 0 };
        }
        let fits = max == 0 || self.count < max;
        self.count = self.count.saturating_add(u32::from(fits));
        fits
    }
}

/// What an operator is to hear of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    SetAside(Trouble),
    WellAgain,
}

/// Whether a list may be asked one question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Permit {
    Ask,
    NotNow,
    /// As often as it may be today, and this is the first question too many.
    Exhausted,
}

/// How often a list that is well is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(600);
/// One that is not: at first, and at most, when it is found so again and again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(3600);
/// A lost packet is no silence.
const SILENCES_MAX: u32 = 3;

impl Zone {
    pub fn new() -> Self {
        Self {
            state: State::Unknown,
            silences: 0,
            second: Window::default(),
            day: Window::default(),
            is_exhausted: false,
        }
    }

    pub fn is_well(&self) -> bool {
        matches!(self.state, State::Well { .. })
    }

    pub fn trouble(&self) -> Option<Trouble> {
        match self.state {
            State::Aside { trouble, .. } => Some(trouble),
            State::Unknown | State::Well { .. } => None,
        }
    }

    /// Counts the question if it may be asked.
    pub fn permit(&mut self, utc: UtcMillis, limits: Limits) -> Permit {
        if !self.is_well() {
            return Permit::NotNow;
        }
        let day = utc.as_secs().div_euclid(86_400);
        self.is_exhausted &= self.day.number == day;
        // A second too full leaves the day as it is.
        if !self.second.takes(utc.as_secs(), limits.per_second) {
            return Permit::NotNow;
        }
        if self.day.takes(day, limits.per_day) {
            return Permit::Ask;
        }
        let first = !self.is_exhausted;
        self.is_exhausted = true;
        if first { Permit::Exhausted } else { Permit::NotNow }
    }

    /// Questions of the day of `utc`.
    pub fn asked_today(&self, utc: UtcMillis) -> u32 {
        if self.day.number == utc.as_secs().div_euclid(86_400) { self.day.count } else { 0 }
    }

    pub fn answered(&mut self) {
        self.silences = 0;
    }

    /// A question had no answer.
    pub fn was_silent(&mut self, now: Instant) -> Option<News> {
        self.silences += 1;
        if self.silences >= SILENCES_MAX { self.fell(now, Trouble::Silent) } else { None }
    }

    /// An answer says that the list is not to be believed.
    pub fn fell(&mut self, now: Instant, trouble: Trouble) -> Option<News> {
        match self.state {
            State::Aside { .. } => None,
            State::Unknown | State::Well { .. } => {
                self.state = State::Aside { trouble, check_at: now + AGAIN_AFTER, waited: AGAIN_AFTER };
                Some(News::SetAside(trouble))
            }
        }
    }

    /// When it is to be looked at next.
    pub fn check_at(&self, now: Instant) -> Instant {
        match self.state {
            State::Unknown => now,
            State::Well { check_at } | State::Aside { check_at, .. } => check_at,
        }
    }

    /// It was looked at.
    pub fn checked(&mut self, now: Instant, found: Result<(), Trouble>) -> Option<News> {
        let (before, waited) = match self.state {
            State::Aside { trouble, waited, .. } => (Some(trouble), waited),
            State::Unknown | State::Well { .. } => (None, AGAIN_AFTER),
        };
        match found {
            Ok(()) => {
                self.silences = 0;
                self.state = State::Well { check_at: now + CHECK_EVERY };
                before.map(|_| News::WellAgain)
            }
            Err(trouble) if before.is_some() => {
                let waited = waited.saturating_mul(2).min(AGAIN_AFTER_MAX);
                self.state = State::Aside { trouble, check_at: now + waited, waited };
                None
            }
            Err(trouble) => self.fell(now, trouble),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any moment will do, it is only counted from")]
        Instant::now()
    }

    #[test]
    fn answers_tell_of_the_list() {
        for (answer, of_names, expected) in [
            ("127.0.0.2", true, None),
            ("127.0.0.1", true, Some("it refuses to answer (127.0.0.1)")),
            ("127.0.0.1", false, None),
            ("127.255.255.254", false, Some("it refuses to answer (127.255.255.254)")),
            ("198.51.100.1", false, Some("it answers with 198.51.100.1, which is no answer of a list")),
        ] {
            let told = Trouble::told_by(answer.parse().unwrap(), of_names).map(|trouble| trouble.to_string());
            assert_eq!(told.as_deref(), expected, "{answer}");
        }
    }

    #[test]
    fn a_list_is_asked_once_it_is_found_well_and_told_of_once() {
        let (now, day) = (start(), UtcMillis::from_secs(86_400 * 20_000));
        let mut zone = Zone::new();
        assert_eq!(zone.permit(day, Limits::default()), Permit::NotNow);
        assert_eq!((zone.check_at(now), zone.checked(now, Ok(()))), (now, None));
        assert_eq!((zone.check_at(now), zone.permit(day, Limits::default())), (now + CHECK_EVERY, Permit::Ask));
        assert_eq!((zone.was_silent(now), zone.was_silent(now)), (None, None));
        zone.answered();
        assert_eq!((zone.was_silent(now), zone.was_silent(now)), (None, None));
        assert_eq!(zone.was_silent(now), Some(News::SetAside(Trouble::Silent)));
        assert_eq!((zone.was_silent(now), zone.fell(now, Trouble::ListsAll)), (None, None));
        assert_eq!((zone.permit(day, Limits::default()), zone.trouble()), (Permit::NotNow, Some(Trouble::Silent)));
        // Looked at less and less often, at least once an hour.
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(zone.checked(now, Err(Trouble::ListsNothing)), None);
            waits.push((zone.check_at(now) - now).as_secs());
        }
        assert_eq!((waits[0], waits[8]), (60, 3600));
        assert_eq!(zone.checked(now, Ok(())), Some(News::WellAgain));
        assert_eq!(zone.checked(now, Ok(())), None);
    }

    #[test]
    fn questions_are_counted_by_second_and_day() {
        let mut zone = Zone::new();
        zone.checked(start(), Ok(()));
        let limits = Limits { per_second: 2, per_day: 3 };
        let at = |seconds: i64| UtcMillis::from_secs(86_400 * 20_000 + seconds);
        let permits: Vec<Permit> =
            [0, 0, 0, 1, 1, 2, 86_400].iter().map(|seconds| zone.permit(at(*seconds), limits)).collect();
        use Permit::{Ask, Exhausted, NotNow};
        assert_eq!(permits, [Ask, Ask, NotNow, Ask, Exhausted, NotNow, Ask]);
        assert_eq!((zone.asked_today(at(86_400)), zone.asked_today(at(200_000))), (1, 0));
    }
}
