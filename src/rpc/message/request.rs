//! What a server makes of a request.

use super::number::{ATTACH, BULK, CONTINUE, END, HELLO, OPEN, RESPONSE};
use super::prefix::TimeLeft;
use crate::rpc::{CallViolation, Code, Status};

/// Whether a request of this type breaks the protocol; every other unknown type is merely unknown.
#[inline]
pub fn is_forbidden(tag: u16) -> bool {
    matches!(tag, RESPONSE..=END | BULK | CONTINUE | ATTACH)
}

/// An error if a request of this type breaks the protocol.
///
/// # Errors
/// The violation.
pub fn check(tag: u16) -> Result<(), CallViolation> {
    if is_forbidden(tag) { Err(CallViolation::Unexpected(tag)) } else { Ok(()) }
}

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee {
    /// A method, if there is one of this type.
    Method,
    /// The connection: it agrees on a version.
    Hello,
    /// The connection: it opens a channel.
    Open,
}

impl Addressee {
    /// What answers a request of this type, on a base connection or on a channel, with version 1 agreed on or not.
    pub fn of(tag: u16, is_base: bool, is_version1: bool) -> Self {
        match tag {
            HELLO if is_base => Self::Hello,
            OPEN if is_base && is_version1 => Self::Open,
            _ => Self::Method,
        }
    }
}

/// The time that a call has left, and what of its request is for the method.
///
/// # Errors
/// The answer to a request of version 1 that is too short for its deadline.
#[inline]
pub fn split(payload: &[u8], is_version1: bool) -> Result<(TimeLeft, &[u8]), Box<Status>> {
    if !is_version1 {
        return Ok((TimeLeft::FOREVER, payload));
    }
    TimeLeft::split(payload).ok_or_else(too_short)
}

#[cold]
fn too_short() -> Box<Status> {
    Status::invalid_argument("the request is too short: it begins with a deadline of 8 bytes").into()
}

/// The answer to a message type that nobody serves.
#[cold]
pub fn unknown(tag: u16) -> Status {
    Status::invalid_argument(format!("unknown message type {tag:#06x}"))
}

/// The answer to descriptors that a method does not take.
#[cold]
pub fn takes_none(tag: u16) -> Status {
    Status::invalid_argument(format!("method {tag:#06x} takes no descriptors"))
}

/// The answer to a request whose descriptors did not reach this process.
#[cold]
pub fn lost_descriptors() -> Status {
    Status::new(Code::NoResource, "the server's process has no descriptors left for those of the request; retry later")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_protocols_own_types_are_forbidden() {
        let forbidden: Vec<u16> = (0..=u16::MAX).filter(|&tag| is_forbidden(tag)).collect();
        assert_eq!(forbidden, [0xFF00, 0xFF01, 0xFF02, 0xFF03, 0xFFF2, 0xFFF3, 0xFFF4]);
        assert!((0..=u16::MAX).all(|tag| check(tag).is_err() == forbidden.contains(&tag)));
    }

    #[test]
    fn hello_and_open_are_calls_of_a_base_connection() {
        for tag in 0..=u16::MAX {
            let of = |is_base, is_version1| Addressee::of(tag, is_base, is_version1);
            let expected = match tag {
                HELLO => [Addressee::Hello, Addressee::Hello, Addressee::Method, Addressee::Method],
                OPEN => [Addressee::Method, Addressee::Open, Addressee::Method, Addressee::Method],
                _ => [Addressee::Method; 4],
            };
            assert_eq!([of(true, false), of(true, true), of(false, false), of(false, true)], expected);
        }
    }

    #[test]
    fn a_request_of_version_1_has_a_deadline() {
        let payload = [0, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(split(&payload, false), Ok((TimeLeft::FOREVER, &payload[..])));
        assert_eq!(split(&payload, true), Ok((TimeLeft::FOREVER, &[9][..])));
        assert_eq!(split(&payload[..7], true).unwrap_err().code, Code::InvalidArgument);
        assert_eq!(split(&[], false), Ok((TimeLeft::FOREVER, &[][..])));
    }
}
