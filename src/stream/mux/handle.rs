//! What a program holds: the mux, and what a peer offers on it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::channel::Channel;
use super::config::MuxConfig;
use super::frame_receiver::FrameReceiver;
use super::owner::Owner;
use super::protocol::control::{MAX_CONTROL, MAX_TEXT, Reason};
use super::protocol::state::{Key, StateTable};
use super::reader;
use super::shared::{Shared, Slot};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::stream::socket::readiness;
use crate::sys::lift::lift;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket::set_pass_rights;
use crate::sys::socket_kind::check_stream;
use crate::sys::thread;

/// One side of a mux in credit mode. A clone is another handle to this side.
///
/// A program that waits reads the socket itself, for all channels, and a thread of the mux does whenever none waits, so that a channel
/// nobody reads never holds up another. Once the last handle is gone (clones,
/// offers and halves of channels alike) the mux says goodbye, as soon as what was due is out.
#[derive(Clone)]
pub struct Mux(Arc<Owner>);

impl Mux {
    /// Starts a side on a connected stream socket, and says HELLO.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a configuration out of range or a socket that is no stream socket, [`ErrorKind::System`] if no thread or descriptor can be had.
    pub fn new(socket: impl Into<OwnedFd>, config: MuxConfig) -> Result<Self> {
        let socket = PeerSocket::new(socket.into());
        check_stream(socket.as_fd())?;
        socket.set_end_at_drop(true);
        let terms = config.terms()?;
        set_pass_rights(socket.as_fd(), false)
            .map_err(|error| Error::system("cannot forbid descriptors on the socket of a mux", error))?;
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(std::io::Error::from)
                .and_then(lift)
                .map_err(|error| Error::system("cannot make an eventfd for a mux", error))
        };
        let receiver = FrameReceiver::new(terms.max_frame.max(MAX_CONTROL as u32), config.get_patience());
        let shared = Arc::new(Shared::new(
            socket,
            [event()?, event()?],
            config.get_patience(),
            StateTable::new(terms),
            receiver,
        ));
        let (threads, handshake) = (Arc::clone(&shared), config.get_handshake());
        thread::spawn("flipcall-mux", move || reader::run(&threads, handshake))
            .map_err(|error| Error::system("cannot start the reader thread of a mux", error))?;
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
            return Err(Error::invalid(format!("the name of a channel has 1 to {MAX_TEXT} bytes, not {}", name.len())));
        }
        let mut inner = shared.enter()?;
        while inner.table.peer_max_frame().is_none() {
            inner.error.clone().map_or(Ok(()), Err)?;
            inner = shared.wait(
                inner,
                &shared.greeted,
                &mut deadline,
                "the deadline passed before the peer's HELLO came",
            )?;
        }
        inner.error.clone().map_or(Ok(()), Err)?;
        let Some(key) = inner.table.open(name) else {
            return Err(Error::invalid("all channel ids of this side are in use"));
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
                        readiness::timeout("the deadline passed before the peer accepted the channel")
                    }
                },
                Err(error) => error,
            };
            inner.slots.remove(&key);
            inner.table.reset(key, Reason::CANCELLED);
            return Err(failed);
        }
        drop(inner);
        Ok(Channel::new(&self.0, key))
    }

    /// Waits for the peer to offer a channel.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], and the error that ended the mux, even if an offer is left: nothing could come of it any more. A peer
    /// that closed in order is [`ErrorKind::PeerShutdown`] with [`Ended::Goodbye`](super::Ended::Goodbye): the usual end of a loop.
    pub fn accept(&self, deadline: impl Into<Deadline>) -> Result<Offer> {
        let (shared, mut deadline) = (&self.0.0, deadline.into());
        let mut inner = shared.enter()?;
        loop {
            inner.error.clone().map_or(Ok(()), Err)?;
            if let Some((key, name)) = inner.offers.pop_front() {
                drop(inner);
                return Ok(Offer { mux: self.clone(), key, name, answered: false });
            }
            inner = shared.wait(
                inner,
                &shared.offered,
                &mut deadline,
                "the deadline passed before the peer offered a channel",
            )?;
        }
    }

    /// Ends the mux: what is due goes out, then the peer is told goodbye. All handles get [`ErrorKind::LocalShutdown`].
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the peer did not take what was due; the mux goes on trying in the background. The error that had
    /// ended it before.
    pub fn close(&self, reason: Reason, deadline: impl Into<Deadline>) -> Result<()> {
        let (shared, mut deadline) = (&self.0.0, deadline.into());
        let mut inner = shared.enter()?;
        inner.closing.get_or_insert(reason);
        shared.wake_reader();
        loop {
            match &inner.error {
                Some(error) if error.kind() == ErrorKind::LocalShutdown => return Ok(()),
                Some(error) => return Err(error.clone()),
                None => {
                    inner = shared.wait(
                        inner,
                        &shared.ended,
                        &mut deadline,
                        "the deadline passed before the peer took what was due",
                    )?
                }
            }
        }
    }

    /// Why the mux ended, `None` while it lives.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        self.0.0.enter().map_or_else(Some, |inner| inner.error.clone())
    }
}

impl AsFd for Mux {
    /// To ask about the peer, say. The mux reads and writes this socket itself.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.socket.as_fd()
    }
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A channel that the peer wants to open. Dropped, it is refused as cancelled.
#[derive(Debug)]
#[must_use = "an offer that is dropped is refused"]
pub struct Offer {
    mux: Mux,
    key: Key,
    name: String,
    answered: bool,
}

impl Offer {
    /// The name that the peer asks for: 1 to 255 bytes of its choice.
    #[must_use]
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
        let mut inner = shared.enter()?;
        inner.check(self.key)?;
        inner.table.accept(self.key);
        shared.flush_or_wake(&mut inner);
        drop(inner);
        Ok(Channel::new(&self.mux.0, self.key))
    }

    /// Refuses the channel.
    pub fn refuse(mut self, reason: Reason) {
        self.answer_no(reason);
    }

    fn answer_no(&mut self, reason: Reason) {
        self.answered = true;
        let shared = &self.mux.0.0;
        let Ok(mut inner) = shared.enter() else { return };
        inner.slots.remove(&self.key);
        inner.table.refuse(self.key, reason);
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
