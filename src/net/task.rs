//! Tasks with an owner: the one place that spawns.

use std::future::Future;
use std::time::Duration;

use base::event::SESSION_PANICKED;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns tasks: told to stop together, awaited together. Cheap to clone; all clones are one owner.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

/// What is tracked of a task: itself, and whoever waits for its panic.
const EACH: usize = 2;

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the owner wants its tasks to end.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `work` until it ends or the owner loses patience. A panic in it is counted and logged and ends only itself.
    #[expect(clippy::disallowed_methods, reason = "this is the owner of tasks")]
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        let guarded = async move {
            tokio::select! {
                biased;
                () = work => {}
                () = abort.cancelled() => {}
            }
        };
        // A task of its own, so that a panic is caught at its edge.
        let inner = tokio::spawn(self.tracker.track_future(guarded));
        tokio::spawn(self.tracker.track_future(async move {
            if let Err(error) = inner.await
                && error.is_panic()
            {
                metrics::counter!("ortler_task_panics_total").increment(1);
                tracing::error!(event = SESSION_PANICKED, task = name, %error);
            }
        }));
    }

    /// Tasks that still run.
    pub fn running(&self) -> usize {
        self.tracker.len().div_ceil(EACH)
    }

    /// Tells all tasks to end, waits at most `patience`, then ends those that are left. Returns how many those were.
    pub async fn shutdown(&self, patience: Duration) -> usize {
        self.tracker.close();
        self.stop.cancel();
        if tokio::time::timeout(patience, self.tracker.wait()).await.is_ok() {
            return 0;
        }
        let left = self.running();
        self.abort.cancel();
        // An aborted task ends at its next await; one that never awaits is not waited for.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.tracker.wait()).await;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_end_together_and_a_panic_ends_only_itself() {
        let tasks = Tasks::new();
        let stop = tasks.stopping();
        tasks.spawn("polite", async move { stop.cancelled().await });
        tasks.spawn("broken", async { panic!("as asked") });
        tasks.spawn("deaf", std::future::pending());
        tokio::task::yield_now().await;
        assert!(tasks.running() <= 3, "{}", tasks.running());
        assert!(tasks.shutdown(Duration::from_millis(50)).await > 0);
        assert_eq!(tasks.running(), 0);
    }
}
