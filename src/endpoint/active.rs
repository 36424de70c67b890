//! The connection while control is ours.

use super::core::{Core, Halted, Left};
use super::finished::Finished;
use super::handle::ShutdownHandle;
use super::interrupted::Interrupted;
use crate::control::{Counters, Expect};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};

/// A connected end of a window that holds control: it may read the datagram that came with it and write the next one.
///
/// After a fatal error it is poisoned: every later call returns an error of the same kind. Dropping it shuts the connection down.
#[derive(Debug)]
#[doc(alias = "Destroy")]
pub struct Endpoint {
    /// Gone while a call that timed out is waiting for its answer.
    pub(super) core: Option<Box<Core>>,
    capacity: u32,
    handle: ShutdownHandle,
}

impl Endpoint {
    pub(super) fn new(core: Box<Core>) -> Self {
        Self { capacity: core.mapping().capacity(), handle: core.shared.handle(), core: Some(core) }
    }

    /// Flips the datagram that was written, its first `length` bytes, and waits for the next one: returns its length in bytes.
    ///
    /// What was written beyond `length` does not go out, it is zeroed.
    ///
    /// # Errors
    /// - [`Interrupted::TimedOut`] at the deadline. The connection moved into the [`Waiting`] it carries, which gives it back;
    ///   until then every call on this endpoint fails with [`AnswerPending`](ErrorKind::AnswerPending).
    /// - [`Interrupted::Failed`] with [`InvalidInput`](ErrorKind::InvalidInput) if `length` is over the [capacity](Self::capacity):
    ///   nothing happened. With any other kind the connection is gone: a shutdown by either side, a dead peer, a violation.
    #[inline(always)]
    #[doc(alias = "SendRecv")]
    #[doc(alias = "SendRecvFast")]
    pub fn send_recv(&mut self, length: u32, deadline: impl Into<Deadline>) -> Result<u32, Interrupted<Waiting>> {
        match self.call_at_once(length) {
            Ok(length) => Ok(length),
            Err(left) => self.interrupted(length, left, deadline.into()),
        }
    }

    /// The rest of a call that moves the connection out of here if it misses its deadline.
    #[cold]
    #[inline(never)]
    fn interrupted(&mut self, length: u32, left: Left, deadline: Deadline) -> Result<u32, Interrupted<Waiting>> {
        let ended = self.finish_call(length, left, Expect::Answer, deadline);
        ended.map_err(|halted| match (halted.into_error(), self.core.take()) {
            (error, Some(core)) if error.kind() == ErrorKind::Timeout => Interrupted::TimedOut(Waiting { core }),
            (error, core) => {
                self.core = core;
                Interrupted::Failed(error)
            }
        })
    }

    /// The part of a call that is all of it where nothing out of the ordinary happens.
    #[inline(always)]
    fn call_at_once(&mut self, length: u32) -> Result<u32, Left> {
        match &mut self.core {
            Some(core) => core.call_at_once(length),
            None => Err(Left::Everything),
        }
    }

    fn finish_call(&mut self, length: u32, left: Left, expect: Expect, deadline: Deadline) -> Result<u32, Halted> {
        match &mut self.core {
            Some(core) => core.finish_call(length, left, expect, deadline),
            None => Err(Halted::Unsent(self.absent())),
        }
    }

    /// Why there is no connection here: a [`Waiting`] has it, or had it and was dropped.
    #[cold]
    pub(super) fn absent(&self) -> Error {
        match self.handle.is_shut_down() {
            true => Error::new(ErrorKind::LocalShutdown, "the connection was given up after a deadline"),
            false => Error::new(ErrorKind::AnswerPending, "the answer to an earlier call is still pending"),
        }
    }

    /// Flips a last datagram of `length` bytes without waiting for another. The peer can still take it and answer, but nobody will
    /// read the answer.
    ///
    /// # Errors
    /// As [`send_recv`](Self::send_recv), except that there is no deadline to miss, and that an error shuts the connection down, a
    /// wrong length included: the endpoint is consumed. Only [`AnswerPending`](ErrorKind::AnswerPending) leaves it where it is, in the
    /// [`Waiting`] of the call that timed out.
    #[doc(alias = "SendLast")]
    pub fn send_last(mut self, length: u32) -> Result<Finished> {
        let mut core = self.core.take().ok_or_else(|| self.absent())?;
        core.flip(length).map_err(Error::and_the_end)?;
        core.finished = true;
        Ok(Finished { core })
    }

    /// [`send_recv`](Self::send_recv) for a caller that keeps its own account of who holds control: after a deadline the connection
    /// stays here, and [`wait`](Self::wait) goes on. If it had to wait, the deadline is absolute after it.
    #[inline]
    pub(crate) fn call(&mut self, length: u32, deadline: &mut Deadline) -> Result<u32, Halted> {
        match self.call_at_once(length) {
            Ok(length) => Ok(length),
            Err(left) => self.call_slowly(length, left, deadline),
        }
    }

