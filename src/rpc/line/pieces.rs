//! A bulk payload on its way out: encoded straight into the socket, in pieces.
//!
//! A long string or slice goes from where the caller has it to the socket; what is short collects until it is a piece. So a payload is
//! not copied together first, and the receiver is at the first piece while the second is sent.

use std::io::IoSlice;
use std::time::Instant;

use super::bulk::{SLICE, encoded_twice, look, overdue};
use crate::endpoint::Endpoint;
use crate::rpc::codec::Sink;
use crate::rpc::wire::{BULK, BULK_FRAME};
use crate::stream::{FrameSocket, Header};
use crate::{Error, Result};

/// Bytes that go to the socket at a time: what the kernel has in one run of pages. A bare socket carries 256 KiB there and back in 23.5 µs
/// so, in 26.4 as a whole, in 30.7 in pieces twice as long and in 37.5 in pieces half as long.
const PIECE: usize = 32 << 10;

/// What is left of a payload goes out with the piece before it if it is no longer than this, which the kernel still has room for.
const TAIL: usize = 2 << 10;

/// Cuts what it takes into bulk frames and sends it.
pub(super) struct Pieces<'a> {
    socket: &'a mut FrameSocket,
    endpoint: &'a Endpoint,
    /// What was taken and is not sent, less than a piece.
    waiting: &'a mut Vec<u8>,
    /// Payload bytes that are still to come.
    left: u64,
    /// Those of them that belong to the frame whose header was sent last.
    frame: usize,
    due: Instant,
    failed: Option<Error>,
}

impl<'a> Pieces<'a> {
    /// A payload of `length` bytes, to be sent by `due`.
    pub(super) fn new(
        socket: &'a mut FrameSocket,
        endpoint: &'a Endpoint,
        waiting: &'a mut Vec<u8>,
        length: u64,
        due: Instant,
    ) -> Self {
        waiting.clear();
        waiting.reserve_exact(PIECE);
        Self { socket, endpoint, waiting, left: length, frame: 0, due, failed: None }
    }

    /// Sends the rest.
    ///
    /// # Errors
    /// Why not all of it was sent. The line has to be shut down.
    pub(super) fn finish(mut self) -> Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.left > 0 {
            return Err(encoded_twice());
        }
        self.send(&[])
    }

    fn check(&self) -> Result<()> {
        if Instant::now() >= self.due {
            return Err(overdue());
        }
        Ok(())
    }

    fn begin_frame(&mut self) -> Result<()> {
        self.check()?;
        if self.left == 0 {
            return Err(encoded_twice());
        }
        self.frame = usize::try_from(self.left).unwrap_or(BULK_FRAME).min(BULK_FRAME);
        self.put(&Header { tag: BULK, length: self.frame as u32 }.encode())
    }

    fn take_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.frame == 0 {
                self.begin_frame()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.frame));
            self.frame -= now.len();
            self.left -= now.len() as u64;
            self.put(now)?;
            bytes = later;
        }
        Ok(())
    }

    /// Sends whole pieces and keeps the rest.
    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.waiting.len() + bytes.len() >= PIECE {
            if self.left == 0 && self.waiting.len() + bytes.len() <= PIECE + TAIL {
                return self.send(bytes);
            }
            let (now, later) = bytes.split_at(PIECE - self.waiting.len());
            self.send(now)?;
            bytes = later;
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what waits, and `bytes` behind it. A peer that shut the window down without its socket is noticed meanwhile.
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut both = [IoSlice::new(self.waiting), IoSlice::new(bytes)];
        let mut slices = &mut both[..];
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let sent = self.socket.send_some(slices, SLICE, self.due)?;
            if sent == 0 {
                look(self.endpoint)?;
                self.check()?;
            }
            IoSlice::advance_slices(&mut slices, sent);
        }
        self.waiting.clear();
        Ok(())
    }
}

impl Sink for Pieces<'_> {
    fn take(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.take_all(bytes).err();
        }
    }
}
