//! What is done with a judged message for one recipient, and what decided it.

use std::fmt;
use std::sync::Arc;

use base::UtcMillis;
use mail::{Enhanced, Status};

use crate::finding::Score;
use crate::list::{SenderFacts, Skips, Word};
use crate::option::{
    AttachmentClass, DmarcAction, Greylist, Key, NewsletterAction, OwnDomainAction, ScannerUnavailable, SpfFail,
    VirusAction, WhenBlocked, WhenCountry, WhenQuarantined, WhenSenderBlocked, WhenSuspicious, WhenTagged,
};
use crate::resolve::{EffectivePolicy, Origin};

/// What is done for one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disposition {
    Deliver,
    /// Delivered with header fields that say so, and with a text before the subject if there is one.
    DeliverTagged {
        subject_tag: Option<Arc<str>>,
    },
    /// Into the Junk folder, tagged.
    Junk,
    Quarantine,
    /// 5xx in the session.
    Reject(Status),
    /// 4xx in the session.
    Defer(Status),
}

impl Disposition {
    /// Stable name for the trail and counters.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::DeliverTagged { .. } => "tag",
            Self::Junk => "junk",
            Self::Quarantine => "quarantine",
            Self::Reject(_) => "reject",
            Self::Defer(_) => "defer",
        }
    }

    /// Of several wishes the highest is followed. A defer beats a quarantine, for what could not be looked at is
    /// not to be kept either; a reject beats a defer, for nothing that is seen later makes the message good.
    const fn severity(&self) -> u8 {
        match self {
            Self::Deliver => 0,
            Self::DeliverTagged { .. } => 1,
            Self::Junk => 2,
            Self::Quarantine => 3,
            Self::Defer(_) => 4,
            Self::Reject(_) => 5,
        }
    }
}

/// What is known of the message, the same for all recipients.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    pub score: Score,
    pub virus: VirusState,
    pub attachments: Attachments,
    /// SPF says fail, and DMARC does not pass either.
    pub spf_failed: bool,
    pub dmarc: DmarcWish,
    pub external: Option<ExternalWish>,
    pub sender: SenderFacts,
    pub greylisting: Greylisting,
    /// It comes in bulk and says how to cancel it.
    pub is_newsletter: bool,
    /// From outside it names one of our own domains as its sender, and proves nothing.
    pub is_own_domain_claimed: bool,
    /// Two letters, where its client's is known.
    pub country: Option<Arc<str>>,
    pub size_bytes: u64,
    /// When it came.
    pub at: UtcMillis,
}

/// Whether the message, or others of its client's network, came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Greylisting {
    /// Nobody knows: its source does not come again, or what is known cannot be read.
    #[default]
    Unknown,
    /// Never seen.
    First,
    /// Seen, but not long enough ago.
    TooSoon,
    /// Seen long enough ago.
    CameAgain,
    /// Its network is known to come again.
    Returns,
}

/// What virus scanners said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum VirusState {
    /// No scanner is configured.
    #[default]
    NotScanned,
    Clean,
    Found(Arc<str>),
    /// Not known, but it looks like one: a scanner's guess, by its name.
    Suspected(Arc<str>),
    /// A scanner is configured and none could look at the message.
    Unavailable,
}

/// What the attachments are, inside archives, too. Each with the path inside of the first: `invoice.zip/scan.pdf.exe`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attachments {
    pub classes: Vec<(AttachmentClass, Arc<str>)>,
    /// Lower case.
    pub extensions: Vec<(Arc<str>, Arc<str>)>,
}

/// Kinds that may be harmful where they are not blocked.
const SUSPICIOUS: [AttachmentClass; 3] =
    [AttachmentClass::Macros, AttachmentClass::Encrypted, AttachmentClass::Unreadable];

/// What the author's domain wishes for a message that fails DMARC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DmarcWish {
    /// DMARC does not fail, or the domain wishes nothing.
    #[default]
    Nothing,
    Quarantine,
    Reject,
}

/// What an external milter wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExternalWish {
    /// Also stands for a milter's "discard": nothing is thrown away silently.
    Quarantine {
        reason: Arc<str>,
    },
    Reject(Status),
    Defer(Status),
}

