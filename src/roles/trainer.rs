//! Learns from what owners say of their messages: by moving them into Junk or out of it, or by marking them. One node at a
//! time does it for all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, UtcMillis, event};
use classifier::{Class, Counts, Learned, Lesson, Owner};
use reception::Unasked;
use reputation::{Amount, Kind, Record, Subject};
use store::{EmailId, OwnerVerdict, StoreError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Engines;

/// So soon an owner's word counts.
const EVERY: Duration = Duration::from_secs(1);
/// A node that dies at it is followed by another one after so long.
const LEASE: Duration = Duration::from_secs(30);
/// Messages at a time.
const BATCH: usize = 50;
/// Larger ones are not learned: what they say is in their first part, but their end is part of their name.
const SIZE_MAX: u64 = 8 << 20;
/// What one owner says moves the weights of all by this share of a full lesson, in thousandths.
const STRENGTH_FOR_ALL: u16 = 250;
/// Messages a day of one account that count for all: nobody turns the weights of all alone.
const DAILY_FOR_ALL: u32 = 50;

/// What nobody said counts for this share of a full lesson, in thousandths.
const STRENGTH_UNASKED: u16 = 150;
/// Messages a day that are learned so from one network, and of one class in all.
const UNASKED_OF_NETWORK: u64 = 10;
const UNASKED_OF_ALL: u64 = 500;

/// How many messages of each account counted for all today. A node that takes over begins anew.
#[derive(Default)]
struct Daily {
    day: i64,
    counted: HashMap<AccountId, u32>,
}

impl Daily {
    fn has_room(&mut self, day: i64, account: AccountId) -> bool {
        if self.day != day {
            *self = Self { day, counted: HashMap::new() };
        }
        let counted = self.counted.entry(account).or_default();
        *counted += 1;
        *counted <= DAILY_FOR_ALL
    }
}

/// A word that could not be learned is tried again after this, after twice as long the next time, and so on.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// Half a dozen within a minute, the others over more than a day: whatever is away comes back within.
const TRIES_MAX: u32 = 40;

/// Words that could not be learned, while others could.
#[derive(Default)]
struct Failing(HashMap<(AccountId, EmailId), Failed>);

struct Failed {
    tries: u32,
    next: UtcMillis,
}

/// What becomes of a word that could not be learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Again { tries: u32, after: Duration },
    GivenUp,
}

impl Failing {
    fn is_due(&self, verdict: &OwnerVerdict, now: UtcMillis) -> bool {
        self.0.get(&(verdict.account, verdict.email)).is_none_or(|failed| failed.next <= now)
    }

    fn failed(&mut self, verdict: &OwnerVerdict, now: UtcMillis) -> Next {
        let key = (verdict.account, verdict.email);
        let failed = self.0.entry(key).or_insert(Failed { tries: 0, next: now });
        failed.tries += 1;
        let tries = failed.tries;
        if tries >= TRIES_MAX {
            self.0.remove(&key);
            return Next::GivenUp;
        }
        let after = RETRY_FIRST.saturating_mul(1 << (tries - 1).min(20)).min(RETRY_MAX);
        failed.next = now.plus(after);
        Next::Again { tries, after }
    }

    fn learned(&mut self, verdicts: &[OwnerVerdict]) {
        for verdict in verdicts {
            self.0.remove(&(verdict.account, verdict.email));
        }
    }
}

/// Runs until `stop`.
pub async fn run(engines: Arc<Engines>, mut unasked: mpsc::Receiver<Unasked>, stop: CancellationToken) {
    let (mut daily, mut failing) = (Daily::default(), Failing::default());
    while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
        while let Ok(message) = unasked.try_recv() {
            if let Err(error) = learn_unasked(&engines, message).await {
                tracing::warn!(event = event::STORE_FAILED, what = "learning", %error);
            }
        }
        if let Err(error) = work(&engines, &mut daily, &mut failing, &stop).await {
            tracing::warn!(event = event::STORE_FAILED, what = "learning", %error);
        }
    }
}

