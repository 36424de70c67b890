//! What a program holds: the mux, offers, and the two halves of a channel.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use super::config::MuxConfig;
use super::control::{MAX_CONTROL, MAX_TEXT, Reason};
use super::core::{Core, Key};
use super::intake::Intake;
use super::reader;
use super::shared::{Inner, Shared, Slot};
use super::wait::Signal;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::socket::readiness;
use crate::sys::socket::set_pass_rights;

/// One side of a mux in credit mode. Clones are handles to the same side.
///
/// A program that waits reads the socket itself, for all channels, and a thread of the mux does whenever none waits, so that a channel
/// nobody reads never holds up another. Once the last handle is gone (clones,
/// offers and halves of channels alike) the mux says goodbye, as soon as what was due is out.
#[derive(Clone)]
pub struct Mux(Arc<Owner>);

/// Ends the mux when the last handle goes.
pub(super) struct Owner(pub(super) Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.closing.get_or_insert(Reason::CLOSING);
        self.0.wake_reader();
    }
}

impl Mux {
    /// Starts a side on a connected stream socket, and says HELLO.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a configuration out of range, [`ErrorKind::System`] if no thread or descriptor can be had.
    pub fn new(socket: impl Into<OwnedFd>, config: &MuxConfig) -> Result<Self> {
        let socket = socket.into();
        let terms = config.terms()?;
        set_pass_rights(std::os::fd::AsFd::as_fd(&socket), false)
            .map_err(|error| Error::system("forbidding descriptors on a mux", error))?;
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| Error::system("making an eventfd", error))
        };
        let intake = Intake::new(terms.max_frame.max(MAX_CONTROL as u32), config.patience);
        let shared = Arc::new(Shared::new(socket, [event()?, event()?], config.patience, Core::new(terms), intake));
        let (threads, handshake) = (Arc::clone(&shared), config.handshake);
        thread::Builder::new()
            .name("flipcall-mux".into())
            .spawn(move || reader::run(&threads, handshake))
            .map_err(|error| Error::system("starting the reader thread of a mux", error))?;
        Ok(Self(Arc::new(Owner(shared))))
    }

    /// Opens a channel by name and waits until the peer accepts it. At the deadline it is cancelled.
    ///
    /// # Errors
    /// [`ErrorKind::PeerShutdown`] with an [`Ended`](super::Ended) if the peer refuses, [`ErrorKind::InvalidInput`] for a name that is
    /// empty or over 255 bytes, [`ErrorKind::Timeout`], and the error that ended the mux.
    pub fn open(&self, name: &str, deadline: impl Into<Deadline>) -> Result<Channel> {
        let (shared, mut deadline) = (&self.0.0, deadline.into());
        if name.is_empty() || name.len() > MAX_TEXT {
            return Err(Error::invalid(format!("a name has 1 to {MAX_TEXT} bytes, not {}", name.len())));
        }
        let mut inner = shared.lock();
        while inner.core.peer_max_frame().is_none() {
            inner.error.clone().map_or(Ok(()), Err)?;
            inner = shared.wait(inner, &shared.greeted, &mut deadline)?;
        }
        inner.error.clone().map_or(Ok(()), Err)?;
        let Some(key) = inner.core.open(name) else {
            return Err(Error::invalid("all ids of this side are in use"));
        };
        let slot = Slot::default();
        let writable = Arc::clone(&slot.writable);
        inner.slots.insert(key, slot);
        shared.flush_or_wake(&mut inner);
        // An accepted channel is handed out even if the peer has said goodbye since: what it sent before can be received.
        while !inner.slots.get(&key).is_some_and(|slot| slot.accepted) {
            let failed = match inner.check(key) {
                Ok(()) => match shared.wait_until(inner, &writable, &mut deadline) {
                    Ok(guard) => {
                        inner = guard;
                        continue;
                    }
                    Err(guard) => {
                        inner = guard;
                        readiness::timeout("the deadline passed before the channel was accepted")
                    }
                },
                Err(error) => error,
            };
            inner.slots.remove(&key);
            inner.core.reset(key, Reason::CANCELLED);
            return Err(failed);
        }
        drop(inner);
        Ok(self.channel(key))
    }

    /// Waits for the peer to offer a channel.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], and the error that ended the mux, even if an offer is left: nothing could come of it any more. A peer
    /// that closed in order is [`ErrorKind::PeerShutdown`] with [`Ended::Goodbye`](super::Ended::Goodbye): the usual end of a loop.
    pub fn accept(&self, deadline: impl Into<Deadline>) -> Result<Offer> {
        let (shared, mut deadline) = (&self.0.0, deadline.into());
        let mut inner = shared.lock();
        loop {
            inner.error.clone().map_or(Ok(()), Err)?;
            if let Some((key, name)) = inner.offers.pop_front() {
                drop(inner);
                return Ok(Offer { mux: self.clone(), key, name, answered: false });
            }
            inner = shared.wait(inner, &shared.offered, &mut deadline)?;
        }
    }

    /// Ends the mux: what is due goes out, then the peer is told goodbye. All handles get [`ErrorKind::LocalShutdown`].
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the peer did not take what was due; the mux goes on trying in the background. The error that had
    /// ended it before.
    pub fn close(&self, reason: Reason, deadline: impl Into<Deadline>) -> Result<()> {
        let (shared, mut deadline) = (&self.0.0, deadline.into());
        let mut inner = shared.lock();
        inner.closing.get_or_insert(reason);
        shared.wake_reader();
        loop {
            match &inner.error {
                Some(error) if error.kind() == ErrorKind::LocalShutdown => return Ok(()),
                Some(error) => return Err(error.clone()),
                None => inner = shared.wait(inner, &shared.ended, &mut deadline)?,
            }
        }
    }

    /// Why the mux ended, `None` while it lives.
    pub fn error(&self) -> Option<Error> {
        self.0.0.lock().error.clone()
    }

    fn channel(&self, key: Key) -> Channel {
        let inner = self.0.0.lock();
        // The slot lives until both halves are gone, and they are made here.
        let (readable, writable) = inner
            .slots
            .get(&key)
            .map_or_else(Default::default, |slot| (Arc::clone(&slot.readable), Arc::clone(&slot.writable)));
        let max_frame = inner.core.peer_max_frame().unwrap_or(0) as usize;
        let sender = ChannelSender { mux: self.clone(), key, signal: writable, max_frame };
        let receiver = ChannelReceiver { mux: self.clone(), key, signal: readable };
        Channel { sender, receiver }
    }
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mux").field("socket", &self.0.0.socket).finish_non_exhaustive()
    }
}

