//! The channels of a client.
//!
//! There is a fixed row of slots, each with at most one channel, and a call holds its slot's lock for as long as it runs. Every thread
//! has a preferred slot: a thread that calls again and again finds its own warm channel there with one try-lock, without touching
//! anything that another thread writes. If the preferred slot is taken or empty, the thread looks for an idle channel elsewhere, and opens a
//! new one only if there is none.
//!
//! There are few preferred slots, [`PREFERRED_PER_CPU`] for each CPU. Of more threads than that, most do not run at any moment. If each had
//! a channel of its own, that channel's server would have fallen asleep since the last call, and each call would cost two wakes. Threads
//! that share preferred slots take turns on channels whose servers are still awake.

use std::cell::Cell;
use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use crossbeam_utils::CachePadded;

use super::channel::Channel;
use crate::error::{Error, ErrorKind};
use crate::rpc::trace;
use crate::sys::lock::{lock, wait_timeout};
use crate::sys::try_lock::{self, TryLock};

/// A slot that its holder may use.
#[derive(Debug)]
pub(super) struct Slot<'a>(try_lock::Held<'a, Option<Box<Channel>>>);

impl Deref for Slot<'_> {
    type Target = Option<Box<Channel>>;

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Slot<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Slot<'_> {
    /// A slot whose holder panicked (in its own encoding or decoding) loses its channel: it may be between a request and an answer.
    #[inline(always)]
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0 = None;
        }
    }
}

/// Preferred slots for each CPU, before rounding up to a power of two: as many threads as can run have one each, whatever their numbers are,
/// and a few are spare.
const PREFERRED_PER_CPU: usize = 2;

/// Where a channel can be.
type Space = TryLock<Option<Box<Channel>>>;

#[derive(Debug)]
pub(super) struct Pool {
    slots: Box<[CachePadded<Space>]>,
    /// The number of preferred slots, a power of two, less one: the first slots.
    preferred: usize,
    /// Calls begun in each slot by a thread that prefers it.
    calls: Box<[CachePadded<AtomicU64>]>,
    /// Calls begun elsewhere.
    calls_elsewhere: AtomicU64,
    /// Threads that wait for a channel.
    waiters: AtomicUsize,
    /// Channels that got free while somebody waited.
    freed: (Mutex<u64>, Condvar),
}