/// What decided, for the trail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Nothing stood against delivery.
    Nothing,
    /// The score reached a threshold.
    Score {
        score: Score,
        key: Key,
        threshold: Score,
        origin: Origin,
    },
    Virus {
        name: Arc<str>,
        origin: Origin,
    },
    ScannerUnavailable {
        origin: Origin,
    },
    /// A scanner's guess.
    Suspected {
        name: Arc<str>,
        origin: Origin,
    },
    Attachment {
        class: AttachmentClass,
        path: Arc<str>,
        origin: Origin,
    },
    Extension {
        path: Arc<str>,
        origin: Origin,
    },
    SuspiciousAttachment {
        class: AttachmentClass,
        path: Arc<str>,
        origin: Origin,
    },
    Dmarc {
        wish: DmarcWish,
        origin: Origin,
    },
    Spf {
        origin: Origin,
    },
    External,
    /// A list lets it through, whatever its score.
    Allowed {
        entry: Arc<str>,
        origin: Origin,
    },
    Blocked {
        entry: Arc<str>,
        origin: Origin,
    },
    /// It is held, for its account sends as a thief would.
    Sending {
        score: Score,
        origin: Origin,
    },
    Newsletter {
        origin: Origin,
    },
    OwnDomain {
        origin: Origin,
    },
    Country {
        code: Arc<str>,
        origin: Origin,
    },
    Size {
        origin: Origin,
    },
    /// It is to come again later.
    Greylisted {
        score: Score,
        origin: Origin,
    },
}

/// Who may let a message out of quarantine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReleasedBy {
    /// Whom it is for.
    Owner,
    /// Who administers the domain: the owner may ask.
    Admin,
    /// The provider.
    Staff,
}

impl ReleasedBy {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Staff => "staff",
        }
    }

    /// By the reason why it is held, see [`Cause::reason`]. One that is not known is the provider's.
    pub fn of_reason(reason: &str) -> Self {
        match reason {
            "spam" | "newsletter" | "country" | "blocked" | "milter" | "other" => Self::Owner,
            "attachment" | "suspicious" => Self::Admin,
            _ => Self::Staff,
        }
    }
}

impl Cause {
    /// One stable word for what decided: of what is held, of counters, and of texts for people.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Nothing | Self::Allowed { .. } | Self::ScannerUnavailable { .. } | Self::Greylisted { .. } => "other",
            Self::Score { .. } => "spam",
            Self::Virus { .. } => "virus",
            Self::Suspected { .. } | Self::SuspiciousAttachment { .. } => "suspicious",
            Self::Attachment { .. } | Self::Extension { .. } => "attachment",
            Self::Dmarc { .. } | Self::Spf { .. } | Self::OwnDomain { .. } => "forged",
            Self::External => "milter",
            Self::Blocked { .. } => "blocked",
            Self::Sending { .. } => "sending",
            Self::Newsletter { .. } => "newsletter",
            Self::Country { .. } => "country",
            Self::Size { .. } => "size",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing against it"),
            Self::Score { score, key, threshold, origin } => {
                write!(f, "score {score} reaches {} {threshold} ({origin})", key.option().name)
            }
            Self::Virus { name, origin } => write!(f, "virus {name} ({origin})"),
            Self::ScannerUnavailable { origin } => write!(f, "no virus scanner answers ({origin})"),
            Self::Suspected { name, origin } => write!(f, "suspected virus {name} ({origin})"),
            Self::Attachment { class, path, origin } => {
                write!(f, "blocked attachment, {}: {path} ({origin})", class.as_str())
            }
            Self::Extension { path, origin } => write!(f, "blocked attachment, extension: {path} ({origin})"),
            Self::SuspiciousAttachment { class, path, origin } => {
                write!(f, "suspicious attachment, {}: {path} ({origin})", class.as_str())
            }
            Self::Dmarc { wish: DmarcWish::Reject, origin } => write!(f, "DMARC fails, p=reject ({origin})"),
            Self::Dmarc { origin, .. } => write!(f, "DMARC fails, p=quarantine ({origin})"),
            Self::Spf { origin } => write!(f, "SPF fails ({origin})"),
            Self::External => f.write_str("external milter"),
            Self::Allowed { entry, origin } => write!(f, "allowed sender {entry} ({origin})"),
            Self::Blocked { entry, origin } => write!(f, "blocked sender {entry} ({origin})"),
            Self::Sending { score, origin } => {
                write!(f, "sent as with a stolen password (score {score}, {origin})")
            }
            Self::Newsletter { origin } => write!(f, "newsletter ({origin})"),
            Self::OwnDomain { origin } => write!(f, "claims to come from here ({origin})"),
            Self::Country { code, origin } => write!(f, "comes from {code} ({origin})"),
            Self::Size { origin } => write!(f, "too large ({origin})"),
            Self::Greylisted { score, origin } => {
                write!(f, "suspicious (score {score}) and not seen before ({origin})")
            }
        }
    }
}

