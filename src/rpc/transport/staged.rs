//! What becomes of a message that is encoded into a window.

use crate::rpc::message::head::WindowHead;
use crate::rpc::message::outgoing::TooLarge;

/// A message that lies in the window, all of it, ready to be flipped.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Staged {
    /// Bytes of the datagram.
    pub(super) datagram: u32,
}

/// Why a message does not lie in the window.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unstaged {
    /// It is larger than its receiver takes.
    TooLarge(TooLarge),
    /// It does not fit the window, but may go there in fragments, or over the socket.
    Long(Long),
}

/// A message that does not fit the window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Long {
    pub(super) head: WindowHead,
    /// Bytes of its payload.
    pub(super) length: u64,
}