async fn work(
    engines: &Engines,
    daily: &mut Daily,
    failing: &mut Failing,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut verdicts = due(engines, failing).await?;
    if verdicts.is_empty() {
        return Ok(());
    }
    let Some(mut turn) = engines.leases.take("learning", LEASE).await? else { return Ok(()) };
    while !verdicts.is_empty() && !stop.is_cancelled() {
        let settled = learn(engines, &verdicts, daily, failing).await;
        failing.learned(&settled);
        // Learned twice is learned once: what is not settled comes again.
        engines.storage.mail.settle_verdicts(settled).await?;
        if !turn.keep().await {
            return Ok(());
        }
        verdicts = due(engines, failing).await?;
    }
    turn.give_up().await;
    Ok(())
}

/// Words to learn now. Those that wait for another try keep none of the others back.
async fn due(engines: &Engines, failing: &Failing) -> Result<Vec<OwnerVerdict>, StoreError> {
    let now = engines.clock.utc();
    let mut verdicts = engines.storage.mail.owner_verdicts(BATCH + failing.0.len()).await?;
    verdicts.retain(|verdict| failing.is_due(verdict, now));
    verdicts.truncate(BATCH);
    Ok(verdicts)
}

/// Learns them together, or where that fails each alone. Gives those that need not come again: learned ones and those that
/// are given up.
async fn learn(
    engines: &Engines,
    verdicts: &[OwnerVerdict],
    daily: &mut Daily,
    failing: &mut Failing,
) -> Vec<OwnerVerdict> {
    let (mut made, mut settled) = (Vec::new(), Vec::new());
    for verdict in verdicts {
        match lessons_of(engines, verdict, daily).await {
            Ok(lessons) => made.push((*verdict, lessons)),
            Err(error) if put_off(engines, verdict, failing, &error) => settled.push(*verdict),
            Err(_) => {}
        }
    }
    let all: Vec<Lesson> = made.iter().flat_map(|(_, lessons)| lessons).cloned().collect();
    if engines.classifier.learn(&all).await.is_ok() {
        settled.extend(made.into_iter().map(|(verdict, _)| verdict));
        return settled;
    }
    for (verdict, lessons) in made {
        match engines.classifier.learn(&lessons).await {
            Ok(_) => settled.push(verdict),
            Err(error) if put_off(engines, &verdict, failing, &error) => settled.push(verdict),
            Err(_) => {}
        }
    }
    settled
}

/// True if it is given up.
fn put_off(engines: &Engines, verdict: &OwnerVerdict, failing: &mut Failing, error: &dyn std::error::Error) -> bool {
    let (account, email) = (verdict.account.0, verdict.email.0);
    match failing.failed(verdict, engines.clock.utc()) {
        Next::Again { tries: 1, after } => {
            tracing::warn!(event = event::LESSON_FAILED, account, email, %error, next_try_s = after.as_secs());
            false
        }
        Next::Again { tries, after } => {
            tracing::debug!(event = event::LESSON_FAILED, account, email, %error, tries, next_try_s = after.as_secs());
            false
        }
        Next::GivenUp => {
            let next_step = "the message is as it was; its owner may say it again";
            tracing::error!(event = event::LESSON_FAILED, account, email, %error, tries = TRIES_MAX, next_step);
            true
        }
    }
}