/// The disposition of one recipient, what decided it, and the score as it counted for this recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    pub disposition: Disposition,
    pub cause: Cause,
    pub score: Score,
    /// The line of a kept list that fits the sender.
    pub hit: Option<i64>,
}

impl Decision {
    /// Before anything decides.
    pub const NONE: Self =
        Self { disposition: Disposition::Deliver, cause: Cause::Nothing, score: Score::ZERO, hit: None };
}

/// Further points for an SPF failure where policy says `score-high`.
pub const SPF_HIGH: Score = Score(2500);

const SPAM: Status = Status::fixed(554, Enhanced(5, 7, 1), "Message refused as spam");
const VIRUS: Status = Status::fixed(554, Enhanced(5, 7, 1), "Message refused: it carries a virus");
const BLOCKED: Status =
    Status::fixed(554, Enhanced(5, 7, 1), "Message refused: it carries a file of a kind that is not accepted");
const DMARC: Status =
    Status::fixed(550, Enhanced(5, 7, 1), "Message refused by the DMARC policy of its sender's domain");
const SPF: Status = Status::fixed(550, Enhanced(5, 7, 23), "Message refused: SPF validation failed");
const SENDER: Status =
    Status::fixed(550, Enhanced(5, 7, 1), "Message refused: its recipient wants no mail from this sender");
const TOO_LARGE: Status = Status::fixed(552, Enhanced(5, 3, 4), "Message too large for its recipient");
const FROM_COUNTRY: Status =
    Status::fixed(550, Enhanced(5, 7, 1), "Message refused: its recipient wants no mail from your country");
const OWN_DOMAIN: Status =
    Status::fixed(550, Enhanced(5, 7, 1), "Message refused: it does not come from the domain that it names");
const GREYLISTED: Status =
    Status::fixed(451, Enhanced(4, 7, 1), "Greylisted: not known here yet, try again in five minutes");
const UNSCANNED: Status = Status::fixed(451, Enhanced(4, 7, 0), "Message could not be checked now, try again later");

/// What `policy` makes of `facts` for one recipient.
pub fn decide(policy: &EffectivePolicy, facts: &Facts) -> Decision {
    let high = facts.spf_failed && policy.spf_fail() == SpfFail::ScoreHigh;
    let score = if high { facts.score + SPF_HIGH } else { facts.score };
    let listed = policy.lists().find(&facts.sender, facts.at);
    let skips = match listed {
        Some((Word::Allow, line, _)) => line.skips,
        Some((Word::Block, ..)) | None => Skips { spam: false, newsletter: false, auth: false, attachments: false },
    };
    let harm = [
        by_virus(policy, facts),
        by_attachments(policy, &facts.attachments).filter(|_| !skips.attachments),
        by_suspicion(policy, facts, skips.attachments),
        facts.external.as_ref().map(|wish| (by_external(policy, wish), Cause::External)),
        by_size(policy, facts.size_bytes),
    ];
    let mut decided = (Disposition::Deliver, Cause::Nothing);
    let doubts = match listed {
        // Lists are about who sends: what is sent can do harm all the same.
        Some((Word::Allow, line, origin)) => {
            decided.1 = Cause::Allowed { entry: line.text.clone(), origin: origin.clone() };
            let auth = !skips.auth;
            [
                by_dmarc(policy, facts.dmarc).filter(|_| auth),
                by_spf(policy, facts.spf_failed).filter(|_| auth),
                by_own_domain(policy, facts.is_own_domain_claimed).filter(|_| auth),
                by_newsletter(policy, facts.is_newsletter).filter(|_| !skips.newsletter),
                by_country(policy, facts.country.as_ref()).filter(|_| !skips.spam),
                by_greylisting(policy, facts, score).filter(|_| !skips.spam),
                by_score(policy, score).filter(|_| !skips.spam),
            ]
        }
        Some((Word::Block, line, origin)) => {
            let cause = Cause::Blocked { entry: line.text.clone(), origin: origin.clone() };
            [Some((by_block(policy), cause)), None, None, None, None, None, by_score(policy, score)]
        }
        None => [
            by_dmarc(policy, facts.dmarc),
            by_spf(policy, facts.spf_failed),
            by_own_domain(policy, facts.is_own_domain_claimed),
            by_newsletter(policy, facts.is_newsletter),
            by_country(policy, facts.country.as_ref()),
            by_greylisting(policy, facts, score),
            by_score(policy, score),
        ],
    };
    for wish in harm.into_iter().chain(doubts).flatten() {
        if wish.0.severity() > decided.0.severity() {
            decided = wish;
        }
    }
    Decision { disposition: decided.0, cause: decided.1, score, hit: listed.and_then(|(_, line, _)| line.id) }
}

