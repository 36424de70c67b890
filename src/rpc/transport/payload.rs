//! A payload that was received, out of its transport: so the transport can be written to meanwhile.

use std::fmt;
use std::ops::{Deref, Range};

use crate::stream::Attachments;

/// A payload that was received. It goes back to its transport, whose memory it is.
pub(crate) struct Payload {
    pub(super) bytes: Vec<u8>,
    pub(super) range: Range<usize>,
    pub(super) from: Buffer,
}

/// Which buffer of a transport a payload came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffer {
    /// That of datagrams, or of frames on a socket.
    Message,
    /// That of payloads which do not fit the window.
    Long,
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("bytes", &self.range.len()).finish_non_exhaustive()
    }
}

/// A message that was received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) tag: u16,
    pub(crate) fds: Option<Box<Attachments>>,
    pub(crate) payload: Payload,
}
