//! The process at the other end.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::sys::socket::{peer_credentials, peer_pidfd};

/// The identity of the process that connected, as the kernel recorded it at that moment.
///
/// On a socket pair it names the process that created the pair, on both ends: a spawned helper is known by its spawn, not by this.
#[derive(Debug)]
#[doc(alias = "SO_PEERCRED")]
#[doc(alias = "ucred")]
#[non_exhaustive]
pub struct Peer {
    /// Process id in our pid namespace; 0 if the process is not visible from it.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// A handle that becomes readable when the process ends, and that no later process with the same id inherits; `None` before
    /// Linux 6.5, and where the process is gone already.
    pub pidfd: Option<OwnedFd>,
}

impl Peer {
    /// Asks the kernel about the other end of a unix socket.
    ///
    /// # Errors
    /// [`ErrorKind::System`](crate::ErrorKind::System) if this is not a unix socket.
    pub fn of(socket: impl AsFd) -> Result<Self> {
        let socket = socket.as_fd();
        let credentials = peer_credentials(socket)
            .map_err(|error| Error::system("cannot ask who is at the other end of a socket", error))?;
        let pidfd = peer_pidfd(socket)
            .map_err(|error| Error::system("cannot get a pidfd of the process at the other end of a socket", error))?;
        Ok(Self { pid: u32::try_from(credentials.pid).unwrap_or(0), uid: credentials.uid, gid: credentials.gid, pidfd })
    }
}