fn by_virus(policy: &EffectivePolicy, facts: &Facts) -> Option<(Disposition, Cause)> {
    match &facts.virus {
        VirusState::NotScanned | VirusState::Clean | VirusState::Suspected(_) => None,
        VirusState::Found(name) => {
            // Never into a mailbox by way of `when-quarantined`.
            let disposition = match policy.virus() {
                VirusAction::Quarantine => Disposition::Quarantine,
                VirusAction::Reject => Disposition::Reject(VIRUS),
            };
            Some((disposition, Cause::Virus { name: name.clone(), origin: policy.get(Key::Virus).origin.clone() }))
        }
        VirusState::Unavailable => match policy.scanner_unavailable() {
            ScannerUnavailable::Deliver => None,
            ScannerUnavailable::Defer => {
                let origin = policy.get(Key::ScannerUnavailable).origin.clone();
                Some((Disposition::Defer(UNSCANNED), Cause::ScannerUnavailable { origin }))
            }
        },
    }
}

/// Of several blocked files the first counts: all get the same.
fn by_attachments(policy: &EffectivePolicy, seen: &Attachments) -> Option<(Disposition, Cause)> {
    let of_class = seen.classes.iter().find(|(class, _)| policy.blocks(*class)).map(|(class, path)| {
        let origin = policy.get(Key::BlockedAttachments).origin.clone();
        Cause::Attachment { class: *class, path: path.clone(), origin }
    });
    let cause = of_class.or_else(|| {
        let (_, path) = seen.extensions.iter().find(|(extension, _)| policy.blocks_extension(extension))?;
        let origin = policy.get(Key::BlockedExtensions).origin.clone();
        Some(Cause::Extension { path: path.clone(), origin })
    })?;
    // Never into a mailbox by way of `when-quarantined`.
    let disposition = match policy.when_blocked() {
        WhenBlocked::Tag => tag(policy),
        WhenBlocked::Quarantine => Disposition::Quarantine,
        WhenBlocked::Reject => Disposition::Reject(BLOCKED),
    };
    Some((disposition, cause))
}

fn by_suspicion(policy: &EffectivePolicy, facts: &Facts, skips_files: bool) -> Option<(Disposition, Cause)> {
    let origin = policy.get(Key::WhenSuspicious).origin.clone();
    let is_suspicious = |class: &AttachmentClass| SUSPICIOUS.contains(class);
    let cause = match &facts.virus {
        VirusState::Suspected(name) => Cause::Suspected { name: name.clone(), origin },
        VirusState::NotScanned | VirusState::Clean | VirusState::Found(_) | VirusState::Unavailable => {
            let mut classes = facts.attachments.classes.iter().filter(|_| !skips_files);
            let (class, path) = classes.find(|(class, _)| is_suspicious(class))?;
            Cause::SuspiciousAttachment { class: *class, path: path.clone(), origin }
        }
    };
    match policy.when_suspicious() {
        WhenSuspicious::Deliver => None,
        WhenSuspicious::Tag => Some((tag(policy), cause)),
        WhenSuspicious::Quarantine => Some((Disposition::Quarantine, cause)),
    }
}

