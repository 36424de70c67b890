//! One transport of calls: a socket alone, or a window with a socket beside it. Both carry the same messages.

mod arriving;
mod bulk;
mod kept;
mod parts;
mod pieces;
mod socket;
mod window;

use std::os::fd::OwnedFd;
use std::sync::Arc;

pub(crate) use arriving::Short;
pub(crate) use kept::{Budget, QUIET};
pub(crate) use socket::SocketLine;
pub(crate) use window::{Staged, WindowLine};

use super::codec::{Encode, Encoder, Sink};
use super::wire;
use crate::stream::Attachments;
use crate::{Error, ErrorKind};

/// Bytes that the buffers of a line may have for good; beyond it they are given back after a message, or [kept](kept) for a while.
const RETAINED: usize = 2 << 20;

/// What stands in front of a message's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Prefix {
    /// Nothing: requests of the base protocol, errors, chunks.
    None,
    /// The zero byte of a response.
    Ok,
    /// The nanoseconds that a call has left, 0 for no deadline.
    Deadline(u64),
}

impl Prefix {
    #[inline(always)]
    fn encode(self, encoder: &mut Encoder<'_>) {
        match self {
            Self::None => {}
            Self::Ok => encoder.u8(wire::OK),
            Self::Deadline(left) => encoder.u64(left),
        }
    }
}

/// A message to be sent.
pub(crate) struct Outgoing<'a, T: ?Sized = dyn Encode + 'a> {
    pub(crate) tag: u16,
    pub(crate) prefix: Prefix,
    pub(crate) value: &'a T,
    /// Descriptors that go with it.
    pub(crate) fds: u8,
}

impl<T: Encode + ?Sized> Outgoing<'_, T> {
    /// Writes prefix and value; their length in bytes, `None` if some length was over 32 bits.
    #[inline]
    pub(crate) fn encode_to(&self, sink: &mut dyn Sink) -> Option<u64> {
        let mut encoder = Encoder::new(sink);
        self.encode(&mut encoder);
        encoder.finish()
    }

    /// The same for code that does not know the type.
    pub(crate) fn erased(&self) -> Outgoing<'_> {
        Outgoing { tag: self.tag, prefix: self.prefix, value: &self.value, fds: self.fds }
    }

    /// What stands in front of it in a window.
    #[inline(always)]
    fn head(&self, flags: u8) -> [u8; wire::WINDOW_HEADER] {
        let [a, b] = self.tag.to_ne_bytes();
        [a, b, self.fds, flags]
    }

    #[inline(always)]
    fn encode(&self, encoder: &mut Encoder<'_>) {
        self.prefix.encode(encoder);
        self.value.encode(encoder);
    }
}

/// What is known about a message that came, besides its payload.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) tag: u16,
    pub(crate) fds: Option<Box<Attachments>>,
    /// Bytes of a payload that is yet to be received, 0 if it is here.
    pub(crate) bulk: u64,
}

/// A message is larger than its receiver accepts. Nothing was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooLarge;

impl From<TooLarge> for Error {
    fn from(_: TooLarge) -> Self {
        Self::new(
            ErrorKind::InvalidInput,
            "the message is larger than its receiver takes (`max_message` in its configuration)",
        )
    }
}

/// Shuts a line's socket down from anywhere; its other half is the window's own handle.
pub(crate) fn hang_up(socket: &Arc<OwnedFd>) {
    // The only failure is that the connection is over already.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}
