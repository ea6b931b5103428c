//! How an external milter is asked.

use std::str::FromStr;
use std::time::Duration;

use crate::address::ServiceAddress;

/// How an external milter is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MilterSettings {
    pub address: ServiceAddress,
    pub connect_timeout: Duration,
    /// For one answer.
    pub reply_timeout: Duration,
    /// From the header of a message to the last word on it.
    pub content_timeout: Duration,
    pub when_away: WhenAway,
}

/// What happens to a message that the milter could not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenAway {
    Defer,
    /// Go on as if it were not configured.
    Pass,
}

impl MilterSettings {
    pub fn new(address: ServiceAddress) -> Self {
        Self {
            address,
            connect_timeout: Duration::from_secs(5),
            reply_timeout: Duration::from_secs(30),
            content_timeout: Duration::from_secs(120),
            when_away: WhenAway::Defer,
        }
    }

    /// `ADDRESS[, down=defer|pass][, connect=SECONDS][, reply=SECONDS][, content=SECONDS]`; what is left out is as in
    /// [`MilterSettings::new`], and `when_away` as given. The error names the word that cannot be used.
    pub fn parse(text: &str, when_away: WhenAway) -> Result<Self, InvalidMilter> {
        let bad = |word: &str| InvalidMilter(word.to_owned());
        let mut words = text.split(',').map(str::trim);
        let address = words.next().unwrap_or_default();
        let address = ServiceAddress::from_str(address).map_err(|_| bad(address))?;
        let mut settings = Self { when_away, ..Self::new(address) };
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| bad(word))?;
            let seconds = || value.parse().ok().filter(|s| (1..=3600).contains(s)).map(Duration::from_secs);
            match name {
                "down" if value == "defer" => settings.when_away = WhenAway::Defer,
                "down" if value == "pass" => settings.when_away = WhenAway::Pass,
                "connect" => settings.connect_timeout = seconds().ok_or_else(|| bad(word))?,
                "reply" => settings.reply_timeout = seconds().ok_or_else(|| bad(word))?,
                "content" => settings.content_timeout = seconds().ok_or_else(|| bad(word))?,
                _ => return Err(bad(word)),
            }
        }
        Ok(settings)
    }
}

/// The text names no milter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no `host:port`, `unix:/path` or one of down=defer, down=pass, connect=, reply=, content= (1 to 3600 s)"
)]
pub struct InvalidMilter(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_milter_has_its_own_patience() {
        let parse = |text| MilterSettings::parse(text, WhenAway::Defer);
        let plain = MilterSettings::new("127.0.0.1:8891".parse().unwrap());
        assert_eq!(parse("127.0.0.1:8891"), Ok(plain.clone()));
        let own = parse("unix:/run/m.sock, down=pass, connect=1,reply=2 , content=3").unwrap();
        let seconds = [own.connect_timeout, own.reply_timeout, own.content_timeout].map(|d| d.as_secs());
        assert_eq!((own.when_away, seconds), (WhenAway::Pass, [1, 2, 3]));
        for (text, word) in [
            ("nowhere", "nowhere"),
            ("a:1, down=maybe", "down=maybe"),
            ("a:1, reply=0", "reply=0"),
            ("a:1, reply=5s", "reply=5s"),
            ("a:1, often", "often"),
            ("a:1,", ""),
        ] {
            assert_eq!(parse(text), Err(InvalidMilter(word.to_owned())), "{text}");
        }
    }
}
