//! Payloads that do not fit the window: frames of 1 MiB on the socket, after the flip.

use std::time::{Duration, Instant};

use super::WindowLine;
use crate::rpc::Violation;
use crate::rpc::wire::{self, BULK, BULK_FRAME};
use crate::{Deadline, Error, ErrorKind, Result};

/// How long one receive waits before the window is looked at: a peer that shut it down without its socket is noticed.
const SLICE: Duration = Duration::from_millis(100);

impl WindowLine {
    /// Sends `self.bulk`.
    #[cold]
    pub(super) fn send_bulk(&mut self, due: Instant) -> Result<()> {
        let bulk = std::mem::take(&mut self.bulk);
        let deadline = Deadline::at(due);
        let sent = bulk.chunks(BULK_FRAME).try_for_each(|frame| {
            self.look()?;
            self.socket.send(BULK, frame, deadline)
        });
        self.bulk = bulk;
        sent
    }

    /// Receives a payload of `length` bytes, at most `maximum`, until `due`. Memory grows with the frames that came. If `begun` is
    /// known, the payload begins with what its call had left then, which counts once it is here.
    pub(crate) fn receive_bulk(
        &mut self,
        length: u64,
        maximum: u64,
        due: Option<Instant>,
        begun: Option<Instant>,
    ) -> Result<()> {
        self.came_as_bulk = true;
        if length <= (BULK_FRAME as u64).min(maximum) {
            return self.receive_only_frame(length as usize, due);
        }
        self.bulk.clear();
        self.receive_frames(length, maximum, due, Some(begun))?;
        self.payload = 0..self.bulk.len();
        Ok(())
    }

    /// Reads such a payload and throws it away as it comes.
    pub(crate) fn discard_bulk(&mut self, length: u64, maximum: u64, due: Option<Instant>) -> Result<()> {
        self.receive_frames(length, maximum, due, None)
    }

    /// Receives a payload that is a single frame: it stays in the buffer that the socket brought it in.
    fn receive_only_frame(&mut self, length: usize, due: Option<Instant>) -> Result<()> {
        self.receive_frame(length, due, false)?;
        self.payload = self.socket.exchange(length, &mut self.bulk);
        Ok(())
    }

    /// Receives frames; `keep` is `None` for those to be thrown away.
    fn receive_frames(
        &mut self,
        length: u64,
        maximum: u64,
        mut due: Option<Instant>,
        keep: Option<Option<Instant>>,
    ) -> Result<()> {
        if length > maximum {
            return Err(Violation::TooLarge(length).into());
        }
        let mut left = usize::try_from(length).map_err(|_| Violation::TooLarge(length))?;
        while left > 0 {
            let expected = left.min(BULK_FRAME);
            self.receive_frame(expected, due, keep.is_some())?;
            left -= expected;
            self.kept.needed(self.bulk.len());
            if let (Some(begun), Some(prefix)) = (keep.flatten(), self.bulk.first_chunk()) {
                let call = wire::deadline_from(u64::from_be_bytes(*prefix), begun);
                due = [due, call].into_iter().flatten().min();
            }
        }
        Ok(())
    }

    fn receive_frame(&mut self, expected: usize, due: Option<Instant>, keep: bool) -> Result<()> {
        loop {
            let slice = Instant::now() + SLICE;
            let until = due.map_or(slice, |due| due.min(slice));
            match self.socket.receive(Deadline::at(until)) {
                Ok(Some(frame))
                    if frame.tag == BULK && frame.payload.len() == expected && frame.attachments.is_empty() =>
                {
                    if keep {
                        self.bulk.extend_from_slice(frame.payload);
                    }
                    return Ok(());
                }
                Ok(Some(frame)) if frame.tag == BULK => return Err(Violation::Bulk(frame.payload.len() as u64).into()),
                Ok(Some(frame)) => return Err(Violation::Unexpected(frame.tag).into()),
                Ok(None) => return Err(Error::new(ErrorKind::PeerGone, "the peer closed the socket inside a payload")),
                Err(error) if error.kind() == ErrorKind::Timeout && due.is_none_or(|due| Instant::now() < due) => {
                    self.look()?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// An error once either side shut the window down.
    fn look(&self) -> Result<()> {
        if self.endpoint.is_shut_down() {
            return Err(Error::new(ErrorKind::PeerShutdown, "the window was shut down inside a transfer"));
        }
        Ok(())
    }
}
