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

pub(crate) use super::message::outgoing::{Outgoing, TooLarge};
pub(crate) use super::message::prefix::Prefix;
use crate::stream::Attachments;
use crate::{Error, ErrorKind};

/// Bytes that the buffers of a line may have for good; beyond it they are given back after a message, or [kept](kept) for a while.
const RETAINED: usize = 2 << 20;

/// What is known about a message that came, besides its payload.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) tag: u16,
    pub(crate) fds: Option<Box<Attachments>>,
    /// Bytes of a payload that is yet to be received, 0 if it is here.
    pub(crate) bulk: u64,
}

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
