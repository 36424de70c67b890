//! Who may write to the socket.
//!
//! Frames must not mix, and a program's threads write their own data: no writer thread stands between them and the socket, because a
//! switch to it would cost more than the write. So there is one pen, and whoever wants to write waits in a queue for it: a frame
//! each, in turn, which is what makes channels share the socket fairly. Control frames go out in front of the frame of whoever has
//! the pen, or at once if nobody has. If the socket is full, the reader thread, which is the only one that never waits for a program,
//! writes the rest when there is room; so a sender that has reached its deadline leaves the rest of its frame to it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::control::Control;
use super::core::{FRAME_COST, Key};
use super::shared::{Inner, Shared};
use super::wait::Signal;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::frame::header::Header;
use crate::stream::frame::violation::Violation;
use crate::stream::socket::outbox::{PROGRESS_BYTES, try_send, try_send_slices};
use crate::stream::socket::readiness;

#[derive(Default)]
pub(super) struct Pen {
    /// Somebody is writing without the lock.
    held: bool,
    /// Who waits, in order.
    queue: VecDeque<(u64, Arc<Signal>)>,
    tickets: u64,
    /// Bytes that must go out before anything else, from `rest_at` on.
    rest: Vec<u8>,
    rest_at: usize,
    /// Since when `rest` has not moved [`PROGRESS_BYTES`], and what it moved since.
    stalled: Option<(Instant, usize)>,
    /// Writing failed: the peer does not take anything any more.
    pub(super) broken: Option<Error>,
    /// The goodbye that whoever holds the pen sends behind its frame, once the mux has ended.
    pub(super) last_words: Vec<u8>,
}

impl Pen {
    fn is_free(&self) -> bool {
        !self.held && self.rest.is_empty()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether a frame written now would begin behind a whole one.
    pub(super) fn is_between_frames(&self) -> bool {
        self.is_free() && self.broken.is_none()
    }

    /// Queues a last control frame; to be written by a flush.
    pub(super) fn append(&mut self, control: &Control<'_>) {
        control.encode(&mut self.rest);
    }

    /// Whether there is something that the reader thread should write once the socket has room.
    pub(super) fn needs_reader(&self) -> bool {
        !self.held && !self.rest.is_empty() && self.broken.is_none()
    }

    /// Since when the rest has not made the progress that it must.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled.map(|(since, _)| since)
    }

    /// Bytes that were handed over and have not been written.
    pub(super) fn unsent(&self) -> usize {
        self.rest.len() - self.rest_at
    }

    pub(super) fn notify_all(&self) {
        self.queue.iter().for_each(|(_, signal)| signal.notify());
    }

    /// Whose turn it is, if the pen is free.
    fn next(&self) -> Option<&Arc<Signal>> {
        self.queue.front().filter(|_| self.is_free()).map(|(_, signal)| signal)
    }

    fn leave_queue(&mut self, ticket: u64) {
        self.queue.retain(|(other, _)| *other != ticket);
        if let Some(next) = self.next() {
            next.notify();
        }
    }

    /// `count` bytes of the rest went out.
    fn advance(&mut self, count: usize) {
        self.rest_at += count;
        if self.rest_at == self.rest.len() {
            self.rest.clear();
            (self.rest_at, self.stalled) = (0, None);
            return;
        }
        let (since, moved) = self.stalled.unwrap_or_else(|| (Instant::now(), 0));
        let moved = moved + count;
        self.stalled = Some(if moved >= PROGRESS_BYTES { (Instant::now(), 0) } else { (since, moved) });
    }
}

impl Shared {
    /// Writes what is due, without waiting. If something is left, the reader thread has to be told unless it is the caller. Whose turn
    /// with the pen it is now is among the due wakes, which the caller sees to once it has given the lock back.
    pub(super) fn flush(&self, inner: &mut Inner) {
        while !inner.pen.held && inner.pen.broken.is_none() && inner.error.is_none() {
            if inner.pen.rest.is_empty() {
                inner.core.take_outgoing(&mut inner.pen.rest);
                if inner.pen.rest.is_empty() {
                    break;
                }
            }
            match try_send(&self.socket, &inner.pen.rest[inner.pen.rest_at..]) {
                Ok(count) => inner.pen.advance(count),
                Err(Errno::AGAIN) => {
                    inner.pen.advance(0);
                    return;
                }
                Err(errno) => inner.pen.broken = Some(readiness::transfer_error("writing to a mux", errno)),
            }
        }
        inner.due_wakes.extend(inner.pen.next().cloned());
    }

    /// Writes what is due, from a thread that is not the reader's.
    pub(super) fn flush_or_wake(&self, inner: &mut Inner) {
        self.flush(inner);
        std::mem::take(&mut inner.due_wakes).iter().for_each(|signal| signal.notify());
        self.wake_reader_if_needed(inner);
    }

    pub(super) fn wake_reader_if_needed(&self, inner: &Inner) {
        if inner.pen.needs_reader() || inner.pen.broken.is_some() || inner.closing.is_some() {
            self.wake_reader();
        }
    }

