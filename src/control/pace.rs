//! When to poll for the next answer: learned from how many polls the last ones took.
//!
//! A poll is not free for the peer. The line with the state word goes to the side that polls, and if the peer is about to write its answer
//! there, it has to fetch the line back first: a call then takes half as long again. So the best wait is one poll, just after the answer.
//!
//! - A **near** peer answers through a cache that both CPUs share. A pause between two polls (27 ns) is as long as half a call, so the
//!   first poll is delayed by what was learned, in steps of a [`breath`](crate::sys::sync::breath) (some 5 ns): a poll that was too
//!   early makes the next delay longer by one breath, one that was not makes it shorter by a sixteenth of one. One poll in seventeen is
//!   then too early, and the delay follows the answer down. It is short, so that quick answers among slow ones do not wait for long; and
//!   an answer that came later than the second poll teaches nothing by itself, and little in a row: one slow answer of sixteen would
//!   else hold all others up for the longest delay (87 ns instead of 60 a call).
//! - A **far** peer's line takes longer on its way than the peer's work: there each poll asks for the line to write it, which saves one
//!   of two transfers each way. Two answers in a row that took long tell a far peer from a hiccup. When the line was asked for, nothing
//!   tells, so every 64th wait polls the near way.

/// Steps of a breath in which the delay is learned.
const STEPS: u32 = 16;
/// The longest delay: some 80 ns.
const LONGEST: u32 = 16 * STEPS;
/// An answer that took more polls after the delay was not just missed: nothing is learned from it.
const JUST_MISSED: u32 = 4;
/// What a second answer in a row is worth that came later than one poll, in steps: runs of slow answers outweigh the quick ones between
/// them only where they are about as many.
const IN_A_ROW: u32 = STEPS / 8;
/// Steps of the delay that are as long as a poll and its pause.
const STEPS_A_POLL: u32 = 5 * STEPS;
/// Polls within which a near peer answers that does little else, some 200 ns.
const NEAR_POLLS: u32 = 7;
/// Waits between two that find out how far the peer is.
const FAR_WAITS: u32 = 63;

/// What was learned about a peer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The delay in front of the first poll, in steps.
    delay: u32,
    /// Waits for which the peer is taken for far.
    far: u32,
    /// Polls that the last answer took, the delay in front of them included; 0 if it was there at the first one.
    overshoot: u32,
}

impl Pace {
    /// Breaths in front of the first poll.
    #[inline(always)]
    pub(super) fn breaths(&self) -> u32 {
        self.delay / STEPS
    }

    /// Whether each poll asks for the line to write it.
    #[inline(always)]
    pub(super) fn is_far(&self) -> bool {
        self.far > 0
    }

    /// The answer was there after `polls` polls that were too early.
    #[inline(always)]
    pub(super) fn answered(&mut self, polls: u32) {
        if self.far > 0 {
            self.far -= 1;
        } else if polls == 0 {
            (self.delay, self.overshoot) = (self.delay.saturating_sub(1), 0);
        } else {
            self.missed(polls);
        }
    }

    /// Polls were too early.
    fn missed(&mut self, polls: u32) {
        let overshoot = polls + self.delay / STEPS_A_POLL;
        let before = std::mem::replace(&mut self.overshoot, overshoot);
        if before >= NEAR_POLLS && overshoot >= NEAR_POLLS {
            *self = Self { far: FAR_WAITS, overshoot, delay: 0 };
        } else if polls == 1 {
            self.delay = (self.delay + STEPS).min(LONGEST);
        } else if before > 0 && polls <= JUST_MISSED {
            self.delay = (self.delay + IN_A_ROW).min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREATH: u32 = 5;
    const POLL: u32 = 27;

    /// Waits for an answer that comes after `time` nanoseconds; the polls that were too early.
    fn wait(pace: &mut Pace, time: u32) -> u32 {
        let polls = time.saturating_sub(pace.breaths() * BREATH).div_ceil(POLL);
        pace.answered(polls);
        polls
    }

    #[test]
    fn the_first_poll_settles_just_behind_the_answer() {
        for time in [20, 33, 60, 75] {
            let mut pace = Pace::default();
            (0..1000).for_each(|_| _ = wait(&mut pace, time));
            let early = (0..1000).filter(|_| wait(&mut pace, time) > 0).count();
            assert!((40..80).contains(&early), "{early} polls of 1,000 were too early for {time} ns");
            assert!(pace.breaths() * BREATH <= time + 2 * BREATH, "{} breaths for {time} ns", pace.breaths());
        }
    }

    #[test]
    fn a_slower_peer_is_followed_soon_and_a_quicker_one_in_the_end() {
        let mut pace = Pace::default();
        (0..100).for_each(|_| _ = wait(&mut pace, 20));
        (0..80).for_each(|_| _ = wait(&mut pace, 70));
        assert!(pace.breaths() >= 13, "{pace:?}");
        (0..300).for_each(|_| _ = wait(&mut pace, 20));
        assert!(pace.breaths() <= 5, "{pace:?}");
    }

    #[test]
    fn slow_answers_delay_quick_ones_by_no_more_than_the_longest_delay() {
        let mut pace = Pace::default();
        for time in (0..10_000).map(|call| if call % 2 == 0 { 50 } else { 100 + call % 60 }) {
            wait(&mut pace, time);
            assert!(pace.breaths() <= LONGEST / STEPS);
        }
    }

    #[test]
    fn a_few_slow_answers_do_not_hold_the_quick_ones_up() {
        for (slow, of, time) in [(1, 16, 120), (1, 8, 120), (2, 16, 120), (1, 12, 150), (1, 16, 80), (4, 16, 130)] {
            let mut pace = Pace::default();
            let mut delays = Vec::new();
            for call in 0..10_000 {
                delays.push(pace.breaths() * BREATH);
                wait(&mut pace, if call % of < slow { time } else { 30 });
            }
            let most = delays[5000..].iter().max().unwrap();
            assert!(*most <= 45, "{most} ns for answers after 30, {slow} of {of} after {time}");
        }
    }

    #[test]
    fn a_hiccup_is_forgotten() {
        let mut pace = Pace::default();
        (0..100).for_each(|_| _ = wait(&mut pace, 50));
        let before = pace.breaths();
        wait(&mut pace, 50 + 6 * POLL);
        assert_eq!(pace.breaths(), before);
        assert!(!pace.is_far());
    }

    #[test]
    fn a_far_peer_is_known_at_its_second_answer_and_polled_anew_after_a_while() {
        let mut pace = Pace::default();
        wait(&mut pace, 300);
        assert!(!pace.is_far(), "one slow answer is a hiccup");
        wait(&mut pace, 300);
        assert!(pace.is_far());
        // Polls that fetch the line are slow, and few: they say nothing.
        let far = (0..1000)
            .take_while(|_| {
                let far = pace.is_far();
                if far {
                    pace.answered(2)
                };
                far
            })
            .count();
        assert_eq!(far, 63);
        wait(&mut pace, 300);
        assert!(pace.is_far());
        (0..63).for_each(|_| pace.answered(2));
        wait(&mut pace, 50);
        assert!(!pace.is_far());
    }

    #[test]
    fn a_learned_delay_does_not_hide_that_a_peer_moved_away() {
        let mut pace = Pace::default();
        (0..100).for_each(|_| _ = wait(&mut pace, 75));
        assert!(pace.breaths() > 10);
        (0..2).for_each(|_| _ = wait(&mut pace, 250));
        assert!(pace.is_far());
    }
}
