//! The slow half of a wait: the answer was not there at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::adaptive::Adaptive;
use super::counters::CounterCells;
use super::policy::WaitPolicy;
use super::state::{self, Control, Side, StateViolation};
use super::stop::Stop;
use crate::deadline::Deadline;
use crate::sys::cancel::{Cancel, CancelWord};
use crate::sys::sync::{self, AtomicU32, HeaderWords, Ordering, Slept, fence, pause, prefetch_to_write, yield_cpu};

/// Spins between two polls of the clock and the cancel word, about 3 µs.
const SPIN_BATCH: u32 = 64;
/// How long policy `Spin` keeps the CPU before it yields it once: on one CPU the peer would otherwise wait for a whole time slice.
const SPIN_YIELD: Duration = Duration::from_micros(50);
/// Spurious wakes of one wait after which the shared word is no longer slept on.
const STORM: u32 = 64;
/// How long to sleep between two polls of the shared word during a wake storm: 2% of a core instead of 25 to 44%.
const STORM_SLICE: Duration = Duration::from_millis(1);

/// What a wait needs, whatever it is for.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) side: Side,
    pub(super) policy: WaitPolicy,
    /// Whether extension `park` was agreed on.
    pub(super) park: bool,
    pub(super) cancel: Arc<CancelWord>,
    pub(super) counters: Arc<CachePadded<CounterCells>>,
}

/// Who has control, as `side` sees it. The state word is read nowhere else.
#[inline(always)]
pub(super) fn control(words: &HeaderWords, side: Side) -> Control {
    state::read(words.state.load(Ordering::Acquire), side)
}

/// The word that says whether `side` sleeps.
#[inline(always)]
pub(super) fn parked_word(words: &HeaderWords, side: Side) -> &AtomicU32 {
    match side {
        Side::Client => &words.client_parked,
        Side::Server => &words.server_parked,
    }
}

impl Waiter {
    /// Waits until control is ours, as the policy says. `learner` remembers waits of this kind.
    pub(super) fn wait(
        &self,
        learner: &mut Adaptive,
        words: &HeaderWords,
        deadline: &mut Deadline,
    ) -> Result<(), Stop> {
        match self.policy {
            WaitPolicy::Spin => self.spin(words, deadline),
            WaitPolicy::Adaptive => self.adapt(learner, words, deadline),
            WaitPolicy::Park => self.park(words, deadline),
        }
    }

    /// Whether control is ours, or why it never will be. A local shutdown comes first, since its caller is waiting for it; an answer
    /// or a shutdown that a peer left before it died comes before its death.
    ///
    /// The order of the three loads matters. Death is loaded before the state: whatever the peer did before it died is seen then. Our
    /// own shutdown is raised before the state is written, so it is loaded after it: the state then never looks like the peer's work.
    fn poll(&self, words: &HeaderWords) -> Result<bool, Stop> {
        let gone = self.cancel.has(Cancel::PeerGone);
        let unread = self.cancel.has(Cancel::Unread);
        let control = control(words, self.side);
        if self.cancel.has(Cancel::Shutdown) {
            return Err(Stop::LocalShutdown);
        }
        match control {
            Control::Ours => Ok(true),
            Control::Down => Err(Stop::PeerShutdown),
            Control::Invalid(word) => Err(Stop::Violation(StateViolation::State(word))),
            Control::Theirs if gone => Err(Stop::PeerGone),
            Control::Theirs if unread => Err(Stop::Violation(StateViolation::Unread)),
            Control::Theirs => Ok(false),
        }
    }

    /// One batch of spins; whether the state word left `theirs`.
    fn spin_batch(&self, words: &HeaderWords) -> bool {
        let side = self.side;
        (0..SPIN_BATCH).any(|_| {
            prefetch_to_write(&words.state);
            let changed = !matches!(control(words, side), Control::Theirs);
            if !changed {
                pause();
            }
            changed
        })
    }

