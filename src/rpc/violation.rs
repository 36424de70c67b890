//! How a peer can break the protocol of calls.

use std::fmt;

use super::wire::RESPONSE;
use crate::{Error, ErrorKind};

/// What rule the peer broke; the source of a [`Violation`](ErrorKind::Violation) error of this layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallViolation {
    /// A datagram is too short for the header of a message, or not as long as its flags say.
    Datagram(u32),
    /// A message in a window has flags that this version does not know, or that its type may not have.
    Flags(u8),
    /// A message announces more descriptors than it may carry, or others than came.
    Descriptors(u8),
    /// A bulk payload is empty, over the maximum, or cut into frames of the wrong size.
    Bulk(u64),
    /// A fragment of a payload is too short, too long, or not the one that is due. The number is the offset in the payload, in bytes, at
    /// which it says that it belongs.
    Fragment(u64),
    /// A message of this type has no place here.
    Unexpected(u16),
    /// A message does not decode, although its sender speaks this protocol.
    Malformed(u16),
    /// A message is over the maximum that was announced to its sender, in bytes.
    TooLarge(u64),
}

impl fmt::Display for CallViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datagram(length) => write!(f, "a datagram of {length} bytes is no message"),
            Self::Flags(flags) => write!(f, "a message has the flags {flags:#04x}"),
            Self::Descriptors(count) => write!(f, "the {count} descriptors of a message are not as announced"),
            Self::Bulk(length) => write!(f, "a bulk payload or frame of {length} bytes"),
            Self::Fragment(offset) => write!(f, "a fragment at byte {offset} of a payload is not the fragment that is due"),
            Self::Unexpected(tag) => write!(f, "a message of type {tag:#06x} has no place here"),
            Self::Malformed(RESPONSE) => {
                f.write_str("the answer does not decode as the type that is expected of this method (do both sides mean the same service?)")
            }
            Self::Malformed(tag) => write!(f, "a message of type {tag:#06x} does not decode"),
            Self::TooLarge(length) => write!(f, "a message of {length} bytes is over the maximum"),
        }
    }
}

impl std::error::Error for CallViolation {}

impl From<CallViolation> for Error {
    #[cold]
    fn from(violation: CallViolation) -> Self {
        Self::caused(ErrorKind::Violation, "the peer broke the protocol of calls", violation)
    }
}
