//! When a transfer of a payload that does not fit the window has to be over.

use std::time::{Duration, Instant};

use super::number::TRANSFER;
use super::prefix::TimeLeft;

/// When a transfer has to be over: 30 s after its flip at the latest, or what a server is configured for, and by the deadline of its call, which a server learns from the
/// first bytes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferDue {
    at: Instant,
    /// When the request came, until the time that its call has left is known.
    request_came: Option<Instant>,
}

impl TransferDue {
    /// A client's transfer, in either direction, that begins `now` in a call with this deadline.
    pub fn of_call(now: Instant, deadline: Option<Instant>) -> Self {
        Self::within(TRANSFER, now, deadline)
    }

    /// A transfer that begins `now`, of a side with this patience, in a call with this deadline.
    pub fn within(patience: Duration, now: Instant, deadline: Option<Instant>) -> Self {
        let patience = now + patience;
        Self { at: deadline.map_or(patience, |due| due.min(patience)), request_came: None }
    }

    /// A server's transfer of a request that came `now`.
    pub fn of_request(patience: Duration, now: Instant) -> Self {
        Self { at: now + patience, request_came: Some(now) }
    }

    /// The first bytes of the payload are here, as many as came so far.
    pub fn learn(&mut self, payload: &[u8]) {
        if let (Some(came), Some((left, _))) = (self.request_came, TimeLeft::split(payload)) {
            self.request_came = None;
            self.at = left.due(|| came).map_or(self.at, |due| due.min(self.at));
        }
    }

    /// When it has to be over.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Whether it is late.
    pub fn is_past(&self, now: Instant) -> bool {
        now >= self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(time: Duration) -> [u8; 8] {
        u64::try_from(time.as_nanos()).unwrap().to_be_bytes()
    }

    #[test]
    fn a_client_knows_its_deadline() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(TransferDue::of_call(now, None).at(), now + TRANSFER);
        assert_eq!(TransferDue::of_call(now, Some(now + second)).at(), now + second);
        assert_eq!(TransferDue::of_call(now, Some(now + 2 * TRANSFER)).at(), now + TRANSFER);
        // What a server answers is no time that a call has left.
        let mut due = TransferDue::of_call(now, None);
        due.learn(&left(second));
        assert_eq!(due.at(), now + TRANSFER);
        assert!(!due.is_past(now) && due.is_past(now + TRANSFER));
    }

    #[test]
    fn a_server_learns_it_once_from_the_first_eight_bytes() {
        let now = Instant::now();
        for (time, expected) in [(1, 1), (29, 29), (30, 30), (31, 30), (0, 30)]
            .map(|(time, due)| (Duration::from_secs(time), Duration::from_secs(due)))
        {
            let mut due = TransferDue::of_request(TRANSFER, now);
            due.learn(&left(time)[..7]);
            assert_eq!(due.at(), now + TRANSFER, "seven bytes say nothing");
            due.learn(&[&left(time)[..], b"more"].concat());
            assert_eq!(due.at(), now + expected);
            due.learn(&left(Duration::from_nanos(1)));
            assert_eq!(due.at(), now + expected, "it is not learnt again");
        }
    }
}
