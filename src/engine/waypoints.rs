//! Named places that work passes on its way to the disk, for whoever must interrupt it there.

use std::fmt;

/// Told each time a place is passed; may end the process.
type Watcher = &'static (dyn Fn(&'static str) + Send + Sync);

/// A seam for crash tests. Nobody watches in production: then passing a place is one comparison.
#[derive(Clone, Copy, Default)]
pub struct Waypoints(Option<Watcher>);

impl Waypoints {
    pub const fn watched_by(watcher: Watcher) -> Self {
        Self(Some(watcher))
    }

    /// Says that `place` is reached: what comes before it is done, what comes after it has not begun.
    #[inline]
    pub fn pass(self, place: &'static str) {
        if let Some(watcher) = self.0 {
            watcher(place);
        }
    }
}

impl fmt::Debug for Waypoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "watched" } else { "unwatched" })
    }
}
