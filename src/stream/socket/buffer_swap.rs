//! A message is handed over with the buffer that it came in.

use std::ops::Range;

use super::frame_socket::FrameSocket;

impl FrameSocket {
    /// Swaps the buffer that the last message came in for `other`: its payload, of `length` bytes, then lies there in the returned
    /// range.
    pub(crate) fn swap_buffer(&mut self, length: usize, other: &mut Vec<u8>) -> Range<usize> {
        self.inbox.decoder().swap_buffer(length, other)
    }

    /// Releases the buffer that messages come in if it is over `most` bytes: the peer is quiet.
    pub(crate) fn release_buffer(&mut self, most: usize) {
        self.inbox.decoder().release_buffer(most);
    }

    /// Bytes of the buffer that messages come in.
    pub(crate) fn buffer_size(&mut self) -> usize {
        self.inbox.decoder().buffer_size()
    }
}
