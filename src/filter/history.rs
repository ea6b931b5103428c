//! What was seen of a sender, of its network and of this very message before, and what follows from it.

use std::net::IpAddr;
use std::time::Duration;

use base::UtcMillis;
use policy::{Cause, Decision, Disposition, Finding, Greylisting, ReasonClass, Score, SenderFacts, VirusState};
use reputation::{Amount, Kind, Record, Reputation, Subject};

use crate::facts::{MessageFacts, Source};
use crate::learned;
use crate::proof;
use crate::verdict::Judgement;

/// What is asked of a message's past, and written down when it is decided.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// Whose good or bad message it is.
    senders: Vec<Subject>,
    /// What tells it from others, should it be put off; and its network, should it come again.
    grey: Option<Grey>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Grey {
    /// Network and envelope, and content: senders with many machines come again from another one.
    message: [Subject; 2],
    network: Subject,
}

/// What is known before a message is decided.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub findings: Vec<Finding>,
    pub greylisting: Greylisting,
    pub marks: Marks,
}

/// A message that came again after this time is taken: a little less than what the client was told.
const GREY_WAIT: Duration = Duration::from_secs(4 * 60 + 30);
/// Below it no policy finds a message suspicious.
const SUSPICIOUS_MIN: Score = Score(500);
/// Fewer messages say nothing.
const MESSAGES_MIN: f64 = 3.0;
/// A network has many users: more messages are needed, and little good follows.
const NETWORK_MESSAGES_MIN: f64 = 8.0;

/// Looks up what is known. Nothing is known of ourselves: neither good nor bad follows from the loopback interface.
pub(crate) async fn look_up(
    reputation: &Reputation,
    facts: &MessageFacts,
    sender: &SenderFacts,
    score: Score,
    is_greylisted: bool,
) -> Past {
    let Source::Client { ip, .. } = &facts.source else { return Past::default() };
    let network = network(*ip);
    let of_network = is_public(*ip).then(|| Subject::of(Kind::Network, &[&network]));
    let author = sender.author.as_deref().filter(|_| sender.is_author_proven);
    let domain = author.and_then(|author| author.rsplit_once('@')).map(|(_, domain)| domain);
    let of_author = author.map(|author| Subject::of(Kind::Author, &[author]));
    let of_domain = domain.map(|domain| Subject::of(Kind::Domain, &[domain]));
    let grey = (is_greylisted && score >= SUSPICIOUS_MIN).then(|| grey(facts, &network));
    let asked: Vec<Subject> = [of_network, of_author, of_domain]
        .into_iter()
        .flatten()
        .chain(grey.iter().flat_map(|grey| [grey.message[0], grey.message[1], grey.network]))
        .collect();
    let Some(known) = reputation.of(&asked).await else { return Past::default() };
    let record = |subject: Option<Subject>| {
        let at = asked.iter().position(|asked| Some(*asked) == subject);
        at.and_then(|at| known.get(at)).cloned().unwrap_or_default()
    };
    let mut findings = Vec::new();
    findings.extend(of_sender(&record(of_author), &record(of_domain), author.unwrap_or_default()));
    findings.extend(of_network_record(&record(of_network), &network));
    let greylisting = match grey {
        None => Greylisting::Unknown,
        Some(grey) => {
            let seen = grey.message.iter().filter_map(|subject| record(Some(*subject)).first_at()).min();
            let returns = record(Some(grey.network)).is_known();
            greylisting(seen, returns, facts.received_at)
        }
    };
    let senders = [of_network, of_author, of_domain].into_iter().flatten().collect();
    Past { findings, greylisting, marks: Marks { senders, grey } }
}

fn greylisting(seen: Option<UtcMillis>, returns: bool, now: UtcMillis) -> Greylisting {
    match seen {
        _ if returns => Greylisting::Returns,
        None => Greylisting::First,
        Some(at) if now.since(at) >= GREY_WAIT => Greylisting::CameAgain,
        Some(_) => Greylisting::TooSoon,
    }
}

