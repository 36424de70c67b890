//! A message to be sent.

use std::fmt;

use super::head::WindowHead;
use super::number::WINDOW_HEAD;
use super::prefix::Prefix;
use crate::rpc::codec::{Encode, Encoder, Sink};
use crate::rpc::{Code, Status};

/// A message to be sent: what it is, and a value that is encoded where the message leaves.
pub struct Outgoing<'a, T: ?Sized = dyn Encode + 'a> {
    /// The message's type.
    pub tag: u16,
    /// What stands in front of the value.
    pub prefix: Prefix,
    /// The value.
    pub value: &'a T,
    /// Descriptors that go with it.
    pub fds: u8,
}

impl<T: Encode + ?Sized> Outgoing<'_, T> {
    /// Writes prefix and value; their length in bytes, `None` if some length was over 32 bits.
    #[inline]
    pub(crate) fn encode_to(&self, sink: &mut dyn Sink) -> Option<u64> {
        let mut encoder = Encoder::new(sink);
        self.encode(&mut encoder);
        encoder.finish()
    }

    /// The message for code that does not know the type of its value.
    pub(crate) fn erased(&self) -> Outgoing<'_> {
        Outgoing { tag: self.tag, prefix: self.prefix, value: &self.value, fds: self.fds }
    }

    /// What stands in front of it in a window if nothing of it is elsewhere.
    #[inline(always)]
    pub(crate) fn head(&self) -> WindowHead {
        WindowHead { tag: self.tag, fds: self.fds, flags: 0 }
    }

    #[inline(always)]
    pub(crate) fn encode(&self, encoder: &mut Encoder<'_>) {
        self.prefix.encode(encoder);
        self.value.encode(encoder);
    }
}

impl<T: ?Sized> fmt::Debug for Outgoing<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, prefix, fds, .. } = self;
        f.debug_struct("Outgoing").field("tag", tag).field("prefix", prefix).field("fds", fds).finish_non_exhaustive()
    }
}

/// A message is larger than its receiver accepts. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// A value was encoded twice, and the second time wrote more or fewer bytes than the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uneven;

/// The most payload bytes of a message that fits a window of this capacity whole.
#[inline]
pub fn room(capacity: u32) -> u32 {
    capacity - WINDOW_HEAD as u32
}

/// An error as it can be sent: one that does not fit its receiver is sent without its texts.
pub fn fitting(status: Status, maximum: u64) -> Status {
    // A code and three lengths.
    const FIXED: usize = 13;
    let length = FIXED + status.message.len() + status.op.len() + status.path.len();
    if length as u64 <= maximum { status } else { Status::new(Code::TooLarge, "") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::codec::to_bytes;

    #[test]
    fn an_error_that_does_not_fit_loses_its_texts_and_nothing_else_does() {
        let status = Status::new(Code::Io, "no such file").op("open").path("/a");
        let length = to_bytes(&status).len() as u64;
        assert_eq!(fitting(status.clone(), length), status);
        let cut = fitting(status, length - 1);
        assert_eq!(cut, Status::new(Code::TooLarge, ""));
        assert_eq!(to_bytes(&cut).len(), 13);
    }

    #[test]
    fn a_message_does_not_show_its_value() {
        let message = Outgoing { tag: 7, prefix: Prefix::None, value: "SECRET", fds: 0 };
        assert!(!format!("{message:?}").contains("SECRET"));
    }
}