fn by_external(policy: &EffectivePolicy, wish: &ExternalWish) -> Disposition {
    match wish {
        ExternalWish::Quarantine { .. } => quarantine(policy),
        ExternalWish::Reject(status) => Disposition::Reject(status.clone()),
        ExternalWish::Defer(status) => Disposition::Defer(status.clone()),
    }
}

fn by_dmarc(policy: &EffectivePolicy, wish: DmarcWish) -> Option<(Disposition, Cause)> {
    let disposition = match (policy.dmarc(), wish) {
        (DmarcAction::Score, _) | (_, DmarcWish::Nothing) => return None,
        (DmarcAction::Follow, DmarcWish::Reject) => Disposition::Reject(DMARC),
        (DmarcAction::Quarantine, DmarcWish::Reject)
        | (DmarcAction::Quarantine | DmarcAction::Follow, DmarcWish::Quarantine) => quarantine(policy),
    };
    Some((disposition, Cause::Dmarc { wish, origin: policy.get(Key::Dmarc).origin.clone() }))
}

fn by_spf(policy: &EffectivePolicy, failed: bool) -> Option<(Disposition, Cause)> {
    let disposition = match policy.spf_fail() {
        SpfFail::Quarantine if failed => quarantine(policy),
        SpfFail::Reject if failed => Disposition::Reject(SPF),
        SpfFail::Score | SpfFail::ScoreHigh | SpfFail::Quarantine | SpfFail::Reject => return None,
    };
    Some((disposition, Cause::Spf { origin: policy.get(Key::SpfFail).origin.clone() }))
}

fn by_own_domain(policy: &EffectivePolicy, is_claimed: bool) -> Option<(Disposition, Cause)> {
    let disposition = match policy.own_domain() {
        OwnDomainAction::Quarantine if is_claimed => quarantine(policy),
        OwnDomainAction::Reject if is_claimed => Disposition::Reject(OWN_DOMAIN),
        OwnDomainAction::Score | OwnDomainAction::Quarantine | OwnDomainAction::Reject => return None,
    };
    Some((disposition, Cause::OwnDomain { origin: policy.get(Key::OwnDomain).origin.clone() }))
}

fn by_newsletter(policy: &EffectivePolicy, is_newsletter: bool) -> Option<(Disposition, Cause)> {
    let disposition = match policy.newsletter() {
        NewsletterAction::Tag if is_newsletter => match policy.when_tagged() {
            WhenTagged::Header | WhenTagged::Junk => Disposition::DeliverTagged { subject_tag: None },
            WhenTagged::Subject => Disposition::DeliverTagged { subject_tag: Some(policy.subject_tag()) },
        },
        NewsletterAction::Junk if is_newsletter => Disposition::Junk,
        NewsletterAction::Quarantine if is_newsletter => quarantine(policy),
        NewsletterAction::Deliver | NewsletterAction::Tag | NewsletterAction::Junk | NewsletterAction::Quarantine => {
            return None;
        }
    };
    Some((disposition, Cause::Newsletter { origin: policy.get(Key::Newsletter).origin.clone() }))
}

fn by_country(policy: &EffectivePolicy, country: Option<&Arc<str>>) -> Option<(Disposition, Cause)> {
    let code = country.filter(|code| policy.blocks_country(code))?;
    let disposition = match policy.when_country() {
        WhenCountry::Tag => tag(policy),
        WhenCountry::Quarantine => quarantine(policy),
        WhenCountry::Reject => Disposition::Reject(FROM_COUNTRY),
    };
    let origin = policy.get(Key::BlockedCountries).origin.clone();
    Some((disposition, Cause::Country { code: code.clone(), origin }))
}

fn by_size(policy: &EffectivePolicy, size_bytes: u64) -> Option<(Disposition, Cause)> {
    let limit = policy.number(Key::MessageSize).saturating_mul(1_000_000);
    let origin = || policy.get(Key::MessageSize).origin.clone();
    (limit > 0 && size_bytes > limit).then(|| (Disposition::Reject(TOO_LARGE), Cause::Size { origin: origin() }))
}

fn by_block(policy: &EffectivePolicy) -> Disposition {
    match policy.when_sender_blocked() {
        WhenSenderBlocked::Junk => Disposition::Junk,
        WhenSenderBlocked::Quarantine => quarantine(policy),
        WhenSenderBlocked::Reject => Disposition::Reject(SENDER),
    }
}

