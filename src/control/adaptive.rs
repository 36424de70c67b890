//! What the adaptive policy learned, as a table without clock or memory.
//!
//! An affinity mask does not tell where the peer runs, and nobody tells how long it will think, so both are learned from the answers:
//!
//! 1. Spin without a clock for [`HOT_SPINS`], then with one for twice the last answer and a bit, at most [`MOST_SPIN`]. A quick
//!    answer does not wipe out a slow one: a peer that answers after 5 and 20 µs in turn would else be missed every other time.
//! 2. A spin that missed was wasted: the next 1, 3, 7 … 4,095 waits do not spin. A hit ends that, and so does, in a wait without a
//!    spin, a sleep that ended early enough that a longer spin would have hit. That is a probe: on one CPU for both sides no spin
//!    hits, however long. Probes that missed back off in turn, until the next hit.
//! 3. Then yield the CPU once: where both sides share it, the peer runs and answers for half the price of a sleep. A yield that
//!    brought no answer costs next to nothing, and the scheduler does that now and then: it backs off a little, until the next that
//!    does. One that took long (another thread wanted the CPU) costs a whole time slice: it backs off far and fast.
//! 4. Then sleep.

use std::time::Duration;

/// Spins before the clock is read for the first time: about 3 µs, enough for a peer on another CPU that answers at once.
pub(crate) const HOT_SPINS: u32 = 64;
/// The longest spin: sleeping and being woken costs 30 to 90 µs, so beyond a few times that a spin only burns the CPU.
const MOST_SPIN: Duration = Duration::from_micros(200);
/// Added to twice the last answer, so that a very fast peer's hiccup is not a miss.
const SPIN_SLACK: Duration = Duration::from_micros(5);
/// The spin for a peer whose last answer took longer than [`MOST_SPIN`].
const LEAST_SPIN: Duration = Duration::from_micros(2);
/// A yield that took longer than this gave the CPU to somebody else.
const SLOW_YIELD: Duration = Duration::from_micros(50);
/// A hit that was quicker than the last answer takes off this part of it.
const FORGOTTEN_PER_HIT: u32 = 16;
/// The most waits in a row that do not try to spin.
const MOST_SPIN_SKIPS: u32 = 4095;
/// The most sleeps in a row that lead to no probe: a probe that misses costs a spin, which is at most three times such a sleep.
const MOST_PROBE_SKIPS: u32 = 63;
/// The most waits in a row that do not try to yield: with a hog on the CPU a yield costs 1.4 ms.
const MOST_YIELD_SKIPS: u32 = 65_535;
/// Good yields in a row after which one slow yield is forgotten: a slow one costs what about 500 good ones save.
const GOOD_YIELDS: u32 = 256;
/// The most waits in a row that do not try to yield because yielding brought nothing: it costs a tenth of the sleep that follows.
const MOST_FRUITLESS_SKIPS: u32 = 15;
/// How much steeper the back-off of slow yields is: the way to [`MOST_YIELD_SKIPS`] has 6 steps instead of 16.
const SLOW_YIELD_STEP: u32 = 8;

/// The memory of one endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Adaptive {
    /// How long the last slow answer took, or slower ones before it, as far as they are not forgotten.
    last: Duration,
    spin: Backoff,
    probes: Backoff,
    /// The next spin is tried because of a sleep that it might have saved.
    probing: bool,
    slow_yields: Backoff,
    fruitless_yields: Backoff,
    good_yields: u32,
    /// The budget of the last spin that missed.
    missed: Duration,
}

/// How many waits to leave something out, and how many of them are left.
#[derive(Debug, Clone, Copy, Default)]
struct Backoff {
    width: u32,
    left: u32,
}

impl Backoff {
    /// Whether to try this time.
    fn due(&mut self) -> bool {
        let due = self.left == 0;
        self.left = self.left.saturating_sub(1);
        due
    }

    fn failed(&mut self, step: u32, most: u32) {
        self.width = (self.width * step + step - 1).min(most);
        self.left = self.width;
    }
}

impl Adaptive {
    /// Whether the last spin was a hit: then the next wait spins without a clock first, and a hit there need not be reported.
    pub(crate) fn is_settled(&self) -> bool {
        self.spin.width == 0
    }

    /// Whether the next wait may spin.
    #[cfg(test)]
    fn spins_next(&self) -> bool {
        self.spin.left == 0
    }

