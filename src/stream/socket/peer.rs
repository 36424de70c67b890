//! The process at the other end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{SocketAddrUnix, getsockname};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

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
    /// Whether the end of the process is watched, and where the kernel has no pidfd of a peer, one that was opened by number for that. A
    /// number that is used again costs no more than the watch: the process that had it first is gone then.
    watch: Option<Option<OwnedFd>>,
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
        Ok(Self {
            pid: u32::try_from(credentials.pid).unwrap_or(0),
            uid: credentials.uid,
            gid: credentials.gid,
            pidfd,
            watch: None,
        })
    }

    /// Watches the end of the process, if the socket was connected to a name: then it is the client. A socket pair names its maker on both
    /// ends, which need not be the peer.
    pub(crate) fn watched(mut self, socket: impl AsFd) -> Self {
        if is_named(socket) && self.watch.is_none() {
            let process = i32::try_from(self.pid).ok().and_then(Pid::from_raw).filter(|_| self.pidfd.is_none());
            self.watch = Some(process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok()));
        }
        self
    }

    /// What becomes readable when the process ends, if that is [watched](Self::watched) and can be.
    pub(crate) fn process(&self) -> Option<BorrowedFd<'_>> {
        let opened = self.watch.as_ref()?;
        opened.as_ref().or(self.pidfd.as_ref()).map(AsFd::as_fd)
    }
}

/// Whether our end of a connection has a path, or an abstract name.
fn is_named(socket: impl AsFd) -> bool {
    let address = getsockname(socket).ok().and_then(|address| SocketAddrUnix::try_from(address).ok());
    address.is_some_and(|address| address.path_bytes().is_some() || address.abstract_name().is_some())
}
