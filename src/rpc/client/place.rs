//! Finding a channel for a call when the thread's own is not there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::failure::Failure;
use super::pool::{Found, Slot};
use super::session::{self, Session};
use super::{Shared, late};
use crate::rpc::{CallError, trace, wire};
use crate::stream::FrameSocket;
use crate::{Deadline, Error, ErrorKind, Result};

/// Where a call takes place.
pub(super) enum Place<'a> {
    /// In a slot that holds a channel.
    Slot(Slot<'a>),
    /// On the base connection, or on a channel without a slot.
    Own(Box<Channel>),
}

/// How long a client does not ask for more channels after the server had none.
const FULL_FOR: Duration = Duration::from_secs(1);

/// How long the late answer to an OPEN is waited for before the connection is closed.
const LATE_OPEN: Duration = Duration::from_secs(30);

impl Shared {
    /// Finds an idle channel, opens one, or waits for one.
    ///
    /// # Errors
    /// The call was not sent.
    pub(super) fn acquire(self: &Arc<Self>, deadline: Deadline) -> Result<Place<'_>, CallError> {
        let mut deadline = deadline;
        let until = deadline.resolve();
        loop {
            match self.pool.look() {
                Found::Idle(slot) => return Ok(Place::Slot(slot)),
                Found::Empty(slot) => {
                    if let Some(place) = self.grow(slot, deadline)? {
                        return Ok(place);
                    }
                }
                Found::Busy => {}
            }
            if !self.pool.wait(until) {
                return Err(Error::new(ErrorKind::Timeout, "no channel was free by the deadline").into());
            }
        }
    }

    /// Opens a channel in an empty slot. `None`: not now, something else may get free.
    fn grow<'a>(self: &'a Arc<Self>, mut slot: Slot<'a>, deadline: Deadline) -> Result<Option<Place<'a>>, CallError> {
        let Some(session) = self.session(deadline)? else { return Ok(None) };
        let Some(mut base) = session.take_base() else { return Ok(None) };
        if !session.version1 {
            return Ok(Some(Place::Own(base)));
        }
        if self.is_full() {
            drop(slot);
            return Ok(self.without_more(base));
        }
        match self.open(&mut base, deadline) {
            Ok(channel) => {
                self.give_back(base);
                *slot = Some(channel);
                Ok(Some(Place::Slot(slot)))
            }
            Err(Failure::Call(error)) if session::is_full(&error) => {
                drop(slot);
                *super::locked(&self.full_until) = Instant::now().checked_add(FULL_FOR);
                Ok(self.without_more(base))
            }
            Err(Failure::Call(error)) => {
                self.give_back(base);
                Err(error)
            }
            Err(Failure::Unsent(error) | Failure::Lost(error)) => {
                session.end();
                Err(error.into())
            }
            Err(Failure::Late) => {
                late::set_aside(self, base, wire::OPEN, LATE_OPEN);
                Err(Error::new(ErrorKind::Timeout, "no channel was opened by the deadline").into())
            }
        }
    }

    /// Opens a channel: with a window, or without one where none can be had.
    fn open(&self, base: &mut Channel, deadline: Deadline) -> Result<Box<Channel>, Failure> {
        let mut tries = 0;
        loop {
            let window = self.window.load(Ordering::Relaxed);
            match session::open(base, window, &self.config, deadline) {
                Ok(channel) => {
                    self.counters.channels_opened.fetch_add(1, Ordering::Relaxed);
                    return Ok(channel);
                }
                Err(Failure::Call(error)) if session::is_full(&error) && tries < session::RETRIES => {
                    tries += 1;
                    std::thread::sleep(session::RETRY_PAUSE);
                }
                Err(Failure::Call(CallError::Failed(error))) if window > 0 && error.kind() != ErrorKind::Timeout => {
                    // The channel came and its window cannot be used here: no further one will be any better.
                    trace::fell_back(&error);
                    self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
                    self.window.store(0, Ordering::Relaxed);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// No further channel can be had: one of the others gets free, or, if there is none at all, the base connection has to do.
    fn without_more(&self, base: Box<Channel>) -> Option<Place<'_>> {
        if !self.pool.has_channels() {
            return Some(Place::Own(base));
        }
        self.give_back(base);
        None
    }

    fn is_full(&self) -> bool {
        super::locked(&self.full_until).is_some_and(|until| Instant::now() < until)
    }

    /// The connection, made anew if it is gone and that is wanted. `None`: somebody else is at it.
    fn session(&self, deadline: Deadline) -> Result<Option<Arc<Session>>, CallError> {
        let mut current = match self.session.try_lock() {
            Ok(current) => current,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        if current.is_alive() {
            return Ok(Some(Arc::clone(&current)));
        }
        let Some(path) = self.path.as_ref().filter(|_| self.config.reconnect && !self.is_closed()) else {
            return Err(Error::new(ErrorKind::PeerGone, "the connection to the server is gone").into());
        };
        let mut deadline = deadline;
        let patience = Instant::now() + wire::HANDSHAKE;
        let until = deadline.resolve().map_or(patience, |due| due.min(patience));
        let socket = FrameSocket::connect(path, until)?;
        *current = Session::begin(socket, &self.config, Deadline::at(until))?;
        self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
        *self.full_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(Some(Arc::clone(&current)))
    }
}
