//! Frames from the socket of a mux, long payloads straight into the buffer that a channel's queue keeps.

use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::payload::{DIRECT, Payload};
use crate::error::Result;
use crate::stream::frame::decoder;
use crate::stream::frame::decoder::FrameDecoder;
use crate::stream::frame::header::Header;
use crate::stream::frame::violation::FrameViolation;
use crate::stream::socket::attachments::{close_hangs, exhausted};
use crate::stream::socket::readiness;
use crate::sys::foreign::Account;
use crate::sys::receive::{ReceiveError, receive};

/// How much of a payload is received before its buffer may grow beyond it: memory follows the bytes that came.
const FIRST_ROOM: usize = 64 * 1024;

/// A long frame on its way in.
struct Partial {
    header: Header,
    payload: Vec<u8>,
    filled: usize,
}

/// What one attempt to receive brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The socket may have more.
    More,
    /// The socket had no more than this.
    Drained,
    /// The socket had nothing.
    Nothing,
    /// The peer sends no more, and between frames that is fine.
    End,
}

pub(super) struct FrameReceiver {
    decoder: FrameDecoder,
    partial: Option<Partial>,
    begun: Option<Instant>,
    /// The last receive took all there was and left a frame unfinished: the next one would find nothing.
    dry: bool,
    patience: Duration,
    /// Closes descriptors, none of which belongs here.
    account: Account,
}

impl FrameReceiver {
    pub(super) fn new(maximum: u32, patience: Duration) -> Self {
        Self {
            decoder: FrameDecoder::new(maximum),
            partial: None,
            begun: None,
            dry: false,
            patience,
            account: Account::default(),
        }
    }

    /// One receive. Descriptors that a peer attaches are closed.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<Received> {
        let received = match &mut self.partial {
            Some(partial) => partial.receive(socket, &mut self.decoder, &self.account),
            None => {
                let space = self.decoder.space();
                let wanted = space.len();
                receive_bytes(socket, &mut [IoSliceMut::new(space)], &self.account).map(|count| {
                    self.decoder.filled(count);
                    (count, wanted)
                })
            }
        };
        let received = match received {
            Ok(received) => Ok(received),
            Err(ReceiveError::Exhausted) => return Err(exhausted()),
            Err(ReceiveError::System(error)) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        self.dry = false;
        match received {
            Ok((0, _)) | Err(Errno::CONNRESET) if self.is_inside_frame() => Err(decoder::end_inside_frame()),
            Ok((0, _)) | Err(Errno::CONNRESET) => Ok(Received::End),
            Ok((count, wanted)) if count == wanted => Ok(Received::More),
            Ok(_) => {
                self.dry = true;
                Ok(Received::Drained)
            }
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(Errno::INTR) => Ok(Received::More),
            Err(errno) => Err(readiness::transfer_error("cannot read from the socket of the mux", errno)),
        }
    }

    /// Hands every whole frame to `take`: a short one borrowed, a long one in the buffer it came in. `spare` lends buffers.
    pub(super) fn frames(
        &mut self,
        mut spare: impl FnMut() -> Option<Vec<u8>>,
        mut take: impl FnMut(u16, Payload<'_>) -> Result<()>,
    ) -> Result<()> {
        if let Some(partial) = self.partial.take_if(|partial| partial.is_whole()) {
            let Partial { header, mut payload, filled } = partial;
            payload.truncate(filled);
            self.begun = None;
            take(header.tag, Payload::Owned(payload))?;
        }
        if self.partial.is_some() {
            return Ok(());
        }
        while let Some(frame) = self.decoder.next_frame()? {
            self.begun = None;
            take(frame.tag, Payload::Borrowed(frame.payload))?;
        }
        let Some(header) = self.decoder.header()?.filter(|header| header.length as usize >= DIRECT) else {
            return Ok(());
        };
        // What is here is less than the frame, or `next_frame` would have had it: the rest has to come.
        self.decoder.drain(Header::SIZE);
        let mut payload = spare().unwrap_or_default();
        let room = (header.length as usize).min(FIRST_ROOM);
        if payload.len() < room {
            payload.resize(room, 0);
        }
        let mut partial = Partial { header, payload, filled: 0 };
        let here = self.decoder.drain(partial.room());
        partial.payload[..here.len()].copy_from_slice(here);
        partial.filled = here.len();
        self.partial = Some(partial);
        Ok(())
    }

    /// Whether a receive right now would find nothing: worth a sleep first. Says so once.
    pub(super) fn is_dry(&mut self) -> bool {
        std::mem::take(&mut self.dry) && self.is_inside_frame()
    }

    fn is_inside_frame(&self) -> bool {
        self.partial.is_some() || !self.decoder.buffered().is_empty()
    }

    /// When the frame that has begun must be complete. The clock starts with the first question.
    pub(super) fn frame_due(&mut self) -> Option<Instant> {
        if !self.is_inside_frame() {
            self.begun = None;
            return None;
        }
        self.begun.get_or_insert_with(Instant::now).checked_add(self.patience)
    }

    /// An error once a frame takes too long, or closing a descriptor that came does.
    pub(super) fn check(&mut self) -> Result<()> {
        if self.account.is_stuck() {
            return Err(close_hangs());
        }
        match self.frame_due() {
            Some(due) if Instant::now() >= due => Err(FrameViolation::TooSlow.into()),
            _ => Ok(()),
        }
    }
}

/// Receives bytes without waiting, and has the descriptors closed that come with them.
fn receive_bytes(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    account: &Account,
) -> Result<usize, ReceiveError> {
    let mut fds = Vec::new();
    let received = receive(socket, buffers, &mut fds, false)?;
    account.close(fds);
    Ok(received.bytes)
}

impl Partial {
    fn is_whole(&self) -> bool {
        self.filled == self.header.length as usize
    }

    /// How many bytes of the payload may be received next.
    fn room(&self) -> usize {
        (self.header.length as usize).min(self.payload.len()) - self.filled
    }

    /// Receives the rest of the payload, and the next header into the decoder.
    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        decoder: &mut FrameDecoder,
        account: &Account,
    ) -> Result<(usize, usize), ReceiveError> {
        if self.room() == 0 {
            let size = (2 * self.filled).min(self.header.length as usize);
            self.payload.resize(size, 0);
        }
        let room = self.room();
        let is_last = self.filled + room == self.header.length as usize;
        let behind = decoder.space();
        let behind = if is_last { &mut behind[..Header::SIZE] } else { &mut [] };
        let wanted = room + behind.len();
        let mut slices = [IoSliceMut::new(&mut self.payload[self.filled..self.filled + room]), IoSliceMut::new(behind)];
        let count = receive_bytes(socket, &mut slices, account)?;
        self.filled += count.min(room);
        decoder.filled(count.saturating_sub(room));
        Ok((count, wanted))
    }
}