/// A channel that the peer wants to open. Dropped, it is refused as cancelled.
#[derive(Debug)]
pub struct Offer {
    mux: Mux,
    key: Key,
    name: String,
    answered: bool,
}

impl Offer {
    /// The name that the peer asks for: 1 to 255 bytes of its choice.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Accepts the channel.
    ///
    /// # Errors
    /// The error that ended the mux.
    pub fn accept(mut self) -> Result<Channel> {
        self.answered = true;
        let shared = &self.mux.0.0;
        let mut inner = shared.lock();
        inner.check(self.key)?;
        inner.core.accept(self.key);
        shared.flush_or_wake(&mut inner);
        drop(inner);
        Ok(self.mux.channel(self.key))
    }

    /// Refuses the channel.
    pub fn refuse(mut self, reason: Reason) {
        self.answer_no(reason);
    }

    fn answer_no(&mut self, reason: Reason) {
        self.answered = true;
        let shared = &self.mux.0.0;
        let mut inner = shared.lock();
        inner.slots.remove(&self.key);
        inner.core.refuse(self.key, reason);
        shared.flush_or_wake(&mut inner);
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if !self.answered {
            self.answer_no(Reason::CANCELLED);
        }
    }
}

/// An open channel: one half to send, one to receive, each for a thread of its own.
#[derive(Debug)]
pub struct Channel {
    /// Sends messages.
    pub sender: ChannelSender,
    /// Receives messages.
    pub receiver: ChannelReceiver,
}

/// The sending half of a channel. Dropped, it ends its direction.
#[derive(Debug)]
pub struct ChannelSender {
    mux: Mux,
    key: Key,
    signal: Arc<Signal>,
    max_frame: usize,
}

impl ChannelSender {
    /// The largest message that the peer takes, in bytes.
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
                "a message has at most {} bytes, not {}",
                self.max_frame,
                message.len()
            )));
        }
        self.mux.0.0.send_data(self.key, &self.signal, message, &mut deadline.into())
    }

    /// The error that sending would return now, without sending anything.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn check(&self) -> Result<()> {
        self.mux.0.0.lock().check(self.key)
    }

    /// Ends this direction. What was sent before arrives before it.
    pub fn end(self) {}

    /// Gives the whole channel up, both directions.
    pub fn reset(self, reason: Reason) {
        reset(&self.mux, self.key, reason);
    }
}

impl Drop for ChannelSender {
    fn drop(&mut self) {
        let shared = &self.mux.0.0;
        let mut inner = shared.lock();
        inner.core.end(self.key);
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
    mux: Mux,
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
        let (shared, mut deadline) = (&self.mux.0.0, deadline.into());
        let mut inner = shared.lock();
        loop {
            let Some(slot) = inner.slots.get_mut(&self.key) else {
                return Err(Error::new(ErrorKind::LocalShutdown, "this side has given the channel up"));
            };
            if let Some(old) = slot.queue.pop(message) {
                inner.recycle(old);
                inner.core.consume(self.key, message.len());
                if inner.core.has_outgoing() {
                    shared.flush_or_wake(&mut inner);
                }
                return Ok(true);
            }
            if slot.peer_ended {
                return Ok(false);
            }
            inner.check(self.key)?;
            inner = shared.wait(inner, &self.signal, &mut deadline)?;
        }
    }

    /// Waits until the peer has ended its direction, and consumes nothing.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn wait_end(&mut self, deadline: impl Into<Deadline>) -> Result<()> {
        let (shared, mut deadline) = (&self.mux.0.0, deadline.into());
        let mut inner = shared.lock();
        while !inner.slots.get(&self.key).is_some_and(|slot| slot.peer_ended) {
            inner.check(self.key)?;
            inner = shared.wait(inner, &self.signal, &mut deadline)?;
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
        let shared = &self.mux.0.0;
        let mut inner = shared.lock();
        let Some(slot) = inner.slots.get_mut(&self.key) else { return };
        slot.receiver_gone = true;
        let (unread, alone) = (std::mem::take(&mut slot.queue), slot.sender_gone);
        if !unread.is_empty() && alone {
            inner.core.reset(self.key, Reason::CANCELLED);
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

fn reset(mux: &Mux, key: Key, reason: Reason) {
    let shared = &mux.0.0;
    let mut inner = shared.lock();
    inner.core.reset(key, reason);
    inner.fail_channel(key, Error::new(ErrorKind::LocalShutdown, "this side has given the channel up"));
    shared.nudge_leader(&inner);
    shared.flush_or_wake(&mut inner);
}
