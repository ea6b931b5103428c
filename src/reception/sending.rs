//! Watches how accounts send, and what is done with one that sends as a thief would.

use std::net::IpAddr;
use std::sync::Arc;

use base::{AccountId, event};
use directory::Account;
use filter::history::network;
use filter::sending::{SendingFacts, findings};
use filter::{Judgement, Source};
use mail::{ForwardPath, Status};
use policy::outbound::{LIMITED, LOCKED, SLOW};
use policy::{Cause, Disposition, EffectivePolicy, Key, Origin, Sending, decide_outbound};
use reputation::{Amount, Kind, Record, Subject};

use crate::intake::{Destination, Incoming, Intake, SendingLimits, Submitter};
use crate::notice;
use crate::story::Story;

/// Recipients of one message of whom it is looked up whether they are strangers; of further ones nobody asks.
const LOOKED_UP_MAX: usize = 200;

/// What is known of an account's sending, and what the message at hand adds to it.
pub(crate) struct Watched {
    account: AccountId,
    /// What is done with the message, and what decided it.
    pub done: Sending,
    cause: Cause,
    /// It has sent as much as it may.
    is_over: bool,
    /// All accounts of its domain together.
    domain: Subject,
    recipients: u32,
    strangers: u32,
    /// Whom it writes to.
    contacts: Vec<Subject>,
    place: Option<(Subject, bool)>,
    /// The country where it is.
    country: Option<Subject>,
}

impl Intake {
    /// The policy of an account that sends; the node's file alone where nothing else is known now.
    async fn policy_of(&self, account: AccountId) -> Arc<EffectivePolicy> {
        if let Ok(Some(account)) = self.parts.directory.account(account).await
            && let Ok(policy) = self.policy_at(account.position).await
        {
            return policy;
        }
        self.parts.filter.policy()
    }

    /// What an account may send by its policy, over what the configuration says.
    fn limits(&self, policy: &EffectivePolicy) -> SendingLimits {
        let own = |key| Some(policy.number(key)).filter(|number| *number > 0);
        let usual = self.parts.limits;
        SendingLimits {
            account_hour: own(Key::SendingHour).or(usual.account_hour),
            account_day: own(Key::SendingDay).or(usual.account_day),
            ..usual
        }
    }

    /// Adds to the judgement, if there is one, what the account's way of sending says; `None` for mail that none of our users
    /// sends. Without what is known of earlier sending, only what is sent counts.
    pub(crate) async fn watch(&self, incoming: &Incoming<'_>, judgement: &mut Judgement) -> Option<Watched> {
        let submitter = incoming.submitter.as_ref()?;
        let account = submitter.account.0.to_string();
        let paths = &incoming.envelope.forward_paths;
        let contacts: Vec<Subject> = paths.iter().map(|path| contact(submitter.account, path)).collect();
        let place = submitter.ip.map(|ip| Subject::of(Kind::Place, &[&account, &network(ip)]));
        let of = |kind| Subject::of(kind, &[&account]);
        let domain = of_domain(&incoming.source);
        let mut asked = vec![of(Kind::SentHour), of(Kind::SentDay), of(Kind::Unknown), of(Kind::NewPlace), domain];
        let country = submitter.ip.and_then(|ip| self.parts.filter.country(ip));
        let in_country = |kind| country.map(|country| Subject::of(kind, &[&account, country.as_str()]));
        let (of_country, lately) = (in_country(Kind::Country), in_country(Kind::CountryLately));
        let of_countries = country.map(|_| of(Kind::Countries));
        asked.extend([place, of_country, lately, of_countries].into_iter().flatten());
        let first_contact = asked.len();
        asked.extend(contacts.iter().take(LOOKED_UP_MAX));
        let known = self.parts.reputation.of(&asked).await;
        let is_known = known.is_some();
        let known = known.unwrap_or_default();
        let none = Record::default();
        let record = |at: usize| known.get(at).unwrap_or(&none);
        let record_of = |subject: Option<Subject>| {
            asked.iter().position(|asked| Some(*asked) == subject).and_then(|at| known.get(at)).unwrap_or(&none)
        };
        let is_new = |subject: Option<Subject>| is_known && subject.is_some() && !record_of(subject).is_known();
        let strangers =
            known.get(first_contact..).unwrap_or_default().iter().filter(|record| !record.is_known()).count();
        let is_new_place = is_new(place);
        let now = self.parts.clock.utc();
        let (hour, hour_strangers) = record(0).within_slot(Kind::SentHour, now);
        let earlier = record(1).slots.iter().filter(|slot| slot.age > 0);
        #[expect(clippy::cast_precision_loss, reason = "numbers of recipients")]
        let facts = SendingFacts {
            hour: hour + paths.len() as f64,
            strangers: hour_strangers + strangers as f64,
            unknown: record(2).within_slot(Kind::Unknown, now).0,
            busiest_day: earlier.clone().map(|slot| slot.good).max().unwrap_or(0),
            days: earlier.count(),
            is_new_place,
            new_places: record(3).sum().0 + u64::from(is_new_place),
            country,
            is_new_country: is_new(of_country),
            countries: record_of(of_countries).sum().0 + u64::from(is_new(lately)),
        };
        let policy = self.policy_of(submitter.account).await;
        let limits = self.limits(&policy);
        let (mut done, mut origin) = (Sending::Passes, Origin::Default);
        if self.parts.judged.holds(&incoming.source) {
            judgement.add(findings(&facts), &policy);
            (done, origin) = decide_outbound(&policy, judgement.score);
        }
        #[expect(clippy::cast_precision_loss, reason = "numbers of recipients")]
        let is_over = {
            let is_above = |sent: f64, limit: Option<u64>| limit.is_some_and(|limit| sent > limit as f64);
            let new = paths.len() as f64;
            is_above(hour + new, limits.account_hour)
                || is_above(record(1).within_slot(Kind::SentDay, now).0 + new, limits.account_day)
                || is_above(record(4).within_slot(Kind::SentHour, now).0 + new, limits.domain_hour)
        };
        metrics::counter!("ortler_sending_total", "done" => done.as_str()).increment(1);
        Some(Watched {
            account: submitter.account,
            done,
            cause: Cause::Sending { score: judgement.score, origin },
            is_over,
            domain,
            recipients: u32::try_from(paths.len()).unwrap_or(u32::MAX),
            strangers: u32::try_from(strangers).unwrap_or(u32::MAX),
            contacts,
            place: place.map(|place| (place, is_new_place)),
            country: of_country,
        })
    }

