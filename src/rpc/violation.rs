//! How a peer can break the protocol of calls.

use std::fmt;

use super::message::number::RESPONSE;
use crate::error::{Error, ErrorKind};

/// What rule the peer broke; the source of a [`Violation`](ErrorKind::Violation) error of this layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallViolation {
    /// A datagram of so many bytes is too short for the header of a message, or not as long as its flags say.
    Datagram(u32),
    /// A message in a window has flags that this version does not know, or that its type may not have.
    Flags(u8),
    /// A message announces so many descriptors: more than it may carry, or others than came.
    Descriptors(u8),
    /// A bulk payload or frame of so many bytes is empty, over the maximum, or of another size than is due.
    Bulk(u64),
    /// A fragment of a payload is too short, too long, or not the one that is due. The number is the offset in the payload, in bytes, at
    /// which it says that it belongs.
    Fragment(u64),
    /// A message of this type has no place here.
    Unexpected(u16),
    /// A message of this type does not decode, although its sender speaks this protocol.
    Malformed(u16),
    /// A message of so many bytes is over the maximum that was announced to its sender.
    TooLarge(u64),
}

impl fmt::Display for CallViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datagram(length) => {
                write!(f, "a datagram of {length} bytes is too short for a message, or not as long as its header says")
            }
            Self::Flags(flags) => {
                write!(f, "a message has the flags {flags:#04x}, which are unknown or not for its type")
            }
            Self::Descriptors(count) => {
                write!(f, "a message announced {count} descriptors, which are too many here or are not those that came")
            }
            Self::Bulk(length) => {
                write!(f, "a bulk payload or frame has {length} bytes, which is not a size that is due")
            }
            Self::Fragment(offset) => {
                write!(f, "a fragment at byte {offset} of a payload is not the fragment that is due")
            }
            Self::Unexpected(tag) => write!(f, "a message of type {tag:#06x} came where that type has no place"),
            Self::Malformed(RESPONSE) => f.write_str(
                "the answer does not decode as the type that this method returns: do both sides mean the same service?",
            ),
            Self::Malformed(tag) => write!(f, "a message of type {tag:#06x} does not decode"),
            Self::TooLarge(length) => {
                write!(f, "a message of {length} bytes is larger than the maximum that its sender was told")
            }
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