/// One for the owner, and one for all. None of a message that is gone, or whose content is.
async fn lessons_of(engines: &Engines, verdict: &OwnerVerdict, daily: &mut Daily) -> Result<Vec<Lesson>, StoreError> {
    let found = engines.storage.mail.emails(verdict.account, vec![verdict.email]).await?;
    let Some(entry) = found.first() else { return Ok(Vec::new()) };
    let content = match engines.storage.original(entry).read(0..SIZE_MAX + 1).await {
        Ok(content) if content.len() as u64 <= SIZE_MAX => content,
        Ok(_) | Err(StoreError::Damaged { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let class = if verdict.is_spam { Class::Spam } else { Class::Ham };
    let owner = Owner::Account(verdict.account);
    let made = tokio::task::spawn_blocking(move || filter::learned::lesson(&content, owner, class)).await;
    // A panic in a parser is that message's alone.
    let Ok(own) = made else { return Ok(Vec::new()) };
    let day = verdict.given_at.0.div_euclid(86_400_000);
    if !daily.has_room(day, verdict.account) {
        return Ok(vec![own]);
    }
    let for_all = Lesson { owner: Owner::All, strength: STRENGTH_FOR_ALL, ..own.clone() };
    Ok(vec![own, for_all])
}

/// Learns a message of which nobody said anything, within the limits of its day: all nodes count together.
async fn learn_unasked(engines: &Engines, unasked: Unasked) -> anyhow::Result<()> {
    let Unasked { message, network, class } = unasked;
    if message.len() as u64 > SIZE_MAX || !is_balanced(engines.classifier.counts(), class) {
        return Ok(());
    }
    let of_network = Subject::of(Kind::Taught, &["network", &network]);
    let of_all = Subject::of(Kind::Taught, &["all", class.as_str()]);
    let Some(known) = engines.reputation.of(&[of_network, of_all]).await else { return Ok(()) };
    let today = |record: &Record| record.slots.iter().filter(|slot| slot.age == 0).map(|slot| slot.good).sum::<u64>();
    let taught: Vec<u64> = known.iter().map(today).collect();
    if taught.iter().zip([UNASKED_OF_NETWORK, UNASKED_OF_ALL]).any(|(taught, most)| *taught >= most) {
        return Ok(());
    }
    let made = tokio::task::spawn_blocking(move || filter::learned::lesson(&message, Owner::All, class)).await;
    // A panic in a parser is that message's alone.
    let Ok(lesson) = made else { return Ok(()) };
    let lesson = Lesson { strength: STRENGTH_UNASKED, ..lesson };
    if engines.classifier.learn_unasked(&[lesson]).await?.contains(&Learned::New) {
        engines.reputation.add(of_network, Amount::GOOD);
        engines.reputation.add(of_all, Amount::GOOD);
        metrics::counter!("ortler_learned_unasked_total", "class" => class.as_str()).increment(1);
    }
    Ok(())
}

/// Neither class runs away from the other.
fn is_balanced(counts: Counts, class: Class) -> bool {
    let (own, other) = match class {
        Class::Ham => (counts.ham, counts.spam),
        Class::Spam => (counts.spam, counts.ham),
    };
    own < other.saturating_mul(3).saturating_add(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_stay_in_balance() {
        let fits = |ham, spam, class| is_balanced(Counts { ham, spam }, class);
        assert!(fits(0, 0, Class::Spam) && fits(0, 99, Class::Spam) && !fits(0, 100, Class::Spam));
        assert!(fits(100, 399, Class::Spam) && !fits(100, 400, Class::Spam) && fits(100, 400, Class::Ham));
        assert!(!fits(400, 100, Class::Ham));
    }

    #[test]
    fn what_cannot_be_learned_is_tried_seldom_and_not_for_ever() {
        let verdict = |email| OwnerVerdict {
            account: AccountId(7),
            email: EmailId(email),
            is_spam: true,
            given_at: UtcMillis(0),
        };
        let (mut failing, mut now, mut waits) = (Failing::default(), UtcMillis(0), Vec::new());
        loop {
            assert!(failing.is_due(&verdict(1), now) && failing.is_due(&verdict(2), now));
            match failing.failed(&verdict(1), now) {
                Next::Again { after, .. } => {
                    assert!(!failing.is_due(&verdict(1), now), "not at once");
                    waits.push(after.as_secs());
                    now = now.plus(after);
                }
                Next::GivenUp => break,
            }
        }
        assert_eq!((waits[..4].to_vec(), waits.len()), (vec![1, 2, 4, 8], 39));
        assert!(waits.iter().sum::<u64>() > 86_400 && waits.iter().all(|wait| *wait <= 3600), "{waits:?}");
        assert!(failing.0.is_empty());
        failing.failed(&verdict(2), now);
        failing.learned(&[verdict(2)]);
        assert!(failing.0.is_empty());
    }

    #[test]
    fn nobody_turns_the_weights_of_all_alone() {
        let mut daily = Daily::default();
        let room =
            |daily: &mut Daily, day, account| (0..60).filter(|_| daily.has_room(day, AccountId(account))).count();
        assert_eq!((room(&mut daily, 1, 7), room(&mut daily, 1, 7), room(&mut daily, 1, 8)), (50, 0, 50));
        assert_eq!(room(&mut daily, 2, 7), 50);
    }
}
