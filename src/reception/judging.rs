//! What a message is found to be, for all its recipients and for each.

use std::collections::BTreeSet;

use base::event;
use bytes::Bytes;
use classifier::Class;
use filter::verdict::Seen;
use filter::{Judgement, MessageFacts, Source, Stages};
use mail::Status;
use policy::option::KnownContacts;
use policy::{Decision, Disposition, SessionOutcome};
use reputation::Subject;

use crate::content;
use crate::intake::{ASKED_MAX, Destination, Incoming, Intake, TEXT_MAX};
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
        let field = |name: &str| content::header_text(&incoming.content, name, TEXT_MAX);
        story.judged(judgement, &field("Subject"), &field("From"), incoming.content.len(), took);
    }

    /// Adds that an account has written to the author, where the author is proven and the account's policy counts it.
    pub(crate) async fn ask_contacts(&self, judgement: &Judgement, destinations: &mut [Destination]) {
        let Some(author) = judgement.sender.author.clone().filter(|_| judgement.sender.is_author_proven) else {
            return;
        };
        let counts = |one: &&mut Destination| one.policy.known_contacts() == KnownContacts::On;
        let asked: Vec<(&mut Destination, Subject)> = destinations
            .iter_mut()
            .filter(counts)
            .filter_map(|one| one.account().map(|account| (one, sending::contact_by_address(account, &author))))
            .take(ASKED_MAX)
            .collect();
        let subjects: Vec<Subject> = asked.iter().map(|(_, subject)| *subject).collect();
        let Some(known) = self.parts.reputation.of(&subjects).await else { return };
        for ((one, _), _) in asked.into_iter().zip(&known).filter(|(_, record)| record.is_known()) {
            one.own.push(filter::history::contact(&author));
        }
    }

    /// Adds what accounts taught for themselves.
    pub(crate) async fn ask_own_lessons(&self, judgement: &Judgement, destinations: &mut [Destination]) {
        if judgement.features.is_empty() {
            return;
        }
        for one in destinations.iter_mut().take(ASKED_MAX) {
            let Some(account) = one.account() else { continue };
            match self.parts.classifier.of_account(account, &judgement.features).await {
                Ok(own) => {
                    let weights = self.parts.classifier.current().weights();
                    one.own.extend(filter::learned::personal(&weights, &judgement.features, own));
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

    /// What is done with each copy, or the one refusal for all.
    pub(crate) fn decide(
        &self,
        incoming: &Incoming<'_>,
        judgement: &Judgement,
        destinations: &mut [Destination],
    ) -> Result<(), Status> {
        for one in destinations.iter_mut() {
            one.decision = policy::decide(&one.policy, &judgement.facts_for(one.at, &one.own));
            one.disposition = one.decision.disposition.clone();
            one.decision.hit.into_iter().for_each(|id| self.parts.layers.hit(id));
        }
        let decisions: Vec<Decision> = destinations.iter().map(|one| one.decision.clone()).collect();
        self.parts.filter.remember(judgement, &decisions);
        self.teach(incoming, judgement, &decisions);
        if !incoming.answers_each {
            return combine(destinations, |_| true);
        }
        // Each recipient of the envelope is answered for itself; one that leads to several has one answer.
        let places: BTreeSet<usize> = destinations.iter().map(|one| one.at).collect();
        for place in places {
            // Those who refuse are told so below.
            let _ = combine(destinations, |one| one.at == place);
        }
        Ok(())
    }
}

/// Brings those that `is_one` means to one answer. What all of them refuse, or one puts off, is refused for all of them: they
/// are left with that.
fn combine(destinations: &mut [Destination], is_one: impl Fn(&Destination) -> bool) -> Result<(), Status> {
    let mut group: Vec<&mut Destination> = destinations.iter_mut().filter(|one| is_one(one)).collect();
    let wished: Vec<Disposition> = group.iter().map(|one| one.disposition.clone()).collect();
    if wished.is_empty() {
        return Ok(());
    }
    match policy::combine(&wished) {
        SessionOutcome::Accept(dispositions) => {
            group.iter_mut().zip(dispositions).for_each(|(one, disposition)| one.disposition = disposition);
            Ok(())
        }
        SessionOutcome::Reject(status) => Err(status),
        SessionOutcome::Defer(status) => {
            group.iter_mut().for_each(|one| one.disposition = Disposition::Defer(status.clone()));
            Err(status)
        }
    }
}