fn grey(facts: &MessageFacts, network: &str) -> Grey {
    let reverse_path = facts.envelope.reverse_path.to_string();
    let mut recipients: Vec<String> = facts.envelope.forward_paths.iter().map(|path| path.to_string()).collect();
    recipients.sort_unstable();
    let mut envelope = vec![network, &reverse_path];
    envelope.extend(recipients.iter().map(String::as_str));
    let learned::Key(content) = learned::key(&facts.message);
    let content: String = content.iter().map(|octet| format!("{octet:02x}")).collect();
    Grey {
        message: [
            Subject::of(Kind::PutOff, &envelope),
            Subject::of(Kind::PutOff, &["content", &content, &reverse_path]),
        ],
        network: Subject::of(Kind::Returns, &[network]),
    }
}

/// Writes down what became of a message: one decision for each recipient.
pub(crate) fn write_down(reputation: &Reputation, judgement: &Judgement, decisions: &[Decision], quarantine: Score) {
    let Marks { senders, grey } = &judgement.marks;
    let is_put_off = |decision: &Decision| matches!(decision.cause, Cause::Greylisted { .. });
    if let (Some(grey), true) = (grey, decisions.iter().any(is_put_off)) {
        grey.message.iter().for_each(|subject| reputation.add(*subject, Amount::GOOD));
    }
    // What comes again is counted then.
    if decisions.iter().any(|decision| matches!(decision.disposition, Disposition::Defer(_))) {
        return;
    }
    if let (Some(grey), Greylisting::CameAgain) = (grey, judgement.greylisting) {
        reputation.add(grey.network, Amount::GOOD);
    }
    let Some(amount) = class_of(judgement, quarantine) else { return };
    senders.iter().for_each(|subject| reputation.add(*subject, amount));
}

/// Whether a message is a good or a bad one by what it is: who sent earlier ones does not count, or each opinion would prove
/// itself.
fn class_of(judgement: &Judgement, quarantine: Score) -> Option<Amount> {
    let of_history: Score = judgement.findings.iter().filter(|f| is_of_history(f)).map(|f| f.score).sum();
    let own = judgement.score + -of_history;
    match &judgement.virus {
        VirusState::Found(_) => Some(Amount::BAD),
        _ if own >= quarantine => Some(Amount::BAD),
        VirusState::NotScanned | VirusState::Clean if own <= Score::points(1) => Some(Amount::GOOD),
        VirusState::NotScanned | VirusState::Clean | VirusState::Suspected(_) | VirusState::Unavailable => None,
    }
}

/// True of a finding that stands on earlier messages, not on this one.
pub(crate) fn is_of_history(finding: &Finding) -> bool {
    ["HISTORY_GOOD", "HISTORY_BAD", "NETWORK_GOOD", "NETWORK_BAD", "CONTACT_KNOWN"].contains(&&*finding.name)
}

/// The address says more than its domain, where there is enough of it.
fn of_sender(author: &Record, domain: &Record, name: &str) -> Option<Finding> {
    let of = |record: &Record| {
        let (good, bad) = record.weighed();
        (good + bad >= MESSAGES_MIN).then_some((good, bad))
    };
    let domain_name = name.rsplit_once('@').map_or(name, |(_, domain)| domain);
    let (record, name, (good, bad)) = match (of(author), of(domain)) {
        (Some(weighed), _) => (author, name, weighed),
        (None, Some(weighed)) => (domain, domain_name, weighed),
        (None, None) => return None,
    };
    let points = points((good, bad), (2.0, 3.0));
    let told = |name_of, description| finding(name_of, points, description, &evidence(name, record));
    match points.0 {
        0 => None,
        ..0 => Some(told("HISTORY_GOOD", "Earlier mail of this sender was good")),
        _ => Some(told("HISTORY_BAD", "Earlier mail of this sender was bad")),
    }
}