    #[cold]
    #[inline(never)]
    fn call_slowly(&mut self, length: u32, left: Left, deadline: &mut Deadline) -> Result<u32, Halted> {
        deadline.resolve();
        self.finish_call(length, left, Expect::Answer, *deadline)
    }

    /// A [`call`](Self::call) in the midst of a transfer, where the peer is at work and gives control back soon.
    pub(crate) fn call_busy(&mut self, length: u32, deadline: Deadline) -> Result<u32, Halted> {
        self.finish_call(length, Left::Everything, Expect::Progress, deadline)
    }

    /// The first half of a [`call`](Self::call): after it, only [`wait`](Self::wait) and a shutdown make sense.
    pub(crate) fn flip(&mut self, length: u32) -> Result<()> {
        match &mut self.core {
            Some(core) => core.flip(length),
            None => Err(self.absent()),
        }
    }

    /// The second half: the length of the datagram that comes with control. A deadline leaves the connection as it is, and the next
    /// wait goes on.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<u32> {
        match &mut self.core {
            Some(core) => core.wait(Expect::Answer, deadline),
            None => Err(self.absent()),
        }
    }

    /// Whether it is known, without reading the window, that no call can succeed any more.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.core.as_ref().is_none_or(|core| core.shared.cancel.is_raised() || !core.shared.origin.is_here())
    }

    /// Whether the peer has shut the window down.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.core.as_ref().is_none_or(|core| core.is_down())
    }

    /// The most bytes a datagram can have.
    #[doc(alias = "DataCap")]
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Bytes of the datagram that came with control, 0 before the first.
    #[must_use]
    pub fn received(&self) -> u32 {
        self.core.as_ref().map_or(0, |core| core.received)
    }

    /// Copies `bytes.len()` bytes of the received datagram from `offset`.
    ///
    /// The peer can change the window at any time: read each byte once, and validate the copy.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the range does not lie in the received datagram.
    #[inline(always)]
    #[doc(alias = "Data")]
    pub fn read_at(&self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        self.core.as_ref().ok_or_else(|| self.absent())?.read(offset, bytes)
    }

    /// Copies `bytes` into the next datagram at `offset`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the range does not fit the [capacity](Self::capacity).
    #[inline(always)]
    #[doc(alias = "Data")]
    pub fn write_at(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        match &mut self.core {
            Some(core) => core.write(offset, bytes),
            None => Err(self.absent()),
        }
    }

    /// Copies `bytes` to the start of the next datagram and returns their number, ready for [`send_recv`](Self::send_recv).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    #[inline(always)]
    pub fn write_datagram(&mut self, bytes: &[u8]) -> Result<u32> {
        self.write_at(0, bytes)?;
        // What fits a window has a length that is a u32.
        Ok(bytes.len() as u32)
    }

    /// Whether wakes of a peer that is awake are left out: both sides speak extension `park`.
    #[must_use]
    pub fn elides_wakes(&self) -> bool {
        self.core.as_ref().is_some_and(|core| core.transfer.parks())
    }

    /// A handle that shuts the connection down from anywhere.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.handle.clone()
    }

    /// What the endpoint did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.handle.counters()
    }
}

/// A connection whose call timed out. Control is the peer's.
///
/// [`resume`](Self::resume) waits on; dropping it shuts the connection down. Either way an answer that comes then is never taken for that of a
/// later call.
///
/// ```
/// use flipcall::endpoint::{Endpoint, Interrupted};
/// use flipcall::Error;
/// use std::time::Duration;
///
/// /// Waits a little, says so, and waits on. The connection comes back with the answer.
/// fn call(endpoint: &mut Endpoint, length: u32) -> Result<u32, Error> {
///     match endpoint.send_recv(length, Duration::from_millis(100)) {
///         Err(Interrupted::TimedOut(waiting)) => {
///             eprintln!("no answer yet");
///             let (back, length) = waiting.resume(Duration::from_secs(5))?;
///             *endpoint = back;
///             Ok(length)
///         }
///         done => Ok(done?),
///     }
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping it shuts the connection down"]
pub struct Waiting {
    core: Box<Core>,
}

impl Waiting {
    /// Waits on for the answer: returns the connection and the length of the datagram in bytes.
    ///
    /// # Errors
    /// As [`Endpoint::send_recv`].
    pub fn resume(mut self, deadline: impl Into<Deadline>) -> Result<(Endpoint, u32), Interrupted<Self>> {
        match self.core.wait(Expect::Answer, deadline.into()) {
            Ok(length) => Ok((Endpoint::new(self.core), length)),
            Err(error) => Err(Interrupted::by(error, self)),
        }
    }

    /// A handle that ends the wait from anywhere.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.core.shared.handle()
    }
}
