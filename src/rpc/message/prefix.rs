//! What stands in front of a value: the status byte of a response, or the time that a request has left.

use std::time::{Duration, Instant};

use super::number::{OK, PREFIX};
use crate::rpc::codec::Encoder;

/// What stands in front of a message's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// Nothing: requests of the base protocol, errors, chunks.
    None,
    /// The zero byte of a response.
    Ok,
    /// The nanoseconds that a call has left, 0 for no deadline.
    Left(u64),
}

impl Prefix {
    #[inline(always)]
    pub(crate) fn encode(self, encoder: &mut Encoder<'_>) {
        match self {
            Self::None => {}
            Self::Ok => encoder.u8(OK),
            Self::Left(nanos) => encoder.u64(nanos),
        }
    }
}

/// What a request of version 1 begins with: the time that its call had left when the request came, if it has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft(Option<Duration>);

impl TimeLeft {
    /// A call without a deadline.
    pub const FOREVER: Self = Self(None);

    /// Splits it from a request; `None` if the request is too short.
    #[inline]
    pub fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (prefix, request) = payload.split_first_chunk::<PREFIX>()?;
        let nanos = u64::from_be_bytes(*prefix);
        Some((Self((nanos != 0).then(|| Duration::from_nanos(nanos))), request))
    }

    /// When the call's deadline passes, `None` for never. `began` tells when the request came, and is asked only if there is a deadline.
    #[inline]
    pub fn due(self, began: impl FnOnce() -> Instant) -> Option<Instant> {
        self.0.and_then(|left| began().checked_add(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(prefix: Prefix) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes);
        prefix.encode(&mut encoder);
        encoder.finish().unwrap();
        bytes
    }

    #[test]
    fn what_is_left_arrives() {
        let begin = Instant::now();
        for nanos in [1, 255, 1_000_000_007, 1 << 40] {
            let bytes = [encoded(Prefix::Left(nanos)), b"rest".to_vec()].concat();
            let (left, rest) = TimeLeft::split(&bytes).unwrap();
            assert_eq!((left.due(|| begin), rest), (Some(begin + Duration::from_nanos(nanos)), &b"rest"[..]));
        }
    }

    #[test]
    fn no_deadline_asks_no_clock() {
        let bytes = encoded(Prefix::Left(0));
        let (left, rest) = TimeLeft::split(&bytes).unwrap();
        assert_eq!((left, rest.len()), (TimeLeft::FOREVER, 0));
        assert_eq!(left.due(|| panic!("asked")), None);
        assert!((0..PREFIX).all(|length| TimeLeft::split(&bytes[..length]).is_none()));
    }

    #[test]
    fn an_end_past_the_end_of_time_is_none() {
        let bytes = encoded(Prefix::Left(u64::MAX));
        let (left, _) = TimeLeft::split(&bytes).unwrap();
        // 584 years: whether a clock counts that far is the machine's choice, and not ours to fail on.
        let begin = Instant::now();
        assert!(left.due(|| begin).is_none_or(|due| due > begin));
    }

    #[test]
    fn a_response_begins_with_a_zero_and_nothing_with_nothing() {
        assert_eq!((encoded(Prefix::Ok), encoded(Prefix::None)), (vec![0], Vec::new()));
    }
}