    /// Begins a slow wait: how long to spin, `None` for not at all.
    pub(crate) fn spin_budget(&mut self) -> Option<Duration> {
        self.spin.due().then(|| match self.last {
            last if last > MOST_SPIN => LEAST_SPIN,
            last => (2 * last + SPIN_SLACK).min(MOST_SPIN),
        })
    }

    /// Whether to yield the CPU once before sleeping.
    pub(crate) fn yields(&mut self) -> bool {
        // Both count down.
        self.slow_yields.due() & self.fruitless_yields.due()
    }

    /// The answer came while spinning.
    pub(crate) fn spin_hit(&mut self, took: Duration) {
        self.last = match self.last {
            last if last > MOST_SPIN => took,
            last => took.max(last - last / FORGOTTEN_PER_HIT),
        };
        self.spin = Backoff::default();
        self.probes = Backoff::default();
        self.probing = false;
    }

    /// The spin's budget ran out.
    pub(crate) fn spin_missed(&mut self, budget: Duration) {
        self.missed = budget;
        self.spin.failed(2, MOST_SPIN_SKIPS);
        if std::mem::take(&mut self.probing) {
            self.probes.failed(2, MOST_PROBE_SKIPS);
        }
    }

    /// The CPU was yielded for `pause`; `answered` tells whether the answer was there after it.
    pub(crate) fn yielded(&mut self, pause: Duration, answered: bool) {
        if pause > SLOW_YIELD {
            self.good_yields = 0;
            self.slow_yields.failed(SLOW_YIELD_STEP, MOST_YIELD_SKIPS);
            return;
        }
        if !answered {
            self.fruitless_yields.failed(2, MOST_FRUITLESS_SKIPS);
            return;
        }
        self.fruitless_yields = Backoff::default();
        self.good_yields += 1;
        if self.good_yields == GOOD_YIELDS {
            self.good_yields = 0;
            self.slow_yields.width /= SLOW_YIELD_STEP;
        }
    }

