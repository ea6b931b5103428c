//! What a message is found to be, for all its recipients and for each.

use base::event;
use bytes::Bytes;
use classifier::Class;
use directory::Recipient;
use filter::verdict::Seen;
use filter::{Judgement, MessageFacts, Source, Stages};
use mail::Status;
use mail::mime::decode::decode_header_text;
use policy::{Decision, Disposition, SessionOutcome};
use reputation::Subject;

use crate::intake::{Destination, Incoming, Intake, Resolved};
use crate::sending;
use crate::story::Story;

/// A message to learn without anybody's word.
#[derive(Clone, Debug)]
pub struct Unasked {
    pub message: Bytes,
    /// Of the client that brought it.
    pub network: String,
    pub class: Class,
}

/// Recipients of one message of whom it is asked whom they wrote to.
const CONTACTS_MAX: usize = 200;

impl Intake {
    /// The judgement, and the milliseconds that it took.
    pub(crate) async fn judge(
        &self,
        incoming: &Incoming<'_>,
        stages: Option<&mut Stages>,
        story: &Story<'_>,
    ) -> (Judgement, u64) {
        let begun = self.parts.clock.now();
        let facts = MessageFacts {
            source: incoming.source.clone(),
            envelope: incoming.envelope.clone(),
            message: incoming.content.clone(),
            received_at: story.at,
        };
        let filter = &self.parts.filter;
        let judgement = match stages {
            Some(stages) => stages.judge(incoming.id, &facts).await,
            None if self.parts.judged.holds(&incoming.source) => filter.judge(&facts).await,
            None => Judgement::of(Seen::default(), &filter.policy()),
        };
        let took = self.parts.clock.now().saturating_duration_since(begun).as_millis();
        (judgement, u64::try_from(took).unwrap_or(u64::MAX))
    }

    pub(crate) fn tell_judgement(&self, incoming: &Incoming<'_>, judgement: &Judgement, took: u64, story: &Story<'_>) {
        let field = |name: &str| {
            let found = mail::HeaderFields::of(&incoming.content).find(|field| field.is(name));
            let text = found.map(|field| decode_header_text(&field.unfolded())).unwrap_or_default();
            text.chars().take(300).collect::<String>()
        };
        story.judged(judgement, &field("Subject"), &field("From"), incoming.content.len(), took);
    }

    /// Adds that a recipient has written to the author, where the author is proven. An address that leads to several has
    /// written to nobody.
    pub(crate) async fn ask_contacts(&self, judgement: &mut Judgement, resolved: &[Resolved]) {
        let Some(author) = judgement.sender.author.clone().filter(|_| judgement.sender.is_author_proven) else {
            return;
        };
        let one = |recipients: &[Recipient]| match recipients {
            [recipient] => Some(recipient.account),
            _ => None,
        };
        let asked: Vec<(usize, Subject)> = resolved
            .iter()
            .enumerate()
            .filter_map(|(at, recipients)| Some((at, sending::contact_by_address(one(recipients.here())?, &author))))
            .take(CONTACTS_MAX)
            .collect();
        let subjects: Vec<Subject> = asked.iter().map(|(_, subject)| *subject).collect();
        let Some(known) = self.parts.reputation.of(&subjects).await else { return };
        let known = asked.iter().zip(&known).filter(|(_, record)| record.is_known());
        judgement.personal.extend(known.map(|((at, _), _)| (*at, filter::history::contact(&author))));
    }

    /// Adds what recipients taught for themselves. An address that leads to several has no lessons of its own.
    pub(crate) async fn ask_own_lessons(&self, judgement: &mut Judgement, resolved: &[Resolved]) {
        if judgement.features.is_empty() {
            return;
        }
        for (at, recipients) in resolved.iter().enumerate() {
            let [recipient] = recipients.here() else { continue };
            match self.parts.classifier.of_account(recipient.account, &judgement.features).await {
                Ok(own) => {
                    let weights = self.parts.classifier.current().weights();
                    let finding = filter::learned::personal(&weights, &judgement.features, own);
                    judgement.personal.extend(finding.map(|finding| (at, finding)));
                }
                // What all taught counts without it.
                Err(error) => {
                    tracing::warn!(event = event::STORE_FAILED, what = "classifier", %error);
                    return;
                }
            }
        }
    }

    /// Hands on what is learned without anybody's word. A trainer that has too much to do learns less.
    fn teach(&self, incoming: &Incoming<'_>, judgement: &Judgement, decisions: &[Decision]) {
        let Some(lessons) = &self.parts.lessons else { return };
        let Source::Client { ip, .. } = &incoming.source else { return };
        if let (Some(class), Ok(place)) = (filter::learned::by_itself(judgement, decisions), lessons.try_reserve()) {
            place.send(Unasked { message: incoming.content.clone(), network: filter::history::network(*ip), class });
        }
    }

    /// What is done for each recipient, or the one refusal for all.
    pub(crate) fn decide(
        &self,
        incoming: &Incoming<'_>,
        judgement: &Judgement,
        resolved: Vec<Resolved>,
    ) -> Result<Vec<Destination>, (Vec<Resolved>, Status)> {
        let policy = self.parts.filter.policy();
        let decisions: Vec<Decision> =
            (0..resolved.len()).map(|at| policy::decide(&policy, &judgement.facts_for(at))).collect();
        self.parts.filter.remember(judgement, &decisions);
        self.teach(incoming, judgement, &decisions);
        let wished: Vec<Disposition> = decisions.iter().map(|decision| decision.disposition.clone()).collect();
        let dispositions = if incoming.answers_each {
            wished
        } else {
            match policy::combine(&wished) {
                SessionOutcome::Accept(dispositions) => dispositions,
                SessionOutcome::Reject(status) | SessionOutcome::Defer(status) => return Err((resolved, status)),
            }
        };
        let joined = resolved.into_iter().zip(decisions).zip(dispositions);
        Ok(joined.map(|((to, decision), disposition)| Destination { to, decision, disposition }).collect())
    }
}
