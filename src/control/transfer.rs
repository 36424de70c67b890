//! Handing control over, and the argument for its memory order.
//!
//! Two things have to hold between honest peers, on any machine.
//!
//! **The datagram arrives with control.** The side that flips wrote the datagram and its length before the compare-exchange, which
//! is a *release*; the side that sees the new state saw it with an *acquire* load. So every byte written before the flip is visible after the wait.
//! The way back is the same pair, so a byte of the next datagram is never written before the last one was read.
//!
//! **A sleeper is woken** (extension `park`). The waiter says that it sleeps and then polls the state once more; the waker flips
//! and then checks whether the other one sleeps:
//!
//! ```text
//!   waiter                               waker
//!   W1  parked = 1                       F1  state = theirs   (compare-exchange)
//!   W2  fence(SeqCst)                    F2  fence(SeqCst)
//!   W3  state still theirs? sleep        F3  parked ≠ 0? wake
//! ```
//!
//! The bad outcome is that W3 sees the old state *and* F3 sees `parked = 0`: the waiter sleeps and nobody wakes it. Each side stores
//! one word and loads the other, the pattern that release and acquire do not order: both stores may still sit in store buffers when
//! both loads execute. The two fences are in one total order. If W2 comes first, F3 sees W1 and wakes; if F2 comes first, W3 sees F1
//! and does not sleep. When the wake comes after W3 but before the thread really sleeps, the kernel's own comparison with the state
//! catches it, under the lock that the wake takes too.
//!
//! On real machines F2 is no instruction (`sys::sync::fence_after_exchange`): F1 and F3 are sequentially consistent accesses and take
//! its place in the total order. Were F3 to miss W1, it would stand before W2; were W3 to miss F1, W2 would stand before F1; and F1 stands
//! before F3, so not both. A full barrier behind an exchange that is one already costs 10 ns and more of a call of 120. Loom knows
//! sequentially consistent fences only, so the models run with the fence.
//!
//! `parked` goes back to 0 when the wait ends, not after each sleep: between two sleeps of one wait the protocol above would have to be
//! run again. A peer that lies about its word only misses its own wakes, or costs us the system call that the base protocol makes anyway.
//!
//! **Local events** (a shutdown by another thread, the death of the peer) use a word of our own, see `sys::cancel`: raise the bit, then
//! wake that word. The waiter compares both words in the one system call that puts it to sleep, so it either sees the bit or is woken.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::adaptive::{Adaptive, HOT_SPINS};
use super::counters::CounterCells;
use super::pace::Pace;
use super::policy::WaitPolicy;
use super::state::{self, Control, Side, StateViolation};
use super::stop::Stop;
use super::wait::{Waiter, control, parked_word};
use super::watchdog::{Watch, Watched};
use crate::deadline::Deadline;
use crate::error;
use crate::sys::cancel::{Cancel, CancelWord};
use crate::sys::sync::{HeaderWords, Ordering, breath, fence_after_exchange, pause, prefetch_to_write, wake_shared};

/// One side's means of handing over and waiting. It owns no shared memory: the header words are passed to each call.
#[derive(Debug)]
pub(crate) struct Transfer {
    waiter: Waiter,
    /// Spins of the next wait's fast path.
    pub(super) hot_spins: u32,
    pace: Pace,
    /// The memory of waits for answers.
    answers: Adaptive,
    /// The memory of waits inside transfers. Boxed: calls do not touch it.
    progress: Box<Adaptive>,
    /// Has the peer watched, where there is something to watch.
    _watch: Option<Watch>,
}

/// What a wait is for. How long the one takes says nothing of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The answer to a call, which takes as long as it takes.
    Answer,
    /// The next step of a transfer: the other side is at work, and a sleep would cost more than what it does.
    Progress,
}

impl Transfer {
    pub(crate) fn new(
        side: Side,
        policy: WaitPolicy,
        cancel: Arc<CancelWord>,
        counters: Arc<CachePadded<CounterCells>>,
    ) -> Self {
        Self {
            waiter: Waiter { side, policy, park: false, cancel, counters },
            hot_spins: if policy == WaitPolicy::Park { 0 } else { HOT_SPINS },
            pace: Pace::default(),
            answers: Adaptive::default(),
            progress: Box::default(),
            _watch: None,
        }
    }

    /// Raises the cancel word when what is `watched` dies.
    pub(crate) fn watch(&mut self, watched: Watched) -> error::Result<()> {
        self._watch = Some(Watch::new(watched, &self.waiter.cancel)?);
        Ok(())
    }

    /// From now on both sides say when they sleep, and wakes of a peer that is awake are left out.
    pub(crate) fn enable_park(&mut self) {
        self.waiter.park = true;
    }

