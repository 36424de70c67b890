//! The two halves of a channel.

use std::sync::Arc;

use super::owner::Owner;
use super::protocol::control::Reason;
use super::protocol::state::Key;
use super::shared::Inner;
use super::signal::Signal;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};

/// An open channel: one half to send, one to receive, each for a thread of its own.
#[derive(Debug)]
#[must_use = "a channel that is dropped is ended"]
pub struct Channel {
    /// Sends messages.
    pub sender: ChannelSender,
    /// Receives messages.
    pub receiver: ChannelReceiver,
}

impl Channel {
    /// The two halves of the channel that `key` opens.
    pub(super) fn new(mux: &Arc<Owner>, key: Key) -> Self {
        let inner = mux.0.lock();
        // The slot lives until both halves are gone, and they are made here.
        let (readable, writable) = inner
            .slots
            .get(&key)
            .map_or_else(Default::default, |slot| (Arc::clone(&slot.readable), Arc::clone(&slot.writable)));
        let max_frame = inner.table.peer_max_frame().unwrap_or(0) as usize;
        let sender = ChannelSender { mux: Arc::clone(mux), key, signal: writable, max_frame };
        let receiver = ChannelReceiver { mux: Arc::clone(mux), key, signal: readable };
        Self { sender, receiver }
    }
}

/// The sending half of a channel. Dropped, it ends its direction.
#[derive(Debug)]
pub struct ChannelSender {
    mux: Arc<Owner>,
    key: Key,
    signal: Arc<Signal>,
    max_frame: usize,
}

impl ChannelSender {
    /// The largest message that the peer takes, in bytes.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.max_frame
    }

    /// Sends a message; waits while the peer has granted no credit for it, or other channels have their turn.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`]: nothing was sent. [`ErrorKind::PeerShutdown`] with an [`Ended`](super::Ended) if the peer gave the
    /// channel or the mux up, [`ErrorKind::InvalidInput`] for a message over [`max_message`](Self::max_message), and the error that ended the mux.
    pub fn send(&mut self, message: &[u8], deadline: impl Into<Deadline>) -> Result<()> {
        if message.len() > self.max_frame {
            return Err(Error::invalid(format!(
                "a message of {} bytes is longer than the peer takes on this mux (limit {})",
                message.len(),
                self.max_frame
            )));
        }
        self.mux.0.send_data(self.key, &self.signal, message, &mut deadline.into())
    }

    /// The error that sending would return now, without sending anything.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn check(&self) -> Result<()> {
        self.mux.0.enter()?.check(self.key)
    }

    /// Ends this direction. The peer receives what was sent before, and then the end.
    pub fn end(self) {}

    /// Gives the whole channel up, both directions.
    pub fn reset(self, reason: Reason) {
        reset(&self.mux, self.key, reason);
    }
}

impl Drop for ChannelSender {
    fn drop(&mut self) {
        let shared = &self.mux.0;
        let Ok(mut inner) = shared.enter() else { return };
        inner.table.end(self.key);
        if let Some(slot) = inner.slots.get_mut(&self.key) {
            slot.sender_gone = true;
        }
        release(&mut inner, self.key);
        shared.flush_or_wake(&mut inner);
    }
}

/// The receiving half of a channel. Dropped while the sender lives, it throws away what comes. Once both are dropped, data that nobody
/// received resets the channel; a peer that has sent none may still end it quietly.
#[derive(Debug)]
pub struct ChannelReceiver {
    mux: Arc<Owner>,
    key: Key,
    signal: Arc<Signal>,
}

impl ChannelReceiver {
    /// Receives the next message, `None` once the peer has ended its direction and all messages were received.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`]; [`ErrorKind::PeerShutdown`] with an [`Ended`](super::Ended) if the peer gave the channel or, after the
    /// last message, the mux up; the error that ended the mux.
    pub fn receive(&mut self, deadline: impl Into<Deadline>) -> Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        Ok(self.receive_into(&mut message, deadline)?.then_some(message))
    }

    /// Receives the next message in exchange for a buffer that is no longer needed: the cheapest way to receive many. `false` as the
    /// `None` of [`receive`](Self::receive).
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_into(&mut self, message: &mut Vec<u8>, deadline: impl Into<Deadline>) -> Result<bool> {
        let (shared, mut deadline) = (&self.mux.0, deadline.into());
        let mut inner = shared.enter()?;
        loop {
            let Some(slot) = inner.slots.get_mut(&self.key) else {
                return Err(Error::new(ErrorKind::LocalShutdown, "this side gave the channel up"));
            };
            if let Some(old) = slot.queue.pop(message) {
                inner.recycle(old);
                inner.table.consume(self.key, message.len());
                if inner.table.has_outgoing() {
                    shared.flush_or_wake(&mut inner);
                }
                return Ok(true);
            }
            if slot.peer_ended {
                return Ok(false);
            }
            inner.check(self.key)?;
            inner = shared.wait(inner, &self.signal, &mut deadline, "the deadline passed before a message came")?;
        }
    }

    /// Waits until the peer has ended its direction, and consumes nothing.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn wait_end(&mut self, deadline: impl Into<Deadline>) -> Result<()> {
        let (shared, mut deadline) = (&self.mux.0, deadline.into());
        let mut inner = shared.enter()?;
        while !inner.slots.get(&self.key).is_some_and(|slot| slot.peer_ended) {
            inner.check(self.key)?;
            inner = shared.wait(
                inner,
                &self.signal,
                &mut deadline,
                "the deadline passed before the peer ended its direction",
            )?;
        }
        Ok(())
    }

    /// Gives the whole channel up, both directions.
    pub fn reset(self, reason: Reason) {
        reset(&self.mux, self.key, reason);
    }
}

impl Drop for ChannelReceiver {
    fn drop(&mut self) {
        let shared = &self.mux.0;
        let Ok(mut inner) = shared.enter() else { return };
        let Some(slot) = inner.slots.get_mut(&self.key) else { return };
        slot.receiver_gone = true;
        let (unread, alone) = (std::mem::take(&mut slot.queue), slot.sender_gone);
        if !unread.is_empty() && alone {
            inner.table.reset(self.key, Reason::CANCELLED);
        }
        inner.throw_away(self.key, unread);
        release(&mut inner, self.key);
        shared.flush_or_wake(&mut inner);
    }
}

/// Forgets a channel that has no handle any more. From now on the first data for it resets it.
fn release(inner: &mut Inner, key: Key) {
    if inner.slots.get(&key).is_some_and(|slot| slot.sender_gone && slot.receiver_gone) {
        inner.slots.remove(&key);
    }
}

fn reset(mux: &Owner, key: Key, reason: Reason) {
    let shared = &mux.0;
    let Ok(mut inner) = shared.enter() else { return };
    inner.table.reset(key, reason);
    inner.fail_channel(key, Error::new(ErrorKind::LocalShutdown, "this side gave the channel up"));
    shared.nudge_leader(&inner);
    shared.flush_or_wake(&mut inner);
}
