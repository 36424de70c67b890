//! Whose turn it is to write to the socket.
//!
//! Frames must not mix, and a program's threads write their own data: no writer thread stands between them and the socket, because a
//! switch to it would cost more than the write. So they wait in a queue for their turn, a frame each, which is what makes channels share
//! the socket fairly. Control frames go out in front of the frame of the thread whose turn it is, or at once if nobody writes. If the
//! socket is full, the reader thread, which is the only one that never waits for a program, writes the rest when there is room; so a
//! sender that has reached its deadline leaves the rest of its frame to it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::protocol::control::Control;
use super::signal::Signal;
use crate::error::Error;
use crate::stream::socket::progress::Progress;

#[derive(Default)]
pub(super) struct WriteQueue {
    /// Somebody is writing without the lock.
    is_writing: bool,
    /// The threads that wait, in order.
    waiting: VecDeque<(u64, Arc<Signal>)>,
    tickets: u64,
    /// Bytes that must go out before anything else, from `rest_at` on.
    rest: Vec<u8>,
    rest_at: usize,
    /// How fast the peer takes `rest`.
    progress: Progress,
    /// Writing failed: the peer does not take anything any more.
    pub(super) broken: Option<Error>,
    /// The goodbye that the thread whose turn it is sends behind its frame, once the mux has ended.
    pub(super) last_words: Vec<u8>,
}

impl WriteQueue {
    fn is_free(&self) -> bool {
        !self.is_writing && self.rest.is_empty()
    }

    /// Whether somebody is writing without the lock.
    pub(super) fn is_writing(&self) -> bool {
        self.is_writing
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
        !self.is_writing && !self.rest.is_empty() && self.broken.is_none()
    }

    /// How fast the peer takes what is left over.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Bytes that were handed over and have not been written.
    pub(super) fn unsent(&self) -> usize {
        self.rest.len() - self.rest_at
    }

    pub(super) fn notify_all(&self) {
        self.waiting.iter().for_each(|(_, signal)| signal.notify());
    }

    /// Joins the queue; `signal` is notified when the turn comes.
    pub(super) fn join(&mut self, signal: &Arc<Signal>) -> u64 {
        self.tickets += 1;
        self.waiting.push_back((self.tickets, Arc::clone(signal)));
        self.tickets
    }

    /// The turn of a caller that is not in the queue: if the queue is empty and nobody writes.
    pub(super) fn begin_at_once(&mut self) -> bool {
        let begins = self.is_free() && self.waiting.is_empty();
        self.is_writing |= begins;
        begins
    }

    /// The turn of the thread that joined with `ticket`: if it has come.
    pub(super) fn begin(&mut self, ticket: u64) -> bool {
        let is_first = self.waiting.front().is_some_and(|(first, _)| *first == ticket);
        if !self.is_free() || !is_first {
            return false;
        }
        self.waiting.pop_front();
        self.is_writing = true;
        true
    }

    /// Gives the place of `ticket` up.
    pub(super) fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|(other, _)| *other != ticket);
        if let Some(next) = self.next() {
            next.notify();
        }
    }

    /// Ends the turn of the thread that wrote.
    pub(super) fn end(&mut self) {
        self.is_writing = false;
    }

    /// Whose turn it is, if nobody writes.
    pub(super) fn next(&self) -> Option<&Arc<Signal>> {
        self.waiting.front().filter(|_| self.is_free()).map(|(_, signal)| signal)
    }

    /// Whether a thread that has the lock may write what is due.
    pub(super) fn may_flush(&self) -> bool {
        !self.is_writing && self.broken.is_none()
    }

    /// What goes out before anything else.
    pub(super) fn rest(&self) -> &[u8] {
        &self.rest[self.rest_at..]
    }

    /// Where new bytes go that are written before anything else. Only while nothing is left.
    pub(super) fn refill(&mut self) -> &mut Vec<u8> {
        &mut self.rest
    }

    /// The socket took `count` bytes of the rest, and is full if some are left.
    pub(super) fn advance(&mut self, count: usize) {
        self.rest_at += count;
        self.progress.advance(count);
        if self.rest_at == self.rest.len() {
            self.rest.clear();
            self.rest_at = 0;
            self.progress.finish();
        } else {
            self.progress.stall();
        }
    }
}