    /// The answer came `took` after the wait began, while this side slept. Only a wait that did not spin first tells how long the
    /// answer takes by itself: where both sides share a CPU, the spin is what kept the peer from answering.
    pub(crate) fn slept(&mut self, took: Duration, spun: bool) {
        if spun {
            return;
        }
        self.last = took;
        if took < MOST_SPIN && took > self.missed && self.probes.due() {
            self.spin = Backoff::default();
            self.probing = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn misses_back_off_and_a_hit_ends_that() {
        let mut adaptive = Adaptive::default();
        for expected in [1, 3, 7, 15] {
            let budget = adaptive.spin_budget().expect("due");
            adaptive.spin_missed(budget);
            let skipped = std::iter::from_fn(|| adaptive.spin_budget().is_none().then_some(())).take(expected).count();
            assert_eq!(skipped, expected);
        }
        assert!(adaptive.spins_next());
        adaptive.spin_hit(US);
        assert!(adaptive.is_settled() && adaptive.spin_budget().is_some());
    }

    #[test]
    fn the_budget_follows_the_last_answer() {
        let mut adaptive = Adaptive::default();
        for (last, budget) in [(0, 5), (10, 25), (90, 185), (200, 200), (201, 2), (5000, 2)] {
            adaptive.spin_hit(last * US);
            assert_eq!(adaptive.spin_budget(), Some(budget * US), "after {last} µs");
        }
    }

    #[test]
    fn a_sleep_that_a_longer_spin_would_have_saved_ends_the_back_off() {
        let mut adaptive = Adaptive::default();
        adaptive.spin_missed(5 * US);
        adaptive.slept(4 * US, false);
        assert!(!adaptive.spins_next(), "a spin of 5 µs missed, so an answer after 4 µs of sleep says nothing");
        adaptive.slept(60 * US, true);
        assert!(!adaptive.spins_next(), "the spin itself took that long");
        adaptive.slept(60 * US, false);
        assert!(adaptive.spins_next());
        adaptive.spin_missed(125 * US);
        adaptive.slept(300 * US, false);
        assert!(!adaptive.spins_next());
    }

    #[test]
    fn one_cpu_for_both_sides_ends_the_spinning() {
        // The peer cannot run while this side spins, and answers 8 µs after the spin: whatever the budget, the wait takes longer.
        let (mut adaptive, mut spun) = (Adaptive::default(), 0);
        for _ in 0..1000 {
            let budget = adaptive.spin_budget();
            if let Some(budget) = budget {
                spun += 1;
                adaptive.spin_missed(budget);
            }
            adaptive.slept(8 * US + budget.unwrap_or_default(), budget.is_some());
        }
        assert!(spun < 15, "{spun} of 1,000 waits spun for nothing");
    }

    #[test]
    fn one_cpu_for_both_sides_ends_the_spinning_whatever_the_answers() {
        for answers in [&[5, 150][..], &[5, 5, 5, 150], &[2, 2, 55], &[40, 1, 90, 7, 160, 13], &[199]] {
            let (mut adaptive, mut worked, mut wasted) = (Adaptive::default(), Duration::ZERO, Duration::ZERO);
            for answer in answers.iter().cycle().take(3000).map(|&answer| answer * US) {
                let budget = adaptive.spin_budget();
                if let Some(budget) = budget {
                    wasted += budget;
                    adaptive.spin_missed(budget);
                }
                worked += answer;
                adaptive.slept(answer + budget.unwrap_or_default(), budget.is_some());
            }
            assert!(wasted * 10 < worked, "{answers:?}: spun {wasted:?} for {worked:?} of answers");
        }
    }

    #[test]
    fn quick_answers_between_slow_ones_do_not_make_the_spin_miss() {
        for answers in [&[5, 20][..], &[5, 5, 5, 5, 20], &[4, 100], &[6, 18, 45], &[5, 5, 5, 5, 5, 5, 5, 5, 50]] {
            let (mut adaptive, mut slept) = (Adaptive::default(), 0);
            for answer in answers.iter().cycle().take(1000).map(|&answer| answer * US) {
                match adaptive.spin_budget() {
                    Some(budget) if budget >= answer => adaptive.spin_hit(answer),
                    Some(budget) => {
                        slept += 1;
                        adaptive.spin_missed(budget);
                        adaptive.slept(answer + 50 * US, true);
                    }
                    None => {
                        slept += 1;
                        adaptive.slept(answer + 50 * US, false);
                    }
                }
            }
            assert!(slept < 20, "{answers:?}: slept in {slept} of 1,000 waits");
        }
    }

    #[test]
    fn a_peer_that_moved_to_another_cpu_is_found_after_a_few_sleeps() {
        let mut adaptive = Adaptive::default();
        let (mut sleeps, mut waits) = (0, 0);
        while adaptive.probes.width < MOST_PROBE_SKIPS {
            let budget = adaptive.spin_budget();
            budget.into_iter().for_each(|budget| adaptive.spin_missed(budget));
            adaptive.slept([5, 5, 5, 150][waits % 4] * US, budget.is_some());
            waits += 1;
        }
        while adaptive.spin_budget().is_none() {
            sleeps += 1;
            adaptive.slept(60 * US, false);
        }
        assert!((1..=MOST_PROBE_SKIPS + 1).contains(&sleeps), "after {sleeps}");
        adaptive.spin_hit(5 * US);
        assert_eq!((adaptive.probes.width, adaptive.probing), (0, false), "a hit makes probes cheap again");
    }

    /// Waits until the next yield is due.
    fn skips(adaptive: &mut Adaptive) -> usize {
        std::iter::from_fn(|| (!adaptive.yields()).then_some(())).count()
    }

    #[test]
    fn slow_yields_back_off_far_and_good_ones_forget_one_slowly() {
        let mut adaptive = Adaptive::default();
        for expected in [7, 63, 511] {
            adaptive.yielded(1400 * US, true);
            assert_eq!(skips(&mut adaptive), expected);
        }
        (0..GOOD_YIELDS).for_each(|_| adaptive.yielded(US, true));
        assert_eq!(adaptive.slow_yields.width, 63);
        (1..GOOD_YIELDS).for_each(|_| adaptive.yielded(US, true));
        adaptive.yielded(1400 * US, false);
        adaptive.yielded(US, true);
        assert_eq!(adaptive.slow_yields.width, 511, "only good yields in a row count");
        (0..40).for_each(|_| adaptive.yielded(1400 * US, false));
        assert_eq!(adaptive.slow_yields.width, MOST_YIELD_SKIPS);
    }

    #[test]
    fn fruitless_yields_back_off_a_little_and_a_good_one_ends_that() {
        let mut adaptive = Adaptive::default();
        for expected in [1, 3, 7, 15, 15] {
            adaptive.yielded(US, false);
            assert_eq!(skips(&mut adaptive), expected);
        }
        adaptive.yielded(US, true);
        assert_eq!((skips(&mut adaptive), adaptive.slow_yields.width), (0, 0));
    }
}