    /// Whether wakes are elided.
    pub(crate) fn parks(&self) -> bool {
        self.waiter.park
    }

    /// Hands control and a datagram of `length` bytes to the peer. The wake is elided if `park` was agreed on before. An error is the
    /// state that was found in the place of ours, and nothing was handed over: [`refused_flip`](Self::refused_flip) tells why.
    #[inline(always)]
    pub(crate) fn flip(&self, words: &HeaderWords, length: u32) -> Result<(), u32> {
        words.length.store(length, Ordering::Relaxed);
        let (ours, theirs) = (self.waiter.side.active(), self.waiter.side.peer().active());
        words.state.compare_exchange(ours, theirs, Ordering::SeqCst, Ordering::Relaxed)?;
        let awake = self.waiter.park && {
            fence_after_exchange(); // F2
            parked_word(words, self.waiter.side.peer()).load(Ordering::SeqCst) == 0
        };
        if !awake {
            self.wake_peer(words);
        }
        self.waiter.counters.flips.add(1);
        self.waiter.counters.bytes_sent.add(u64::from(length));
        Ok(())
    }

    /// Spins for as long as it takes no clock: whether control is ours.
    #[inline(always)]
    pub(crate) fn spin_hot(&mut self, words: &HeaderWords) -> bool {
        if self.hot_spins > 0 {
            (0..self.pace.breaths()).for_each(|_| breath());
        }
        let (side, far) = (self.waiter.side, self.pace.is_far());
        for polls in 0..self.hot_spins {
            if far {
                prefetch_to_write(&words.state);
            }
            if matches!(control(words, side), Control::Ours) {
                self.pace.answered(polls);
                return true;
            }
            pause();
        }
        false
    }

    /// Takes the datagram that came with control and returns its length. It is read once: the peer may change it as soon as it was
    /// checked.
    #[inline(always)]
    pub(crate) fn take(&self, words: &HeaderWords, capacity: u32) -> Result<u32, StateViolation> {
        let length = words.length.load(Ordering::Relaxed);
        if length > capacity {
            return Err(StateViolation::Length { length, capacity });
        }
        self.waiter.counters.receives.add(1);
        self.waiter.counters.bytes_received.add(u64::from(length));
        Ok(length)
    }

    /// A system call per wake: out of line, so that the elided path stays small.
    #[cold]
    #[inline(never)]
    fn wake_peer(&self, words: &HeaderWords) {
        self.waiter.counters.wakes_sent.add(1);
        if wake_shared(&words.state).is_err() {
            self.waiter.counters.wakes_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Why a flip failed that found `found` in the place of our own state.
    #[cold]
    pub(crate) fn refused_flip(&self, found: u32) -> Stop {
        match (self.waiter.cancel.has(Cancel::Shutdown), state::refused_flip(found)) {
            (true, _) => Stop::LocalShutdown,
            (false, None) => Stop::PeerShutdown,
            (false, Some(violation)) => Stop::Violation(violation),
        }
    }

    /// Waits until control is ours, as the policy says.
    #[cold]
    #[inline(never)]
    pub(crate) fn wait(&mut self, words: &HeaderWords, expect: Expect, mut deadline: Deadline) -> Result<(), Stop> {
        if expect == Expect::Progress {
            return self.waiter.adapt(&mut self.progress, words, &mut deadline);
        }
        let result = self.waiter.wait(&mut self.answers, words, &mut deadline);
        if self.waiter.policy == WaitPolicy::Adaptive {
            self.hot_spins = if self.answers.is_settled() { HOT_SPINS } else { 0 };
        }
        result
    }

    /// Whether nobody will ever have control again, as far as the state word says.
    pub(crate) fn is_down(&self, words: &HeaderWords) -> bool {
        matches!(control(words, self.waiter.side), Control::Down | Control::Invalid(_))
    }
}

/// Shuts a window down from any thread at any time: both sides' calls end, now and later. Returns at once.
///
/// The cancel word goes first: a waiter of ours that sees the new state then knows whose shutdown it was. One waiter of the shared
/// word is woken, never all of them, since a peer can queue thousands; its own waiter, if it is honest, is the only one. Ours is woken
/// through the cancel word.
pub(crate) fn shut_down(words: &HeaderWords, cancel: &CancelWord, counters: &CounterCells) {
    if !cancel.raise(Cancel::Shutdown) {
        return;
    }
    words.state.swap(state::SHUT_DOWN, Ordering::AcqRel);
    if wake_shared(&words.state).is_err() {
        counters.wakes_failed.fetch_add(1, Ordering::Relaxed);
    }
}