fn of_network_record(record: &Record, network: &str) -> Option<Finding> {
    let (good, bad) = record.weighed();
    if good + bad < NETWORK_MESSAGES_MIN {
        return None;
    }
    let points = points((good, bad), (0.5, 2.5));
    let told = |name, description| finding(name, points, description, &evidence(network, record));
    match points.0 {
        0 => None,
        ..0 => Some(told("NETWORK_GOOD", "Earlier mail from this network was good")),
        _ => Some(told("NETWORK_BAD", "Earlier mail from this network was bad")),
    }
}

/// From `-most_good` to `most_bad`; nothing for a mixture.
fn points((good, bad): (f64, f64), (most_good, most_bad): (f64, f64)) -> Score {
    let count = good + bad;
    let (trust, share) = (count / (count + 4.0), bad / count);
    let value = if share <= GOOD_SHARE {
        -most_good * trust * (1.0 - share / GOOD_SHARE)
    } else if share >= 0.5 {
        most_bad * trust * (share - 0.5) * 2.0
    } else {
        0.0
    };
    #[expect(clippy::cast_possible_truncation, reason = "a few points")]
    Score((value * 10.0).round() as i32 * 100)
}

/// With a greater share of bad messages a sender is not a good one.
const GOOD_SHARE: f64 = 0.1;

fn evidence(name: &str, record: &Record) -> String {
    let (good, bad) = record.sum();
    let since = record.first_at().map(mail::date::format_utc).unwrap_or_default();
    let day = since.split('T').next().unwrap_or_default();
    format!("{name}: {good} good, {bad} bad since {day}")
}

/// That a recipient has written to the author, who is proven.
pub fn contact(author: &str) -> Finding {
    finding("CONTACT_KNOWN", Score::points(-3), "You have written to this sender", author)
}

fn finding(name: &str, score: Score, description: &str, evidence: &str) -> Finding {
    Finding { class: ReasonClass::Reputation, score, ..proof::finding(name, 0, description, evidence) }
}

/// The network of a client: /24 of IPv4, /48 of IPv6, as sites are given them.
pub fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

/// False of networks that are anybody's, ours among them.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixture_says_nothing_and_more_messages_say_more() {
        let at = |good: f64, bad: f64| points((good, bad), (2.0, 3.0)).as_f64();
        assert_eq!(at(4.0, 0.0), -1.0);
        assert!(at(100.0, 0.0) < -1.8 && at(100.0, 2.0) > at(100.0, 0.0));
        assert_eq!((at(8.0, 2.0), at(5.0, 5.0)), (0.0, 0.0));
        assert!(at(0.0, 4.0) == 1.5 && at(0.0, 100.0) > 2.8 && at(2.0, 8.0) > 0.5);
    }

    #[test]
    fn a_message_that_comes_again_is_taken() {
        let now = UtcMillis(10_000_000);
        let ago = |secs| Some(now.minus(Duration::from_secs(secs)));
        for (seen, returns, expected) in [
            (None, false, Greylisting::First),
            (ago(10), false, Greylisting::TooSoon),
            (ago(269), false, Greylisting::TooSoon),
            (ago(270), false, Greylisting::CameAgain),
            (None, true, Greylisting::Returns),
        ] {
            assert_eq!(greylisting(seen, returns, now), expected);
        }
    }

    #[test]
    fn networks_are_those_of_sites() {
        for (ip, expected, public) in [
            ("192.0.2.77", "192.0.2.0/24", true),
            ("::ffff:192.0.2.77", "192.0.2.0/24", true),
            ("2001:db8:1:2:3::4", "2001:db8:1::/48", true),
            ("127.0.0.1", "127.0.0.0/24", false),
            ("10.1.2.3", "10.1.2.0/24", false),
            ("::1", "0:0:0::/48", false),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!((network(ip).as_str(), is_public(ip)), (expected, public));
        }
    }
}
