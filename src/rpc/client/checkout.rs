//! Checking a channel out for a call when the thread's preferred one is not there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, TryLockError};
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::failure::Failure;
use super::open;
use super::pool::{Found, Slot};
use super::quarantine;
use super::session::Session;
use super::shared::Shared;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::message::number::{HANDSHAKE, OPEN};
use crate::rpc::{CallError, trace};
use crate::stream::FrameSocket;
use crate::sys::lock::lock;

/// A channel that one call has for itself.
pub(super) enum Checkout<'a> {
    /// In its slot of the pool.
    Slot(Slot<'a>),
    /// Out of the pool: the base connection, or a channel that has no slot.
    Own(Box<Channel>),
}

impl Checkout<'_> {
    pub(super) fn channel(&mut self) -> Option<&mut Channel> {
        match self {
            Self::Slot(slot) => slot.as_deref_mut(),
            Self::Own(channel) => Some(channel),
        }
    }

    /// The channel, out of its slot.
    pub(super) fn into_channel(self) -> Option<Box<Channel>> {
        match self {
            Self::Slot(mut slot) => slot.take(),
            Self::Own(channel) => Some(channel),
        }
    }
}

/// How long a client does not ask for more channels after the server had none.
const FULL_FOR: Duration = Duration::from_secs(1);

/// How long the answer to an OPEN that timed out is waited for before the connection is closed.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

impl Shared {
    /// Finds an idle channel, opens one, or waits for one.
    ///
    /// # Errors
    /// The call was not sent.
    pub(super) fn check_out(self: &Arc<Self>, deadline: Deadline) -> Result<Checkout<'_>, CallError> {
        let mut deadline = deadline;
        let until = deadline.resolve();
        loop {
            match self.pool.find() {
                Found::Idle(slot) => return Ok(Checkout::Slot(slot)),
                Found::Empty(slot) => {
                    if let Some(checkout) = self.grow(slot, deadline)? {
                        return Ok(checkout);
                    }
                }
                Found::Busy => {}
            }
            if !self.pool.wait(until) {
                let channels = self.config.channels;
                let what = format!("no channel was free by the deadline (limit {channels}, `ClientConfig::channels`)");
                return Err(Error::new(ErrorKind::Timeout, what).into());
            }
        }
    }

    /// Opens a channel in an empty slot. `None`: not now, something else may get free.
    fn grow<'a>(
        self: &'a Arc<Self>,
        mut slot: Slot<'a>,
        deadline: Deadline,
    ) -> Result<Option<Checkout<'a>>, CallError> {
        let Some(session) = self.session(deadline)? else { return Ok(None) };
        let Some(mut base) = Channel::of_base(&session) else { return Ok(None) };
        if !session.agreement.is_version1() {
            return Ok(Some(Checkout::Own(base)));
        }
        if self.is_full() {
            drop(slot);
            return Ok(self.without_more(base));
        }
        match self.open(&mut base, deadline) {
            Ok(channel) => {
                self.give_back(base);
                *slot = Some(channel);
                Ok(Some(Checkout::Slot(slot)))
            }
            Err(Failure::Call(error)) if open::is_full(&error) => {
                drop(slot);
                *lock(&self.full_until) = Instant::now().checked_add(FULL_FOR);
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
            Err(Failure::TimedOut) => {
                quarantine::set_aside(self, base, OPEN, OPEN_PATIENCE);
                Err(Error::new(ErrorKind::Timeout, "no channel was opened by the deadline").into())
            }
        }
    }

    /// Opens a channel: with a window, or without one where none can be had.
    fn open(&self, base: &mut Channel, deadline: Deadline) -> Result<Box<Channel>, Failure> {
        let mut tries = 0;
        loop {
            let window = self.window.load(Ordering::Relaxed);
            match open::open(base, window, &self.config, deadline) {
                Ok(channel) => {
                    self.counters.channels_opened.fetch_add(1, Ordering::Relaxed);
                    return Ok(channel);
                }
                Err(Failure::Call(error)) if open::is_full(&error) && tries < open::RETRIES => {
                    tries += 1;
                    std::thread::sleep(open::RETRY_PAUSE);
                }
                Err(Failure::Call(CallError::Failed(error))) if window > 0 && error.kind() != ErrorKind::Timeout => {
                    // The channel came and its window cannot be used here: no further one will be any better.
                    trace::fell_back(&error);
                    self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
                    self.window.store(0, Ordering::Relaxed);
                }
                Err(Failure::Call(CallError::Failed(error)))
                    if error.kind() == ErrorKind::System && tries < open::RETRIES =>
                {
                    // The descriptors of the channel before, which were too many, may still be on their way out: they are closed on
                    // another thread.
                    tries += 1;
                    std::thread::sleep(open::RETRY_PAUSE);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// No further channel can be had: one of the others gets free, or, if there is none at all, the base connection has to do.
    fn without_more(&self, base: Box<Channel>) -> Option<Checkout<'_>> {
        if !self.pool.has_channels() {
            return Some(Checkout::Own(base));
        }
        self.give_back(base);
        None
    }

    fn is_full(&self) -> bool {
        lock(&self.full_until).is_some_and(|until| Instant::now() < until)
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
            return Err(self.gone());
        };
        let until = deadline.capped(HANDSHAKE);
        let socket = FrameSocket::connect_resolved(path, until)?;
        *current = Session::begin(socket, &self.config, until)?;
        self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
        *lock(&self.full_until) = None;
        Ok(Some(Arc::clone(&current)))
    }

    /// The connection is gone, and is not made anew.
    #[cold]
    fn gone(&self) -> CallError {
        let what = match &self.path {
            Some(path) => format!("the connection to the server at {} is gone", path.display()),
            None => "the connection to the server is gone".to_owned(),
        };
        Error::new(ErrorKind::PeerGone, what).into()
    }

    /// Returns a channel that is in order.
    pub(super) fn return_channel(&self, checkout: Checkout<'_>) {
        match checkout {
            Checkout::Own(channel) => self.give_back(channel),
            Checkout::Slot(slot) => {
                drop(slot);
                self.pool.released();
            }
        }
    }

    /// Drops a channel that is over.
    pub(super) fn discard(&self, checkout: Checkout<'_>, error: &Error) {
        trace::poisoned(error);
        if let Some(channel) = checkout.into_channel() {
            channel.shut_down();
        }
        self.pool.released();
    }
}
