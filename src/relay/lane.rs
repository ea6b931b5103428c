//! Work on one lane, from its claim until it is left.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{MessageId, UtcMillis, event};
use mail::{Enhanced, Status};
use store::{LaneClaim, LaneLeft, QueueJob, QueueState, StoreError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attempt::{self, Attempted, Course, Done};
use crate::hosts::{Finder, NoPlan};
use crate::outcome::{Conclusion, Outcome};
use crate::routes::Way;
use crate::schedule::Schedule;
use crate::worker::{LEASE, Relay};

pub(crate) struct LaneTask {
    relay: Arc<Relay>,
    claim: LaneClaim,
    kept_at: Instant,
    /// When alarms were looked for.
    rung_at: Option<Instant>,
    course: Option<(Instant, Course)>,
    ready: VecDeque<QueueJob>,
    in_flight: HashSet<(MessageId, u32)>,
    attempts: JoinSet<Attempted>,
    /// Nothing new is begun: the lane is lost, suspended, or its servers are away.
    is_closed: bool,
    left: LaneLeft,
}

/// Recipients read at a time.
const BATCH: usize = 200;
/// Attempts beyond those that have a connection.
const AHEAD: usize = 8;
/// Alarms, and what is new beside slow attempts, are looked for so often.
const RING_EVERY: Duration = Duration::from_secs(1);
/// A plan is made anew after so long.
const PLAN_FOR: Duration = Duration::from_secs(300);
/// With nothing to do, the lane is kept for so long: the next message finds it at work.
const LINGER: Duration = Duration::from_millis(100);
/// After a failure that reached nobody, and twice as long after each further one.
const LANE_WAIT: Duration = Duration::from_secs(60);
const LANE_WAIT_MAX: Duration = Duration::from_secs(1800);

const EXPIRED: Enhanced = Enhanced(5, 4, 7);
const UNKNOWN_ROUTE: Enhanced = Enhanced(4, 3, 5);

impl LaneTask {
    pub(crate) fn new(relay: Arc<Relay>, claim: LaneClaim) -> Self {
        let kept_at = relay.parts.clock.now();
        let left = LaneLeft { failures: claim.failures, retry_at: claim.retry_at, ..LaneLeft::default() };
        Self {
            relay,
            claim,
            kept_at,
            rung_at: None,
            course: None,
            ready: VecDeque::new(),
            in_flight: HashSet::new(),
            attempts: JoinSet::new(),
            is_closed: false,
            left,
        }
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        match self.work(&stop).await {
            Ok(()) => {
                let left = LaneLeft { reason: self.left.reason.clone(), ..self.left };
                let _ = self.relay.parts.storage.queue.leave_lane(&self.claim, left).await;
            }
            // The engine is away; when it is back, the lane is free once its lease is over.
            Err(error) => tracing::warn!(event = event::STORE_FAILED, what = "queue", lane = %self.claim.lane, %error),
        }
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut news = self.relay.parts.outgoing.news.subscribe();
        let mut has_lingered = false;
        loop {
            self.keep().await?;
            if !self.ring().await? {
                self.is_closed = true;
            }
            let may_begin = !self.is_closed && !stop.is_cancelled() && self.left.retry_at <= self.now();
            if may_begin {
                self.begin_attempts().await?;
            }
            if !self.attempts.is_empty() {
                has_lingered = false;
                self.gather().await?;
                continue;
            }
            if !may_begin || (has_lingered && self.ready.is_empty()) {
                return Ok(());
            }
            if self.ready.is_empty() {
                has_lingered = true;
                let _ = tokio::time::timeout(LINGER, news.changed()).await;
            }
        }
    }

    fn now(&self) -> UtcMillis {
        self.relay.parts.clock.utc()
    }

    /// Holds the lane for longer, when a third of the lease is over.
    async fn keep(&mut self) -> Result<(), StoreError> {
        let now = self.relay.parts.clock.now();
        if now.saturating_duration_since(self.kept_at) < LEASE / 3 {
            return Ok(());
        }
        let kept = self.relay.parts.storage.queue.keep_lanes(vec![self.claim.clone()], LEASE).await?;
        self.kept_at = now;
        if kept != [true] {
            self.is_closed = true;
        }
        Ok(())
    }

    /// Ends or tells of recipients whose alarm rings; false if the lane is lost.
    async fn ring(&mut self) -> Result<bool, StoreError> {
        let begun = self.relay.parts.clock.now();
        if self.rung_at.is_some_and(|at| begun.saturating_duration_since(at) < RING_EVERY) {
            return Ok(true);
        }
        self.rung_at = Some(begun);
        loop {
            let found =
                self.relay.parts.storage.queue.alarms(self.claim.lane.clone(), BATCH + self.in_flight.len()).await?;
            let due: Vec<QueueJob> = found.into_iter().filter(|job| !self.in_flight.contains(&key(job))).collect();
            if due.is_empty() {
                return Ok(true);
            }
            let now = self.now();
            let mut outcomes = Vec::new();
            for job in due {
                self.ready.retain(|ready| key(ready) != key(&job));
                let last = job.recipient.last_status.clone();
                let conclusion = if job.recipient.state == QueueState::Returning {
                    Conclusion::Failed(Status::with_text(550, Enhanced(5, 7, 1), &last))
                } else if Schedule::is_warning(&job.recipient, now) {
                    Conclusion::Late(Status::with_text(451, last_code(&last).unwrap_or(Enhanced(4, 4, 7)), &last))
                } else {
                    Conclusion::Failed(Status::with_text(
                        550,
                        EXPIRED,
                        &format!("Delivery was tried until now: {last}"),
                    ))
                };
                let host = job.recipient.last_host.clone();
                outcomes.push(Outcome { job, conclusion, host, tls: None });
            }
            if !self.conclude(outcomes).await? {
                return Ok(false);
            }
        }
    }

    /// Where to, as it was found a while ago or now. `None`: not now; the lane is left, or its mail is returned.
    async fn course(&mut self) -> Result<Option<Course>, StoreError> {
        let now = self.relay.parts.clock.now();
        if let Some((since, course)) = &self.course
            && now.saturating_duration_since(*since) < PLAN_FOR
        {
            return Ok(Some(course.clone()));
        }
        let relay = Arc::clone(&self.relay);
        let routes = relay.parts.outgoing.routes.load_full();
        let finder = Finder {
            resolver: relay.parts.resolver.as_ref(),
            routes: &routes,
            host_name: &relay.settings.host_name,
            port: relay.settings.port,
            turn: self.claim.fence.unsigned_abs(),
            policies: relay.parts.policies.as_deref(),
            authorities: relay.settings.authorities.clone(),
            peers: relay.settings.reports_tls.then_some(&*relay.parts.peers),
        };
        let plan = match relay.parts.outgoing.way(&self.claim.lane) {
            Way::Local => {
                let course = Course::Local;
                self.course = Some((now, course.clone()));
                return Ok(Some(course));
            }
            Way::Domain(domain) => finder.of_domain(&domain).await,
            Way::Via(route) => finder.of_route(&route).await,
            Way::Gone(domain) => {
                let text = format!("Mail for the domain `{domain}` does not go on to a server any more");
                Err(NoPlan::Later(Status::with_text(451, UNKNOWN_ROUTE, &text)))
            }
            Way::Unknown(name) => {
                let text = format!("The route `{name}` is not in the routing file");
                Err(NoPlan::Later(Status::with_text(451, UNKNOWN_ROUTE, &text)))
            }
        };
        match plan {
            Ok(plan) => {
                let site = self.relay.sites.site(plan.rule.clone(), now);
                let course = Course::Servers(Arc::new(plan), site);
                self.course = Some((now, course.clone()));
                Ok(Some(course))
            }
            Err(NoPlan::Later(status)) => {
                self.servers_are_away(&status);
                self.defer_first(&status).await?;
                Ok(None)
            }
            Err(NoPlan::Never(status)) => {
                self.return_all(&status).await?;
                Ok(None)
            }
        }
    }

    /// The one that was to be tried notes why it was not.
    async fn defer_first(&mut self, status: &Status) -> Result<(), StoreError> {
        let Some(job) = self.ready.pop_front() else { return Ok(()) };
        let outcome = Outcome { job, conclusion: Conclusion::Deferred(status.clone()), host: String::new(), tls: None };
        self.conclude(vec![outcome]).await.map(drop)
    }

    /// All that is ready cannot ever be delivered.
    async fn return_all(&mut self, status: &Status) -> Result<(), StoreError> {
        let failed =
            |job| Outcome { job, conclusion: Conclusion::Failed(status.clone()), host: String::new(), tls: None };
        let outcomes = std::mem::take(&mut self.ready).into_iter().map(failed).collect();
        if !self.conclude(outcomes).await? {
            self.is_closed = true;
        }
        Ok(())
    }

    fn servers_are_away(&mut self, status: &Status) {
        self.left.failures = self.left.failures.saturating_add(1);
        let doublings = (self.left.failures - 1).min(10);
        let wait = LANE_WAIT.saturating_mul(1 << doublings).min(LANE_WAIT_MAX);
        // A quarter more or less, so that lanes that failed together do not come back together.
        let spread = self.claim.fence.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let wait = wait.mul_f64(0.75 + 0.5 * (f64::from(u32::try_from(spread).unwrap_or(0)) / 65_536.0));
        self.left.retry_at = self.now().plus(wait);
        self.left.reason = status.to_string();
        self.is_closed = true;
    }

    async fn begin_attempts(&mut self) -> Result<(), StoreError> {
        loop {
            if self.ready.is_empty() {
                let limit = BATCH + self.in_flight.len();
                let found = self.relay.parts.storage.queue.due(self.claim.lane.clone(), limit).await?;
                self.ready.extend(found.into_iter().filter(|job| !self.in_flight.contains(&key(job))));
                if self.ready.is_empty() {
                    return Ok(());
                }
            }
            let Some(course) = self.course().await? else {
                if self.is_closed {
                    return Ok(());
                }
                continue;
            };
            let (most, recipients_max) = match &course {
                Course::Local => (AHEAD, BATCH),
                Course::Servers(_, site) => (site.allowed() as usize + AHEAD, site.rule.recipients_per_message),
            };
            if self.attempts.len() >= most {
                return Ok(());
            }
            let jobs = self.next_parcel(recipients_max);
            self.in_flight.extend(jobs.iter().map(key));
            self.left.is_warm = true;
            let relay = Arc::clone(&self.relay);
            self.attempts.spawn(attempt::run(relay, course, jobs));
        }
    }

    /// The first that is ready, with all others of the same item.
    fn next_parcel(&mut self, recipients_max: usize) -> Vec<QueueJob> {
        let Some(first) = self.ready.pop_front() else { return Vec::new() };
        let mut jobs = vec![first];
        let mut rest = VecDeque::with_capacity(self.ready.len());
        for job in std::mem::take(&mut self.ready) {
            let is_same = jobs
                .first()
                .is_some_and(|first| (first.item.message, first.item.variant) == (job.item.message, job.item.variant));
            if is_same && jobs.len() < recipients_max { jobs.push(job) } else { rest.push_back(job) }
        }
        self.ready = rest;
        jobs
    }

    /// Waits a while for attempts that end, and writes down what came of all that have. What is new need not wait for them.
    async fn gather(&mut self) -> Result<(), StoreError> {
        let Ok(Some(first)) = tokio::time::timeout(RING_EVERY, self.attempts.join_next()).await else { return Ok(()) };
        let mut ended = vec![first];
        while let Some(more) = self.attempts.try_join_next() {
            ended.push(more);
        }
        let mut outcomes = Vec::new();
        for attempted in ended {
            // A task that panicked leaves its recipients to the next holder of the lane.
            let Ok(attempted) = attempted else {
                self.is_closed = true;
                continue;
            };
            match attempted.done {
                // Another attempt may have found nobody at home just before: somebody is.
                Done::Reached => {
                    (self.left.failures, self.left.retry_at, self.left.reason) = (0, UtcMillis(0), String::new());
                }
                Done::Away(status) if !self.is_closed => self.servers_are_away(&status),
                Done::Away(_) | Done::Nothing => {}
            }
            for outcome in &attempted.outcomes {
                self.in_flight.remove(&key(&outcome.job));
            }
            outcomes.extend(attempted.outcomes);
        }
        if !self.conclude(outcomes).await? {
            self.is_closed = true;
        }
        Ok(())
    }

    /// Writes outcomes down; false if the lane is lost. While the engine is away it tries again: what a server has taken must
    /// not be sent twice.
    async fn conclude(&mut self, outcomes: Vec<Outcome>) -> Result<bool, StoreError> {
        if outcomes.is_empty() {
            return Ok(true);
        }
        let begun = self.relay.parts.clock.now();
        loop {
            match self.relay.conclude(&self.claim, &outcomes).await {
                Ok(is_held) => return Ok(is_held),
                Err(error) if self.relay.parts.clock.now().saturating_duration_since(begun) > LEASE => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }
}

fn key(job: &QueueJob) -> (MessageId, u32) {
    (job.item.message, job.recipient.nth)
}

/// The enhanced code in a status that was written down.
fn last_code(status: &str) -> Option<Enhanced> {
    let word = status.split(' ').nth(1)?;
    let mut numbers = word.split('.').map(str::parse::<u16>);
    let (class, subject, detail) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    (class == 4).then_some(Enhanced(4, subject, detail))
}