fn by_greylisting(policy: &EffectivePolicy, facts: &Facts, score: Score) -> Option<(Disposition, Cause)> {
    let is_put_off = match facts.greylisting {
        Greylisting::First | Greylisting::TooSoon => true,
        Greylisting::Unknown | Greylisting::CameAgain | Greylisting::Returns => false,
    };
    let is_suspicious = match policy.greylist() {
        Greylist::Off => false,
        Greylist::Suspicious => score >= policy.score(Key::GreylistScore),
        Greylist::All => true,
    };
    let origin = || policy.get(Key::GreylistScore).origin.clone();
    (is_put_off && is_suspicious)
        .then(|| (Disposition::Defer(GREYLISTED), Cause::Greylisted { score, origin: origin() }))
}

fn by_score(policy: &EffectivePolicy, score: Score) -> Option<(Disposition, Cause)> {
    let key =
        [Key::RejectScore, Key::QuarantineScore, Key::TagScore].into_iter().find(|key| score >= policy.score(*key))?;
    let disposition = match key {
        Key::RejectScore => Disposition::Reject(SPAM),
        Key::QuarantineScore => quarantine(policy),
        _ => tag(policy),
    };
    let origin = policy.get(key).origin.clone();
    Some((disposition, Cause::Score { score, key, threshold: policy.score(key), origin }))
}

fn quarantine(policy: &EffectivePolicy) -> Disposition {
    match policy.when_quarantined() {
        WhenQuarantined::Deliver => Disposition::DeliverTagged { subject_tag: None },
        WhenQuarantined::Junk => Disposition::Junk,
        WhenQuarantined::Quarantine => Disposition::Quarantine,
    }
}

fn tag(policy: &EffectivePolicy) -> Disposition {
    match policy.when_tagged() {
        WhenTagged::Header => Disposition::DeliverTagged { subject_tag: None },
        WhenTagged::Subject => Disposition::DeliverTagged { subject_tag: Some(policy.subject_tag()) },
        WhenTagged::Junk => Disposition::Junk,
    }
}

/// What the session answers when the recipients of one message are decided differently.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionOutcome {
    /// Accept; each recipient in order with what is done. None of them rejects or defers.
    Accept(Vec<Disposition>),
    /// All recipients reject.
    Reject(Status),
    /// Nothing is kept: the client tries again.
    Defer(Status),
}

