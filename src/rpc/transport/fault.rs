//! How transfers fail, and how a transport is ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::rpc::message::outgoing::{TooLarge, Uneven};
use crate::rpc::message::transfer::TransferDue;
use crate::sys::fork::Origin;
use crate::sys::peer_socket::PeerSocket;

/// How long one transfer over the socket waits before the window is polled: a peer that shut it down without its socket is noticed.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// An error once either side shut the window down.
pub(super) fn check_window(endpoint: &Endpoint) -> Result<()> {
    if endpoint.is_shut_down() {
        return Err(Error::new(
            ErrorKind::PeerShutdown,
            "the window was shut down before all of a payload was through",
        ));
    }
    Ok(())
}

/// An error once a transfer has to be over.
pub(super) fn check_time(due: &TransferDue) -> Result<()> {
    if due.is_past(Instant::now()) { Err(overdue()) } else { Ok(()) }
}

#[cold]
fn overdue() -> Error {
    Error::new(ErrorKind::Timeout, "the deadline passed before all of a payload was through")
}

impl From<Uneven> for Error {
    #[cold]
    fn from(_: Uneven) -> Self {
        Self::invalid("a value was encoded twice and did not write as many bytes the second time")
    }
}

impl From<TooLarge> for Error {
    #[cold]
    fn from(_: TooLarge) -> Self {
        Self::invalid("a message is larger than its receiver takes (`max_message` in its configuration)")
    }
}

/// Ends a transport's socket from anywhere in the process that made it. A window has a handle of its own for that.
pub(crate) fn hang_up(socket: &Arc<PeerSocket>, origin: Origin) {
    if origin.is_here() {
        // The only failure is that the connection is over already.
        let _ = rustix::net::shutdown(&**socket, rustix::net::Shutdown::Both);
    }
}
