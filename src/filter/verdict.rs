//! From findings to a judgement. Pure.

use std::sync::Arc;

use base::UtcMillis;
use bytes::Bytes;
use mail::{Address, Status};
use mailauth::{AuthOutcome, AuthResult, DmarcPolicy};
use policy::{
    Attachments, DmarcWish, EffectivePolicy, ExternalWish, Facts, Finding, Greylisting, Key, Score, SenderFacts,
    VirusState,
};

use crate::countries::Country;
use crate::history::Marks;

/// What the filter concludes, by the system's tag score.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    Ham,
    Spam,
    Virus,
    /// A virus scanner is configured and none answered.
    Unscanned,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ham => "ham",
            Self::Spam => "spam",
            Self::Virus => "virus",
            Self::Unscanned => "unscanned",
        }
    }

    fn of(score: Score, virus: &VirusState, system: &EffectivePolicy) -> Self {
        match virus {
            VirusState::Found(_) => Self::Virus,
            _ if score >= system.score(Key::TagScore) => Self::Spam,
            VirusState::Unavailable => Self::Unscanned,
            VirusState::NotScanned | VirusState::Clean | VirusState::Suspected(_) => Self::Ham,
        }
    }
}

/// All that was seen of one message: the same for every recipient, until policy meets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// In the order of the stages.
    pub findings: Vec<Finding>,
    /// Their sum.
    pub score: Score,
    /// `None` for outbound mail.
    pub auth: Option<AuthOutcome>,
    pub virus: VirusState,
    pub attachments: Attachments,
    /// What an external milter wants for all recipients.
    pub external: Option<ExternalWish>,
    /// What an external milter wants for one recipient: its place in the envelope, and the wish.
    pub external_recipients: Vec<(usize, ExternalWish)>,
    /// Recipients that external milters add.
    pub added: Vec<Address>,
    /// Recipients that external milters take out, by their place in the envelope.
    pub removed: Vec<usize>,
    /// The message as external milters changed it, without the fields that only we may write; `None` without changes.
    pub edited: Option<Bytes>,
    /// Numbers of the features that the classifier saw: none if nothing was ever learned.
    pub features: Arc<[u32]>,
    pub sender: SenderFacts,
    pub greylisting: Greylisting,
    /// Of the client, where it is known.
    pub country: Option<Country>,
    /// Of the message as it came.
    pub size_bytes: u64,
    /// What is written down of its sender when it is decided.
    pub marks: Marks,
    pub received_at: UtcMillis,
    pub verdict: Verdict,
}

/// The parts of a judgement, as the checks made them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    pub findings: Vec<Finding>,
    pub auth: Option<AuthOutcome>,
    pub virus: VirusState,
    pub attachments: Attachments,
    pub external: Option<ExternalWish>,
    pub external_recipients: Vec<(usize, ExternalWish)>,
    pub added: Vec<Address>,
    pub removed: Vec<usize>,
    pub edited: Option<Bytes>,
    pub features: Arc<[u32]>,
    pub sender: SenderFacts,
    pub greylisting: Greylisting,
    pub country: Option<Country>,
    pub size_bytes: u64,
    pub marks: Marks,
    pub received_at: UtcMillis,
}

impl Judgement {
    /// Sums up. Of two findings of the same name the later counts: a rule file can give a built-in check another score.
    pub fn of(seen: Seen, system: &EffectivePolicy) -> Self {
        let mut findings: Vec<Finding> = Vec::with_capacity(seen.findings.len());
        for finding in seen.findings {
            match findings.iter_mut().find(|known| known.name == finding.name) {
                Some(known) => *known = finding,
                None => findings.push(finding),
            }
        }
        let score = findings.iter().map(|finding| finding.score).sum();
        Self {
            verdict: Verdict::of(score, &seen.virus, system),
            findings,
            score,
            auth: seen.auth,
            virus: seen.virus,
            attachments: seen.attachments,
            external: seen.external,
            external_recipients: seen.external_recipients,
            added: seen.added,
            removed: seen.removed,
            edited: seen.edited,
            features: seen.features,
            sender: seen.sender,
            greylisting: seen.greylisting,
            country: seen.country,
            size_bytes: seen.size_bytes,
            marks: seen.marks,
            received_at: seen.received_at,
        }
    }

    /// Adds what was seen later.
    pub fn add(&mut self, findings: Vec<Finding>, system: &EffectivePolicy) {
        self.findings.extend(findings);
        self.score = self.findings.iter().map(|finding| finding.score).sum();
        self.verdict = Verdict::of(self.score, &self.virus, system);
    }

    /// What policy needs to decide for the `recipient`th of the envelope, whose account itself sees `own` in the message.
    pub fn facts_for(&self, recipient: usize, own: &[Finding]) -> Facts {
        let wish = self.external_recipients.iter().find(|(at, _)| *at == recipient).map(|(_, wish)| wish.clone());
        let facts = self.facts();
        let own: Score = own.iter().map(|finding| finding.score).sum();
        Facts { external: self.external.clone().or(wish), score: facts.score + own, ..facts }
    }

    fn has(&self, name: &str) -> bool {
        self.findings.iter().any(|finding| &*finding.name == name)
    }