/// One answer for all recipients (SMTP has only one). All reject: reject. Some defer: the whole message is deferred,
/// for it cannot be taken for the others alone. Else it is accepted, and those who would reject get it quarantined:
/// a message once accepted is never bounced.
pub fn combine(dispositions: &[Disposition]) -> SessionOutcome {
    let all_reject = dispositions.iter().all(|d| matches!(d, Disposition::Reject(_)));
    if let (true, Some(Disposition::Reject(status))) = (all_reject, dispositions.first()) {
        return SessionOutcome::Reject(status.clone());
    }
    let mut kept = Vec::with_capacity(dispositions.len());
    for disposition in dispositions {
        match disposition {
            Disposition::Defer(status) => return SessionOutcome::Defer(status.clone()),
            Disposition::Reject(_) => kept.push(Disposition::Quarantine),
            Disposition::Deliver | Disposition::DeliverTagged { .. } | Disposition::Junk | Disposition::Quarantine => {
                kept.push(disposition.clone())
            }
        }
    }
    SessionOutcome::Accept(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Layer;
    use crate::option::Level;
    use crate::preset::Presets;

    fn check(policy: &str, facts: &Facts, disposition: &str, cause: &str) {
        let layer = Layer::parse(Level::System, "p.toml", policy).unwrap();
        let decision = decide(&EffectivePolicy::resolve(&Presets::shipped(), &[layer]), facts);
        assert_eq!((decision.disposition.as_str(), decision.cause.to_string().as_str()), (disposition, cause));
    }

    fn scored(score: &str) -> Facts {
        Facts { score: score.parse().unwrap(), ..Facts::default() }
    }

    #[test]
    fn scores_meet_thresholds() {
        check("", &scored("3.999"), "deliver", "nothing against it");
        check("", &scored("4"), "junk", "score 4.0 reaches tag-score 4.0 (default)");
        check("when-tagged = \"header\"", &scored("4"), "tag", "score 4.0 reaches tag-score 4.0 (default)");
        check("", &scored("6"), "quarantine", "score 6.0 reaches quarantine-score 6.0 (default)");
        check(
            "when-quarantined = \"junk\"",
            &scored("14.9"),
            "junk",
            "score 14.9 reaches quarantine-score 6.0 (default)",
        );
        check(
            "preset = \"relaxed\"",
            &scored("20"),
            "reject",
            "score 20.0 reaches reject-score 20.0 (preset relaxed of system p.toml)",
        );
    }

    #[test]
    fn the_subject_tag_rides_along() {
        let layer = Layer::parse(Level::System, "p", "when-tagged = \"subject\"\nsubject-tag = \"***\"").unwrap();
        let policy = EffectivePolicy::resolve(&Presets::shipped(), &[layer]);
        let tagged = Disposition::DeliverTagged { subject_tag: Some("***".into()) };
        assert_eq!(decide(&policy, &scored("5")).disposition, tagged);
    }

    #[test]
    fn viruses_and_absent_scanners() {
        let found = Facts { virus: VirusState::Found("Eicar".into()), ..scored("0") };
        check("", &found, "reject", "virus Eicar (default)");
        let mild = "virus = \"quarantine\"\nwhen-quarantined = \"deliver\"";
        check(mild, &found, "quarantine", "virus Eicar (system p.toml)");
        let absent = |score: &str| Facts { virus: VirusState::Unavailable, ..scored(score) };
        check("", &absent("7"), "defer", "no virus scanner answers (default)");
        check("", &absent("16"), "reject", "score 16.0 reaches reject-score 15.0 (default)");
        let pass = "scanner-unavailable = \"deliver\"";
        check(pass, &absent("7"), "quarantine", "score 7.0 reaches quarantine-score 6.0 (default)");
    }

    #[test]
    fn attachments_and_suspicions() {
        let with = |class, path: &str| Facts {
            attachments: Attachments { classes: vec![(class, path.into())], ..Attachments::default() },
            ..scored("0")
        };
        let program = with(AttachmentClass::Executables, "invoice.zip/scan.pdf.exe");
        let cause = |origin: &str| format!("blocked attachment, executables: invoice.zip/scan.pdf.exe ({origin})");
        check("", &program, "quarantine", &cause("default"));
        check("when-quarantined = \"deliver\"", &program, "quarantine", &cause("default"));
        check("when-blocked = \"reject\"", &program, "reject", &cause("default"));
        check("when-blocked = \"tag\"", &program, "junk", &cause("default"));
        check("blocked-attachments = []", &program, "deliver", "nothing against it");
        let macros = with(AttachmentClass::Macros, "a.docm");
        check("", &macros, "quarantine", "suspicious attachment, macros: a.docm (default)");
        check("when-suspicious = \"tag\"", &macros, "junk", "suspicious attachment, macros: a.docm (system p.toml)");
        check("when-suspicious = \"deliver\"", &macros, "deliver", "nothing against it");
        let strict = "blocked-attachments = [\"macros\"]\nwhen-blocked = \"reject\"";
        check(strict, &macros, "reject", "blocked attachment, macros: a.docm (system p.toml)");
        check("", &with(AttachmentClass::ActiveContent, "a.html"), "deliver", "nothing against it");
        let guess = Facts { virus: VirusState::Suspected("Heuristics.X".into()), ..scored("0") };
        check("", &guess, "quarantine", "suspected virus Heuristics.X (default)");
        let extensions = vec![("ace".into(), "a.ace".into())];
        let ace = Facts { attachments: Attachments { extensions, ..Attachments::default() }, ..scored("0") };
        check("", &ace, "deliver", "nothing against it");
        check(
            "blocked-extensions = \"ace\"",
            &ace,
            "quarantine",
            "blocked attachment, extension: a.ace (system p.toml)",
        );
    }

    #[test]
    fn sender_proof() {
        let dmarc = |wish| Facts { dmarc: wish, ..scored("0") };
        check("", &dmarc(DmarcWish::Reject), "reject", "DMARC fails, p=reject (default)");
        check("", &dmarc(DmarcWish::Quarantine), "quarantine", "DMARC fails, p=quarantine (default)");
        let mild = "dmarc = \"quarantine\"";
        check(mild, &dmarc(DmarcWish::Reject), "quarantine", "DMARC fails, p=reject (system p.toml)");
        check("dmarc = \"score\"", &dmarc(DmarcWish::Reject), "deliver", "nothing against it");
        let spf = |score: &str| Facts { spf_failed: true, ..scored(score) };
        check("", &spf("1.5"), "junk", "score 4.0 reaches tag-score 4.0 (default)");
        check("spf-fail = \"score\"", &spf("1.5"), "deliver", "nothing against it");
        check("spf-fail = \"reject\"", &spf("0"), "reject", "SPF fails (system p.toml)");
    }

    #[test]
    fn external_wishes() {
        let status = Status::fixed(550, Enhanced(5, 7, 1), "no");
        let reject = Facts { external: Some(ExternalWish::Reject(status)), ..scored("0") };
        check("", &reject, "reject", "external milter");
        let hold = Facts { external: Some(ExternalWish::Quarantine { reason: "x".into() }), ..scored("0") };
        check("", &hold, "quarantine", "external milter");
    }

    #[test]
    fn lists_of_senders() {
        let from = |facts: Facts| Facts {
            sender: SenderFacts {
                author: Some("anna@x.test".into()),
                is_author_proven: true,
                ..SenderFacts::default()
            },
            ..facts
        };
        let allow = "allow = [\"x.test\"]";
        check(allow, &from(scored("9")), "deliver", "allowed sender x.test (system p.toml)");
        check(
            allow,
            &from(Facts { spf_failed: true, ..scored("9") }),
            "deliver",
            "allowed sender x.test (system p.toml)",
        );
        check(allow, &scored("9"), "quarantine", "score 9.0 reaches quarantine-score 6.0 (default)");
        let virus = from(Facts { virus: VirusState::Found("Eicar".into()), ..scored("0") });
        check(allow, &virus, "reject", "virus Eicar (default)");
        let block = "block = [\"x.test\"]";
        check(block, &from(scored("0")), "reject", "blocked sender x.test (system p.toml)");
        let junk = "block = [\"x.test\"]\nwhen-sender-blocked = \"junk\"";
        check(junk, &from(scored("0")), "junk", "blocked sender x.test (system p.toml)");
        check(junk, &from(scored("7")), "quarantine", "score 7.0 reaches quarantine-score 6.0 (default)");
    }

    #[test]
    fn the_suspicious_come_again_later() {
        let grey = |score: &str, greylisting| Facts { greylisting, ..scored(score) };
        let cause = "suspicious (score 5.0) and not seen before (default)";
        check("", &grey("5", Greylisting::First), "defer", cause);
        check("", &grey("5", Greylisting::TooSoon), "defer", cause);
        for known in [Greylisting::Unknown, Greylisting::CameAgain, Greylisting::Returns] {
            check("", &grey("5", known), "junk", "score 5.0 reaches tag-score 4.0 (default)");
        }
        check("", &grey("3.9", Greylisting::First), "deliver", "nothing against it");
        check("", &grey("15", Greylisting::First), "reject", "score 15.0 reaches reject-score 15.0 (default)");
        check(
            "greylist = \"off\"",
            &grey("7", Greylisting::First),
            "quarantine",
            "score 7.0 reaches quarantine-score 6.0 (default)",
        );
    }

    #[test]
    fn one_answer_for_all_recipients() {
        let (reject, defer) = (Disposition::Reject(SPAM), Disposition::Defer(UNSCANNED));
        assert_eq!(combine(&[]), SessionOutcome::Accept(vec![]));
        assert_eq!(combine(&[reject.clone(), reject.clone()]), SessionOutcome::Reject(SPAM));
        assert_eq!(combine(&[Disposition::Deliver, defer.clone(), reject.clone()]), SessionOutcome::Defer(UNSCANNED));
        assert_eq!(combine(&[reject.clone(), defer]), SessionOutcome::Defer(UNSCANNED));
        assert_eq!(
            combine(&[Disposition::Deliver, reject, Disposition::Junk]),
            SessionOutcome::Accept(vec![Disposition::Deliver, Disposition::Quarantine, Disposition::Junk])
        );
    }
}