    /// Sends a data frame: waits for credit, waits for the pen, writes.
    pub(super) fn send_data(
        &self,
        key: Key,
        signal: &Arc<Signal>,
        payload: &[u8],
        deadline: &mut Deadline,
    ) -> Result<()> {
        let cost = FRAME_COST + payload.len() as u64;
        let mut inner = self.lock();
        loop {
            inner.check(key)?;
            match inner.core.credit(key) {
                None => return Err(Error::new(ErrorKind::LocalShutdown, "this side has ended the channel")),
                Some(credit) if credit >= cost => break,
                Some(_) => inner = self.wait(inner, signal, deadline)?,
            }
        }
        let mut inner = self.take_pen(inner, key, signal, deadline)?;
        let mut control = Vec::new();
        if inner.core.spend(key, payload.len()) {
            inner.core.take_outgoing(&mut control);
            drop(inner);
            let header = Header { tag: key.id, length: payload.len() as u32 }.encode();
            let written = self.write([&control, &header, payload], deadline);
            let mut inner = self.lock();
            let result = self.put_pen_down(&mut inner, written);
            let due = std::mem::take(&mut inner.due_wakes);
            drop(inner);
            due.iter().for_each(|signal| signal.notify());
            return result;
        }
        // The channel failed while this thread waited in the queue.
        self.put_pen_down(&mut inner, Ok(Vec::new()))?;
        self.flush_or_wake(&mut inner);
        inner.check(key)?;
        Err(Error::new(ErrorKind::LocalShutdown, "this side has ended the channel"))
    }

    /// Waits in the queue for the pen.
    fn take_pen<'a>(
        &self,
        mut inner: MutexGuard<'a, Inner>,
        key: Key,
        signal: &Arc<Signal>,
        deadline: &mut Deadline,
    ) -> Result<MutexGuard<'a, Inner>> {
        if !(inner.pen.is_free() && inner.pen.queue.is_empty()) {
            inner.pen.tickets += 1;
            let ticket = inner.pen.tickets;
            inner.pen.queue.push_back((ticket, Arc::clone(signal)));
            loop {
                let is_next = inner.pen.queue.front().is_some_and(|(first, _)| *first == ticket);
                let failed = inner.check(key).and_then(|()| inner.pen.broken.clone().map_or(Ok(()), Err)).err();
                if let Some(error) = failed {
                    inner.pen.leave_queue(ticket);
                    return Err(error);
                }
                if inner.pen.is_free() && is_next {
                    inner.pen.queue.pop_front();
                    break;
                }
                match signal.wait(inner, deadline) {
                    Ok(guard) => inner = guard,
                    Err(mut guard) => {
                        guard.pen.leave_queue(ticket);
                        return Err(readiness::timeout("the deadline passed before a frame could be sent"));
                    }
                }
            }
        }
        if let Some(error) = &inner.pen.broken {
            return Err(error.clone());
        }
        inner.pen.held = true;
        Ok(inner)
    }

    /// Writes `parts`; returns what is left of them at the deadline.
    fn write(&self, parts: [&[u8]; 3], deadline: &mut Deadline) -> Result<Vec<u8>> {
        let mut slices = parts.map(IoSlice::new);
        let mut left = &mut slices[usize::from(parts[0].is_empty())..];
        let mut stalled: Option<Instant> = None;
        let mut moved = 0;
        loop {
            match try_send_slices(&self.socket, left) {
                Ok(count) => {
                    moved += count;
                    IoSlice::advance_slices(&mut left, count);
                    if left.iter().all(|slice| slice.is_empty()) {
                        return Ok(Vec::new());
                    }
                    // It took less than all because it is full: another attempt now would be for nothing.
                }
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(readiness::transfer_error("writing to a mux", errno)),
            }
            if self.failing.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::LocalShutdown, "the mux has ended"));
            }
            if moved >= PROGRESS_BYTES || stalled.is_none() {
                (stalled, moved) = (Some(Instant::now()), 0);
            }
            let cut_off = stalled.and_then(|since| since.checked_add(self.patience));
            let caller = deadline.resolve();
            let until = [cut_off, caller].into_iter().flatten().min();
            if readiness::wait(&self.socket, PollFlags::OUT | PollFlags::RDHUP, until)? {
                continue;
            }
            if caller.is_none() || until != caller {
                return Err(Violation::WriteTooSlow.into());
            }
            return Ok(left.iter().flat_map(|slice| slice.iter().copied()).collect());
        }
    }

    /// Gives the pen back. `written`: what is left to write, for the reader thread.
    fn put_pen_down(&self, inner: &mut Inner, written: Result<Vec<u8>>) -> Result<()> {
        inner.pen.held = false;
        if let Some(error) = inner.error.clone() {
            if written.as_ref().is_ok_and(|rest| rest.is_empty()) {
                self.say_goodbye(&inner.pen.last_words);
            }
            self.hang_up();
            return written.map(|_| ()).map_err(|_| error);
        }
        match written {
            Ok(rest) => {
                inner.pen.rest = rest;
                self.flush(inner);
                self.wake_reader_if_needed(inner);
                Ok(())
            }
            Err(error) => {
                inner.pen.broken.get_or_insert(error.clone());
                inner.pen.notify_all();
                self.wake_reader();
                Err(error)
            }
        }
    }
}
