//! How long a wait may take.
//!
//! Every function of this crate that can wait takes a [`Deadline`]: there is no hidden default, and waiting for ever has to be
//! spelled [`Deadline::NEVER`]. A relative deadline starts to count when the wait first turns slow, so a call that is answered at
//! once reads no clock; from then on it is absolute, however many times the wait wakes up in between.
//!
//! ```
//! use flipcall::Deadline;
//! use std::time::{Duration, Instant};
//!
//! let patient = Deadline::NEVER;
//! let relative = Deadline::after(Duration::from_millis(20));
//! let absolute = Deadline::at(Instant::now() + Duration::from_secs(1));
//! let converted: Deadline = Duration::from_secs(5).into();
//! # let _ = (patient, relative, absolute, converted);
//! ```

use std::time::{Duration, Instant};

/// The point in time at which a wait gives up with [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
///
/// A deadline is a value: passing one to two calls gives each of them its own copy, so a relative one counts anew in each call and
/// [`Deadline::at`] is what bounds several calls together.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Repr);

#[derive(Debug, Clone, Copy)]
enum Repr {
    Never,
    At(Instant),
    After(Duration),
}

impl Deadline {
    /// No deadline: the wait ends with an answer, a shutdown, or the death of the peer where that can be seen.
    pub const NEVER: Self = Self(Repr::Never);

    /// A deadline `duration` after the wait first turns slow. A duration that reaches past the end of the clock is
    /// [`Deadline::NEVER`]; zero lets a wait poll once and never sleep, and a typed call is then refused before it is sent.
    #[must_use]
    pub const fn after(duration: Duration) -> Self {
        Self(Repr::After(duration))
    }

    /// A deadline at a point in time. One that is past already is as [`after`](Self::after) zero.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(Repr::At(instant))
    }

    /// What is left of it, `None` for never. A relative deadline that no wait has used yet is told as it is, and the
    /// clock is not read.
    pub(crate) fn left(&self) -> Option<Duration> {
        match self.0 {
            Repr::Never => None,
            Repr::At(instant) => Some(instant.saturating_duration_since(Instant::now())),
            Repr::After(duration) => Some(duration),
        }
    }

    /// Whether more than `margin` is left. Reads the clock only for a deadline that is absolute already.
    pub(crate) fn is_beyond(self, margin: Duration) -> bool {
        match self.0 {
            Repr::Never => true,
            Repr::At(instant) => instant.saturating_duration_since(Instant::now()) > margin,
            Repr::After(duration) => duration > margin,
        }
    }

    /// The absolute point in time, `None` for never. A relative deadline becomes absolute here, in place: the first caller reads
    /// the clock, later ones get the same answer.
    pub(crate) fn resolve(&mut self) -> Option<Instant> {
        match self.0 {
            Repr::Never => None,
            Repr::At(instant) => Some(instant),
            Repr::After(duration) => {
                let at = Instant::now().checked_add(duration);
                self.0 = at.map_or(Repr::Never, Repr::At);
                at
            }
        }
    }

    /// The earlier of this deadline and one `limit` from now. Both are absolute from here on.
    pub(crate) fn capped(mut self, limit: Duration) -> Self {
        let own = self.resolve();
        let mut cap = Self::after(limit);
        match (own, cap.resolve()) {
            (Some(own), Some(cap)) => Self::at(own.min(cap)),
            (None, Some(_)) => cap,
            (_, None) => self,
        }
    }
}

impl From<Duration> for Deadline {
    /// [`Deadline::after`].
    fn from(duration: Duration) -> Self {
        Self::after(duration)
    }
}

impl From<Instant> for Deadline {
    /// [`Deadline::at`].
    fn from(instant: Instant) -> Self {
        Self::at(instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_deadline_is_fixed_by_its_first_use() {
        let mut deadline = Deadline::after(Duration::from_secs(7));
        let before = Instant::now();
        let first = deadline.resolve().unwrap();
        assert!(first >= before + Duration::from_secs(7));
        assert_eq!(deadline.resolve(), Some(first));
        let mut copy = deadline;
        assert_eq!(copy.resolve(), Some(first));
    }

    #[test]
    fn an_absolute_deadline_stays_what_it_is() {
        let at = Instant::now();
        assert_eq!(Deadline::from(at).resolve(), Some(at));
        assert_eq!({ Deadline::NEVER }.resolve(), None);
    }

    #[test]
    fn what_is_left_is_compared_with_a_margin() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(100));
        for deadline in
            [Deadline::after(Duration::from_secs(50)), Deadline::at(Instant::now() + Duration::from_secs(50))]
        {
            assert!(deadline.is_beyond(short));
            assert!(!deadline.is_beyond(long));
        }
        assert!(Deadline::NEVER.is_beyond(Duration::MAX));
        assert!(!Deadline::at(Instant::now()).is_beyond(Duration::ZERO));
    }

    #[test]
    fn a_cap_is_the_earlier_of_two() {
        let hour = Duration::from_secs(3600);
        let soon = Instant::now() + Duration::from_secs(1);
        assert_eq!(Deadline::at(soon).capped(hour).resolve(), Some(soon));
        assert_eq!(Deadline::at(soon).capped(Duration::MAX).resolve(), Some(soon));
        let before = Instant::now();
        for patient in [Deadline::NEVER, Deadline::at(before + 2 * hour), Deadline::after(2 * hour)] {
            let capped = patient.capped(hour).resolve().unwrap();
            assert!(capped >= before + hour && capped <= Instant::now() + hour);
        }
        assert_eq!(Deadline::NEVER.capped(Duration::MAX).resolve(), None);
    }

    #[test]
    fn a_duration_past_the_clock_means_never() {
        let mut deadline = Deadline::from(Duration::MAX);
        assert_eq!(deadline.resolve(), None);
        assert_eq!(deadline.resolve(), None);
    }
}
