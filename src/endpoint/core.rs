//! What every state of a connection carries.

use crate::control::{Expect, Side, StateViolation, Stop, Transfer};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::cancel::Cancel;
use crate::sys::mapping::Mapping;
use crate::window::Window;

use super::handle::Shared;
use super::options::Options;
use super::stale::Stale;

/// What is left of a call that was not over at once.
pub(super) enum Left {
    /// Nothing was flipped.
    Everything,
    /// The datagram is out, its answer is not here.
    Answer,
    /// The answer is here and breaks the protocol.
    Broken(StateViolation),
}

/// How a call ended without a datagram.
#[derive(Debug)]
pub(crate) enum Halted {
    /// The peer never saw it.
    Unsent(Error),
    /// The peer has it.
    Unanswered(Error),
}

impl Halted {
    /// Why, where it does not matter what the peer has.
    pub(crate) fn into_error(self) -> Error {
        let (Self::Unsent(error) | Self::Unanswered(error)) = self;
        error
    }
}

/// The connection itself. Dropping it shuts it down, unless the last word was said.
pub(super) struct Core {
    mapping: Mapping,
    pub(super) transfer: Transfer,
    pub(super) shared: Shared,
    pub(super) stale: Stale,
    /// Bytes of the datagram that came with control.
    pub(super) received: u32,
    /// Whether extensions are offered and accepted.
    pub(super) extends: bool,
    /// Set by `send_last`: the peer has yet to take its datagram, which a shutdown would discard.
    pub(super) finished: bool,
    /// What every later call returns.
    poison: Option<Error>,
}

impl Core {
    pub(super) fn new(window: Window, side: Side, options: Options) -> Result<Box<Self>> {
        window.origin().check()?;
        let shared = Shared::new(window);
        let mut transfer = Transfer::new(side, options.policy, shared.cancel.clone(), shared.counters.clone());
        if let Some(watched) = options.watched {
            transfer.watch(watched)?;
        }
        Ok(Box::new(Self {
            mapping: shared.window.mapping().clone(),
            transfer,
            shared,
            stale: Stale::new(options.keep_stale_bytes),
            received: 0,
            extends: !options.base_only,
            finished: false,
            poison: None,
        }))
    }

    #[inline(always)]
    pub(super) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// A call where nothing out of the ordinary happens: flips, and finds the answer before the clock has to be read. Otherwise
    /// says what is left to do, for [`finish_call`](Self::finish_call).
    #[inline(always)]
    pub(super) fn call_at_once(&mut self, length: u32) -> Result<u32, Left> {
        let mapping = &self.mapping;
        let (words, capacity) = (mapping.header(), mapping.capacity());
        // A poisoned connection has its cancel word raised.
        if self.shared.cancel.is_raised() || length > capacity || !self.shared.origin.is_here() {
            return Err(Left::Everything);
        }
        if let Some(end) = self.stale.before_flip(length) {
            self.zero(length, end);
        }
        // A flip that fails here fails again in the slow call, which then says why.
        self.transfer.flip(words, length).map_err(|_| Left::Everything)?;
        if !self.transfer.spin_hot(words) {
            return Err(Left::Answer);
        }
        self.received = self.transfer.take(words, capacity).map_err(Left::Broken)?;
        Ok(self.received)
    }

    /// The rest of a call.
    #[cold]
    #[inline(never)]
    pub(super) fn finish_call(
        &mut self,
        length: u32,
        left: Left,
        expect: Expect,
        deadline: Deadline,
    ) -> Result<u32, Halted> {
        match left {
            Left::Everything => self.flip(length).map_err(Halted::Unsent)?,
            Left::Answer => {}
            Left::Broken(violation) => return Err(Halted::Unanswered(self.fail(Stop::Violation(violation)))),
        }
        self.wait(expect, deadline).map_err(Halted::Unanswered)
    }

    /// Hands over control with a datagram of `length` bytes.
    pub(super) fn flip(&mut self, length: u32) -> Result<()> {
        self.may_flip(length)?;
        if let Some(end) = self.stale.before_flip(length) {
            self.zero(length, end);
        }
        let flipped = self.transfer.flip(self.mapping().header(), length);
        flipped.map_err(|found| self.fail(self.transfer.refused_flip(found)))
    }