    /// What policy needs, where the recipient does not matter.
    pub fn facts(&self) -> Facts {
        let dmarc = self.auth.as_ref().map(|auth| &auth.dmarc);
        let is_vouched = self.auth.as_ref().is_some_and(|auth| auth.is_vouched);
        let passes = is_vouched || dmarc.is_some_and(|dmarc| dmarc.result == AuthResult::Pass);
        let spf = self.auth.as_ref().and_then(|auth| auth.spf.as_ref());
        Facts {
            score: self.score,
            virus: self.virus.clone(),
            attachments: self.attachments.clone(),
            spf_failed: !passes && spf.is_some_and(|spf| spf.result == AuthResult::Fail),
            dmarc: match dmarc {
                Some(dmarc) if dmarc.result == AuthResult::Fail && !is_vouched => match dmarc.policy {
                    DmarcPolicy::Reject => DmarcWish::Reject,
                    DmarcPolicy::Quarantine => DmarcWish::Quarantine,
                    DmarcPolicy::None => DmarcWish::Nothing,
                },
                Some(_) | None => DmarcWish::Nothing,
            },
            external: self.external.clone(),
            sender: self.sender.clone(),
            greylisting: self.greylisting,
            is_newsletter: NEWSLETTER.iter().any(|name| self.has(name)),
            is_own_domain_claimed: self.has("OWN_DOMAIN_SPOOFED"),
            country: self.country.map(|country| Arc::from(country.as_str())),
            size_bytes: self.size_bytes,
            at: self.received_at,
        }
    }

    pub fn virus_name(&self) -> Option<&Arc<str>> {
        match &self.virus {
            VirusState::Found(name) => Some(name),
            VirusState::NotScanned | VirusState::Clean | VirusState::Suspected(_) | VirusState::Unavailable => None,
        }
    }
}

/// Rules that say that a message comes in bulk and can be cancelled.
const NEWSLETTER: [&str; 3] = ["CLASS_NEWSLETTER_UNSUBSCRIBE", "CLASS_NEWSLETTER_ONE_CLICK", "CLASS_CAMPAIGN_MAILER"];

/// The status that stands for an external milter's word without a text of its own.
pub(crate) const EXTERNAL_REJECT: Status =
    Status::fixed(550, mail::Enhanced(5, 7, 1), "Message refused by a content check");
pub(crate) const EXTERNAL_DEFER: Status =
    Status::fixed(451, mail::Enhanced(4, 7, 1), "Message could not be checked now, try again later");

#[cfg(test)]
mod tests {
    use super::*;
    use mailauth::{DmarcOutcome, SpfIdentity, SpfOutcome};
    use policy::ReasonClass;

    fn finding(name: &str, score: i32) -> Finding {
        let (name, description) = (name.into(), "x".into());
        Finding {
            stage: policy::Stage::Body,
            name,
            score: Score(score),
            class: ReasonClass::Content,
            description,
            evidence: String::new(),
        }
    }

    fn judge(seen: Seen) -> Judgement {
        Judgement::of(seen, &EffectivePolicy::defaults())
    }

    #[test]
    fn findings_add_up_and_a_later_one_replaces_its_namesake() {
        let findings = vec![finding("A", 1500), finding("B", 1000), finding("A", 2500)];
        let judgement = judge(Seen { findings, ..Seen::default() });
        assert_eq!((judgement.score, judgement.verdict), (Score(3500), Verdict::Ham));
        assert_eq!(judgement.findings.len(), 2);
        let spam = judge(Seen { findings: vec![finding("A", 4000)], ..Seen::default() });
        assert_eq!(spam.verdict, Verdict::Spam);
    }

    #[test]
    fn viruses_and_absent_scanners_are_verdicts() {
        let with = |virus| judge(Seen { virus, ..Seen::default() }).verdict;
        assert_eq!(with(VirusState::Found("x".into())), Verdict::Virus);
        assert_eq!(with(VirusState::Unavailable), Verdict::Unscanned);
        assert_eq!(with(VirusState::Clean), Verdict::Ham);
    }

    #[test]
    fn spf_counts_only_where_dmarc_does_not_pass() {
        let auth = |dmarc| AuthOutcome {
            spf: Some(SpfOutcome {
                result: AuthResult::Fail,
                identity: SpfIdentity::MailFrom,
                domain: "example.test".into(),
            }),
            dmarc: DmarcOutcome {
                result: dmarc,
                domain: "example.test".into(),
                policy: DmarcPolicy::Reject,
                ..DmarcOutcome::default()
            },
            ..AuthOutcome::default()
        };
        let facts = |dmarc| judge(Seen { auth: Some(auth(dmarc)), ..Seen::default() }).facts();
        assert!(!facts(AuthResult::Pass).spf_failed && facts(AuthResult::Pass).dmarc == DmarcWish::Nothing);
        assert!(facts(AuthResult::Fail).spf_failed && facts(AuthResult::Fail).dmarc == DmarcWish::Reject);
        assert_eq!(facts(AuthResult::TempError).dmarc, DmarcWish::Nothing);
        let vouched = AuthOutcome { is_vouched: true, ..auth(AuthResult::Fail) };
        let facts = judge(Seen { auth: Some(vouched), ..Seen::default() }).facts();
        assert!(!facts.spf_failed && facts.dmarc == DmarcWish::Nothing);
    }

    #[test]
    fn a_wish_for_one_recipient_reaches_that_one() {
        let wish = ExternalWish::Reject(EXTERNAL_REJECT);
        let judgement = judge(Seen { external_recipients: vec![(1, wish.clone())], ..Seen::default() });
        assert_eq!(judgement.facts_for(0, &[]).external, None);
        assert_eq!(judgement.facts_for(1, &[]).external, Some(wish));
    }
}