/// What was found in the pool.
pub(super) enum Found<'a> {
    /// A channel that is idle.
    Idle(Slot<'a>),
    /// No idle channel, but a place for a new one.
    Empty(Slot<'a>),
    /// Everything is in use.
    Busy,
}

/// How long a thread that waits for a channel sleeps at most before it polls by itself. A release that comes between its last
/// poll and its sleep goes unnoticed for that long.
const POLL: std::time::Duration = std::time::Duration::from_millis(5);

/// How often a channel that comes back looks for its slot.
const PUT_ATTEMPTS: u32 = 10;

impl Pool {
    /// Room for so many channels, with windows or without.
    pub(super) fn new(channels: usize, windows: bool) -> Self {
        let slots = (0..channels).map(|_| CachePadded::default()).collect();
        let calls = (0..channels).map(|_| CachePadded::default()).collect();
        // A server of a socket sleeps between two calls however many threads take turns.
        let cpus = if windows { std::thread::available_parallelism().map_or(1, NonZero::get) } else { channels };
        Self {
            slots,
            preferred: preferred_slots(channels, cpus) - 1,
            calls,
            calls_elsewhere: AtomicU64::new(0),
            waiters: AtomicUsize::new(0),
            freed: Default::default(),
        }
    }

    /// A call begins: this thread's preferred slot, if it holds an idle channel.
    #[inline]
    pub(super) fn preferred(&self) -> Option<Slot<'_>> {
        let preferred = self.preferred_index();
        let slot = try_lock(&self.slots[preferred])?;
        if slot.as_ref().is_none_or(|channel| channel.is_to_be_left()) {
            return None;
        }
        // Only the holder of the slot writes its count.
        let calls = &self.calls[preferred];
        calls.store(calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Some(slot)
    }

    #[inline]
    fn preferred_index(&self) -> usize {
        thread_number() & self.preferred
    }

    /// Calls begun so far.
    pub(super) fn calls(&self) -> u64 {
        let preferred: u64 = self.calls.iter().map(|calls| calls.load(Ordering::Relaxed)).sum();
        preferred + self.calls_elsewhere.load(Ordering::Relaxed)
    }

    /// A call begins elsewhere than in the preferred slot.
    pub(super) fn count(&self) {
        self.calls_elsewhere.fetch_add(1, Ordering::Relaxed);
    }

    /// Goes through all slots from the preferred one on. Channels that are over are dropped on the way.
    pub(super) fn find(&self) -> Found<'_> {
        let preferred = self.preferred_index();
        let (before, after) = self.slots.split_at(preferred);
        let mut empty = None;
        for slot in after.iter().chain(before) {
            let Some(mut slot) = try_lock(slot) else { continue };
            if slot.as_ref().is_some_and(|channel| channel.is_over()) {
                trace::poisoned(&Error::new(
                    ErrorKind::PeerGone,
                    "the server hung up between two calls, or sent something",
                ));
                *slot = None;
            }
            if slot.is_some() {
                return Found::Idle(slot);
            }
            empty = empty.or(Some(slot));
        }
        empty.map_or(Found::Busy, Found::Empty)
    }

    /// Puts a channel that was away into an empty slot. Without one it is dropped, which ends it.
    pub(super) fn put(&self, channel: Box<Channel>) {
        // There is a slot for every channel, but somebody may be looking at it.
        for _ in 0..PUT_ATTEMPTS {
            if let Some(mut slot) = self.slots.iter().filter_map(|slot| try_lock(slot)).find(|slot| slot.is_none()) {
                *slot = Some(channel);
                break;
            }
            std::thread::yield_now();
        }
        self.released();
    }

    /// A slot was just unlocked: somebody may be waiting for it.
    #[inline]
    pub(super) fn released(&self) {
        if self.waiters.load(Ordering::Relaxed) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        *lock(&self.freed.0) += 1;
        self.freed.1.notify_one();
    }

    /// Has everybody that waits poll.
    pub(super) fn wake_all(&self) {
        if self.waiters.load(Ordering::Relaxed) > 0 {
            let _guard = lock(&self.freed.0);
            self.freed.1.notify_all();
        }
    }

    /// Says that somebody waits for a channel.
    pub(super) fn waiter(&self) -> Waiter<'_> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        Waiter { pool: self, freed: *lock(&self.freed.0) }
    }

    /// Drops every idle channel.
    pub(super) fn clear(&self) {
        for mut slot in self.slots.iter().filter_map(|slot| try_lock(slot)) {
            *slot = None;
        }
    }
}

/// A thread that waits for a channel, until dropped.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    pool: &'a Pool,
    /// What it knows of what got free.
    freed: u64,
}

impl Waiter<'_> {
    /// Waits for a channel to get free, until `until` and for a little while at most; whether any did since the last wait, for
    /// this thread or another.
    pub(super) fn wait(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now()).min(POLL);
        let (freed, waked) = &self.pool.freed;
        let mut count = lock(freed);
        if *count == self.freed {
            count = wait_timeout(waked, count, left).0;
        }
        std::mem::replace(&mut self.freed, *count) != self.freed
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.pool.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many preferred slots a pool of so many slots has, at least one.
fn preferred_slots(slots: usize, cpus: usize) -> usize {
    let fitting = 1 << slots.max(1).ilog2();
    (PREFERRED_PER_CPU * cpus).next_power_of_two().min(fitting)
}

#[inline(always)]
fn try_lock(slot: &Space) -> Option<Slot<'_>> {
    slot.try_lock().map(Slot)
}

/// A number for each thread of this process.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferred_slots_are_a_power_of_two_of_the_first() {
        let cases = [(1, 1, 1), (1, 8, 1), (3, 2, 2), (64, 1, 2), (64, 2, 4), (64, 3, 8), (64, 64, 64), (100, 300, 64)];
        for (slots, cpus, expected) in cases {
            assert_eq!(preferred_slots(slots, cpus), expected, "{slots} slots, {cpus} CPUs");
        }
    }
}