    fn spin(&self, words: &HeaderWords, deadline: &mut Deadline) -> Result<(), Stop> {
        let until = deadline.resolve();
        let mut last_yield = Instant::now();
        while !self.poll(words)? {
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Err(Stop::TimedOut);
            }
            if now - last_yield >= SPIN_YIELD {
                yield_cpu();
                last_yield = Instant::now();
            }
            self.spin_batch(words);
        }
        Ok(())
    }

    /// Spins, yields and sleeps as `learner` says. What a transfer waits for comes soon, so there it adapts whatever the policy; under `Spin`
    /// it yields as it learned to and never sleeps.
    pub(super) fn adapt(
        &self,
        learner: &mut Adaptive,
        words: &HeaderWords,
        deadline: &mut Deadline,
    ) -> Result<(), Stop> {
        if self.poll(words)? {
            return Ok(());
        }
        // A yield may take long: the time counts from before it.
        deadline.resolve();
        let start = Instant::now();
        let budget = learner.spin_budget();
        if let Some(budget) = budget {
            if self.spin_for(words, start, budget, deadline)? {
                learner.spin_hit(start.elapsed());
                return Ok(());
            }
            learner.spin_missed(budget);
        }
        if learner.yields() {
            // Without a spin no time has passed since the start.
            let before = if budget.is_some() { Instant::now() } else { start };
            yield_cpu();
            let answered = self.poll(words)?;
            learner.yielded(before.elapsed(), answered);
            if answered {
                self.counters.yield_hits.add(1);
                return Ok(());
            }
        }
        match self.policy {
            WaitPolicy::Spin => self.spin(words, deadline)?,
            WaitPolicy::Adaptive | WaitPolicy::Park => self.park(words, deadline)?,
        }
        learner.slept(start.elapsed(), budget.is_some());
        Ok(())
    }

    /// Spins for at most `budget` from `start`; whether control is ours.
    fn spin_for(
        &self,
        words: &HeaderWords,
        start: Instant,
        budget: Duration,
        deadline: &mut Deadline,
    ) -> Result<bool, Stop> {
        let until = deadline.resolve();
        loop {
            self.spin_batch(words);
            if self.poll(words)? {
                return Ok(true);
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Err(Stop::TimedOut);
            }
            if now - start >= budget {
                return Ok(false);
            }
        }
    }

    /// Sleeps until control is ours.
    fn park(&self, words: &HeaderWords, deadline: &mut Deadline) -> Result<(), Stop> {
        let _parked = self.park.then(|| Parked::say(parked_word(words, self.side)));
        // W3 is this poll, and the kernel's comparison behind it.
        if self.poll(words)? {
            return Ok(());
        }
        self.counters.parks.add(1);
        let mut spurious = 0;
        loop {
            let woken = self.sleep_once(words, deadline.resolve(), spurious)?;
            if self.poll(words)? {
                self.counters.woken.add(1);
                return Ok(());
            }
            spurious += u32::from(woken);
            self.counters.spurious_wakes.add(u64::from(woken));
        }
    }

    /// One sleep. `Ok(true)`: something woke us or changed a word; `Ok(false)`: only time passed, or a signal came.
    fn sleep_once(&self, words: &HeaderWords, until: Option<Instant>, spurious: u32) -> Result<bool, Stop> {
        let storm = spurious >= STORM;
        let slept = if storm {
            let slice = Instant::now() + STORM_SLICE;
            sync::sleep_private(self.cancel.word(), until.map_or(slice, |until| until.min(slice)))
        } else {
            sync::sleep(&words.state, self.side.peer().active(), self.cancel.word(), until)
        };
        match slept.map_err(Stop::System)? {
            Slept::Woken | Slept::Changed => Ok(!storm),
            Slept::Interrupted => Ok(false),
            // A slice ends like a deadline; only the clock tells them apart. An answer that came at the last moment still counts.
            Slept::TimedOut if until.is_some_and(|until| Instant::now() >= until) && !self.poll(words)? => {
                Err(Stop::TimedOut)
            }
            Slept::TimedOut => Ok(false),
        }
    }
}

/// Says in the shared header that this side sleeps, until dropped.
struct Parked<'a>(&'a AtomicU32);

impl<'a> Parked<'a> {
    fn say(word: &'a AtomicU32) -> Self {
        word.store(1, Ordering::Relaxed); // W1
        fence(Ordering::SeqCst); // W2
        Self(word)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
