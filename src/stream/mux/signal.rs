//! Waking threads that wait, at no cost where none does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, MutexGuard};
use std::time::{Duration, Instant};

use crate::deadline::Deadline;
use crate::sys::lock;

/// A condition variable that knows whether anybody waits: waking nobody costs no system call.
#[derive(Debug, Default)]
pub(super) struct Signal {
    condition: Condvar,
    waiting: AtomicUsize,
    /// The thread that waits for this is the leader, so it is not asleep on the condition.
    pub(super) has_leader: AtomicBool,
    /// Notified while its waiter was the leader.
    pub(super) marked: AtomicBool,
}

impl Signal {
    /// Wakes all threads that wait. Called after the change that they wait for was made under the lock: a thread that registered before
    /// is seen here, one that comes later sees the change. A leader that sleeps at the socket notices when that wakes it; see `Shared::nudge_leader`.
    pub(super) fn notify(&self) {
        if self.has_leader.load(Ordering::Relaxed) {
            self.marked.store(true, Ordering::Relaxed);
        }
        if self.is_slept_on() {
            self.condition.notify_all();
        }
    }

    pub(super) fn is_slept_on(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits for a notification. `Err`: the deadline passed.
    pub(super) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
        let until = deadline.resolve();
        let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(guard);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = match until {
            Some(_) => lock::wait_timeout(&self.condition, guard, left).0,
            None => lock::wait(&self.condition, guard),
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(guard)
    }
}
