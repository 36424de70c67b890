//! Writing to the socket of a mux, without waiting for a program.

use std::io::IoSlice;
use std::sync::atomic::Ordering;

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::shared::{Inner, Shared};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::violation::FrameViolation;
use crate::stream::socket::outbox::{try_send, try_send_slices};
use crate::stream::socket::progress::Progress;
use crate::stream::socket::readiness::{self, WaitEnd};

impl Shared {
    /// Writes what is due, without waiting. If something is left, the reader thread has to be told unless it is the caller. Whose turn
    /// it is now is among the due wakes, which the caller sees to once it has given the lock back.
    pub(super) fn flush(&self, inner: &mut Inner) {
        while inner.write_queue.may_flush() && inner.error.is_none() {
            if inner.write_queue.rest().is_empty() {
                inner.table.take_outgoing(inner.write_queue.refill());
                if inner.write_queue.rest().is_empty() {
                    break;
                }
            }
            match try_send(&self.socket, inner.write_queue.rest()) {
                Ok(count) => inner.write_queue.advance(count),
                Err(Errno::AGAIN) => {
                    inner.write_queue.advance(0);
                    return;
                }
                Err(errno) => {
                    inner.write_queue.broken =
                        Some(readiness::transfer_error("cannot write to the socket of the mux", errno))
                }
            }
        }
        inner.due_wakes.extend(inner.write_queue.next().cloned());
    }

    /// Writes what is due, from a thread that is not the reader's.
    pub(super) fn flush_or_wake(&self, inner: &mut Inner) {
        self.flush(inner);
        std::mem::take(&mut inner.due_wakes).iter().for_each(|signal| signal.notify());
        self.wake_reader_if_needed(inner);
    }

    pub(super) fn wake_reader_if_needed(&self, inner: &Inner) {
        if inner.write_queue.needs_reader() || inner.write_queue.broken.is_some() || inner.closing.is_some() {
            self.wake_reader();
        }
    }

    /// Writes `slices`; returns what is left of them at the deadline.
    pub(super) fn write(&self, slices: [&[u8]; 3], deadline: &mut Deadline) -> Result<Vec<u8>> {
        let skipped = usize::from(slices[0].is_empty());
        let mut slices = slices.map(IoSlice::new);
        let mut left = &mut slices[skipped..];
        let mut progress = Progress::default();
        loop {
            match try_send_slices(&self.socket, left) {
                Ok(count) => {
                    progress.advance(count);
                    IoSlice::advance_slices(&mut left, count);
                    if left.iter().all(|slice| slice.is_empty()) {
                        return Ok(Vec::new());
                    }
                    // It took less than all because it is full: another attempt now would be for nothing.
                }
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(readiness::transfer_error("cannot write to the socket of the mux", errno)),
            }
            if self.failing.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::LocalShutdown, "the mux has ended"));
            }
            progress.stall();
            let end = WaitEnd::earliest(deadline, [progress.due(self.patience)]);
            if readiness::wait(&self.socket, PollFlags::OUT | PollFlags::RDHUP, end.at())? {
                continue;
            }
            if !end.is_deadline() {
                return Err(FrameViolation::WriteTooSlow.into());
            }
            return Ok(left.iter().flat_map(|slice| slice.iter().copied()).collect());
        }
    }

    /// Ends the turn of the thread that wrote. `written`: what is left to write, for the reader thread.
    pub(super) fn end_turn(&self, inner: &mut Inner, written: Result<Vec<u8>>) -> Result<()> {
        inner.write_queue.end();
        if let Some(error) = inner.error.clone() {
            if written.as_ref().is_ok_and(|rest| rest.is_empty()) {
                self.say_goodbye(&inner.write_queue.last_words);
            }
            self.hang_up();
            return written.map(|_| ()).map_err(|_| error);
        }
        match written {
            Ok(rest) => {
                *inner.write_queue.refill() = rest;
                self.flush(inner);
                self.wake_reader_if_needed(inner);
                Ok(())
            }
            Err(error) => {
                inner.write_queue.broken.get_or_insert(error.clone());
                inner.write_queue.notify_all();
                self.wake_reader();
                Err(error)
            }
        }
    }
}