    /// Waits for control; returns the length of the datagram that came with it.
    pub(super) fn wait(&mut self, expect: Expect, deadline: Deadline) -> Result<u32> {
        self.shared.origin.check()?;
        let (words, capacity) = (self.mapping.header(), self.mapping.capacity());
        let waited = self.transfer.wait(words, expect, deadline);
        let taken = waited.and_then(|()| self.transfer.take(words, capacity).map_err(Stop::Violation));
        self.received = taken.map_err(|stop| self.fail(stop))?;
        Ok(self.received)
    }

    /// Whether the state word says that no call can succeed any more.
    pub(super) fn is_down(&self) -> bool {
        self.transfer.is_down(self.mapping.header())
    }

    /// The rare reasons for which a flip does not happen. A raised death of the peer is not one: the wait finds out whether the
    /// peer left an answer.
    fn may_flip(&mut self, length: u32) -> Result<()> {
        self.check()?;
        let capacity = self.mapping().capacity();
        if self.shared.cancel.has(Cancel::Shutdown) {
            return Err(self.fail(Stop::LocalShutdown));
        }
        if length > capacity {
            return Err(Error::invalid(format!("a datagram of {length} bytes: the window has room for {capacity}")));
        }
        Ok(())
    }

    #[cold]
    fn zero(&self, start: u32, end: u32) {
        assert!(self.mapping().zero(start, end), "only what lies in the window is ever written");
    }

    /// Whether every call fails from now on, or in this process.
    #[inline(always)]
    pub(super) fn is_unusable(&self) -> bool {
        self.poison.is_some() || !self.shared.origin.is_here()
    }

    /// The error that poisoned the connection, if any, or that of a process that was forked since.
    pub(super) fn check(&self) -> Result<()> {
        self.shared.origin.check()?;
        self.poison.clone().map_or(Ok(()), Err)
    }

    /// Turns the reason for a stop into an error, and into what every later call returns. A deadline leaves the connection as it is.
    #[cold]
    pub(super) fn fail(&mut self, stop: Stop) -> Error {
        let error = match stop {
            Stop::TimedOut => return Error::new(ErrorKind::Timeout, "the peer did not answer by the deadline"),
            Stop::LocalShutdown => Error::new(ErrorKind::LocalShutdown, "the connection was shut down on this side"),
            Stop::PeerShutdown => Error::new(ErrorKind::PeerShutdown, "the peer shut the connection down"),
            Stop::PeerGone => Error::new(ErrorKind::PeerGone, "the peer's process or its end of the socket is gone"),
            Stop::Violation(violation) => Error::caused(ErrorKind::Violation, "the peer broke the protocol", violation),
            Stop::System(errno) => Error::system("cannot wait for the peer: the futex call failed", errno),
        };
        self.poison = Some(error.clone());
        self.received = 0;
        self.shared.cancel.raise(Cancel::Poisoned);
        if matches!(stop, Stop::Violation(_) | Stop::System(_)) {
            self.shared.shut_down();
        }
        error
    }

    /// A violation in a handshake.
    pub(super) fn bad_handshake(&mut self, fault: &'static str) -> Error {
        self.fail(Stop::Violation(StateViolation::Handshake(fault)))
    }

    /// Copies bytes into the datagram.
    #[inline(always)]
    pub(super) fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        if self.is_unusable() || !self.mapping().write(offset, bytes) {
            self.check()?;
            return Err(out_of_range(
                "write",
                bytes.len(),
                offset,
                "the window has room for",
                self.mapping().capacity(),
            ));
        }
        // The write went through, so the end is within the window, whose length is a u32.
        self.stale.wrote(offset + bytes.len() as u32);
        Ok(())
    }

    /// Copies bytes out of the received datagram.
    #[inline(always)]
    pub(super) fn read(&self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        let end = offset as usize + bytes.len();
        if end > self.received as usize || !self.shared.origin.is_here() || !self.mapping().read(offset, bytes) {
            self.check()?;
            return Err(out_of_range("read", bytes.len(), offset, "the datagram has", self.received));
        }
        Ok(())
    }
}

#[cold]
fn out_of_range(what: &str, count: usize, offset: u32, place: &str, limit: u32) -> Error {
    Error::invalid(format!("cannot {what} {count} bytes at offset {offset}: {place} {limit}"))
}

/// What a user can make sense of: errors carry connections, and end up in logs and panics.
impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut core = f.debug_struct("Core");
        core.field("capacity", &self.mapping.capacity())
            .field("received", &self.received)
            .field("poison", &self.poison);
        core.finish_non_exhaustive()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.shut_down();
        }
    }
}