    /// What is told instead of taking the message. A lock is in force on return, and who must know it is told.
    pub(crate) async fn refuse_sending(
        &self,
        watched: &Watched,
        submitter: &Submitter,
        story: &Story<'_>,
    ) -> Option<Status> {
        match watched.done {
            Sending::Passes | Sending::Hold if watched.is_over => Some(LIMITED),
            Sending::Passes | Sending::Hold => None,
            Sending::Slow => Some(SLOW),
            Sending::Lock => {
                self.lock(submitter, &watched.cause.to_string(), story).await;
                Some(LOCKED)
            }
        }
    }

    async fn lock(&self, submitter: &Submitter, reason: &str, story: &Story<'_>) {
        let locked = match self.parts.directory.account(submitter.account).await {
            Ok(Some(account)) => {
                self.parts.directory.lock_sending(&account, reason).await.map(|is| is.then_some(account))
            }
            Ok(None) => return,
            Err(error) => Err(error),
        };
        match locked {
            Ok(Some(account)) => {
                tracing::warn!(event = event::SENDING_LOCKED, account = account.id.0, queue_id = %story.message, %reason);
                story.sending_locked(&account, reason);
                // Once it may send again, its owner sends.
                let of = |kind| Subject::of(kind, &[&account.id.0.to_string()]);
                let begun = [of(Kind::SentHour), of(Kind::Unknown), of(Kind::NewPlace), of(Kind::Countries)];
                if let Err(error) = self.parts.reputation.forget(&begun).await {
                    tracing::warn!(event = event::STORE_FAILED, what = "reputation", account = account.id.0, %error);
                }
                self.tell_of_lock(&account, reason).await;
            }
            // Another message was first.
            Ok(None) => {}
            Err(error) => {
                tracing::error!(event = event::STORE_FAILED, what = "directory", account = submitter.account.0, %error);
            }
        }
    }

    async fn tell_of_lock(&self, account: &Account, reason: &str) {
        let text = notice::Notice::sending_locked(account, reason);
        self.tell(&ForwardPath::Address(account.address.clone()), &text).await;
        self.tell(&ForwardPath::Postmaster, &text).await;
    }

    /// Holds what would be delivered.
    pub(crate) fn hold(watched: &Watched, destinations: &mut [Destination]) {
        if watched.done != Sending::Hold {
            return;
        }
        for destination in destinations.iter_mut().filter(|destination| destination.gets_it()) {
            destination.disposition = Disposition::Quarantine;
            destination.decision.cause = watched.cause.clone();
        }
    }

    /// Writes down that a message was taken.
    pub(crate) fn sent(&self, watched: &Watched) {
        let account = watched.account.0.to_string();
        let reputation = &self.parts.reputation;
        let amount = Amount { good: watched.recipients, bad: watched.strangers };
        reputation.add(Subject::of(Kind::SentHour, &[&account]), amount);
        reputation.add(Subject::of(Kind::SentDay, &[&account]), amount);
        reputation.add(watched.domain, amount);
        if let Some((place, is_new)) = watched.place {
            reputation.add(place, Amount::GOOD);
            if is_new {
                reputation.add(Subject::of(Kind::NewPlace, &[&account]), Amount::GOOD);
            }
        }
        if let Some(country) = watched.country {
            reputation.add(country, Amount::GOOD);
        }
        // Whom somebody else writes to under its name, its owner does not know.
        if watched.done == Sending::Passes {
            watched.contacts.iter().for_each(|contact| reputation.add(*contact, Amount::GOOD));
        }
    }

    /// A recipient that does not exist was named by one of our users.
    pub(crate) fn named_nobody(&self, account: AccountId) {
        self.parts.reputation.add(Subject::of(Kind::Unknown, &[&account.0.to_string()]), Amount::GOOD);
    }
}

/// All accounts of a submitter's domain; no account has such a name.
fn of_domain(source: &Source) -> Subject {
    let address = if let Source::Submitter { account, .. } = source { account.as_str() } else { "" };
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    Subject::of(Kind::SentHour, &["@", &domain.to_lowercase()])
}

/// Somebody to whom an account writes.
pub(crate) fn contact(account: AccountId, path: &ForwardPath) -> Subject {
    contact_by_address(account, &path.to_string())
}

pub(crate) fn contact_by_address(account: AccountId, address: &str) -> Subject {
    Subject::of(Kind::Contact, &[&account.0.to_string(), &address.to_lowercase()])
}

/// Where a submitter is, if its client's address is known.
pub(crate) fn place(ip: IpAddr) -> Option<IpAddr> {
    // On this machine: our own webmail, or what speaks for it.
    (!ip.is_loopback()).then_some(ip)
}
