//! Waiting for a socket, with a deadline, whatever its flags are.
//!
//! A peer that holds a duplicate of our end can switch `O_NONBLOCK` and the timeouts of the socket at any moment. So nothing here
//! relies on them: every transfer passes `MSG_DONTWAIT`, and every wait is a `poll` that knows its deadline.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::poll;

/// Waits until `socket` is ready for one of `events`, has hung up, or failed. `false`: the deadline passed.
pub(in crate::stream) fn wait(socket: impl AsFd, events: PollFlags, until: Option<Instant>) -> Result<bool> {
    poll::wait(socket, events, until).map_err(waiting_failed)
}

/// Waits for any of `fds`; 0: the deadline passed.
pub(in crate::stream) fn wait_any(fds: &mut [PollFd<'_>], until: Option<Instant>) -> Result<usize> {
    poll::wait_any(fds, until).map_err(waiting_failed)
}

#[cold]
fn waiting_failed(error: std::io::Error) -> Error {
    Error::system("cannot wait for the socket: poll failed", error)
}

/// When a wait ends: at the deadline of the caller, or at a limit of ours that comes before it.
#[derive(Debug, Clone, Copy)]
pub(in crate::stream) struct WaitEnd {
    at: Option<Instant>,
    is_deadline: bool,
}

impl WaitEnd {
    /// The earliest of `deadline` and `limits`.
    pub(in crate::stream) fn earliest(
        deadline: &mut Deadline,
        limits: impl IntoIterator<Item = Option<Instant>>,
    ) -> Self {
        let caller = deadline.resolve();
        let at = limits.into_iter().flatten().chain(caller).min();
        Self { at, is_deadline: caller.is_some() && at == caller }
    }

    /// When; `None`: never.
    pub(in crate::stream) fn at(self) -> Option<Instant> {
        self.at
    }

    /// Whether a wait that nothing else ended has reached the deadline of the caller.
    pub(in crate::stream) fn is_deadline(self) -> bool {
        self.is_deadline
    }
}

/// How long a peer on another CPU takes at most for the next piece of a transfer: offering the CPU would cost as much as the wait.
const AT_ONCE: Duration = Duration::from_micros(3);

/// Whether to try a transfer again at once that found nothing to do, instead of sleeping: for `budget` since the first such try.
/// After [`AT_ONCE`] the CPU is offered to the peer in between.
pub(in crate::stream) fn lingers(budget: Duration, since: &mut Option<Instant>) -> bool {
    if budget.is_zero() {
        return false;
    }
    let now = Instant::now();
    match now.duration_since(*since.get_or_insert(now)) {
        idle if idle >= budget => return false,
        idle if idle >= AT_ONCE => std::thread::yield_now(),
        _ => {}
    }
    true
}

/// Whether the other end is gone: both directions are shut down or the socket failed. Does not wait.
pub(in crate::stream) fn has_hung_up(socket: BorrowedFd<'_>) -> Result<bool> {
    let state = poll::now(socket, PollFlags::empty()).map_err(waiting_failed)?;
    Ok(state.intersects(PollFlags::HUP | PollFlags::ERR))
}

/// How long one receive or send may wait in the kernel on a socket that is ours alone (its `SO_RCVTIMEO` and `SO_SNDTIMEO`): how often
/// such a wait checks everything that could end it.
pub(in crate::stream) const SLICE: Duration = Duration::from_millis(100);

/// A deadline at least this far off allows a transfer to wait some slices in the kernel without checking it.
pub(in crate::stream) const FAR: Duration = Duration::from_secs(3);

/// The deadline passed before anything was transferred.
#[cold]
pub(in crate::stream) fn timeout(what: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, what)
}

/// What a failed transfer says about the peer: a broken connection is the peer's end, anything else the system's.
#[cold]
pub(in crate::stream) fn transfer_error(what: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNABORTED => {
            Error::caused(ErrorKind::PeerGone, "the peer closed the socket", std::io::Error::from(errno))
        }
        _ => Error::system(what, errno),
    }
}
