//! The socket file that a service listens on.
//!
//! ```
//! use flipcall::stream::{Access, Listener};
//!
//! let path = std::env::temp_dir().join(format!("flipcall-listener-{}.sock", std::process::id()));
//! let listener = Listener::bind(&path, Access::Owner)?;
//! let client = std::os::unix::net::UnixStream::connect(&path)?;
//! let accepted = listener.accept(std::time::Duration::from_secs(5))?;
//! drop(listener);
//! assert!(!path.exists());
//! # drop((client, accepted));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, getsockname,
    socket_with,
};

use super::access::Access;
use super::address::{address, is_abstract, resolve};
use super::frame_socket::FrameSocket;
use super::readiness;
use super::socket_file::{SocketFile, begin_listening, cannot_listen, unbound};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::foreign;
use crate::sys::fork::Origin;
use crate::sys::lift::lift;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket::{peer_credentials, set_pass_rights};

/// How long accepting pauses when this process or the system has no descriptor left: the connection stays in the backlog.
const PAUSE: Duration = Duration::from_millis(50);

/// How soon a listener of somebody else's socket, which must not be shut down, notices that it shall end.
const SLICE: Duration = Duration::from_millis(50);

/// A listening unix socket: with a file of its own, with an abstract name, or left to this process by another.
///
/// A file that a dead service left behind is replaced; one that somebody listens on, or that is not a socket, is an error. When the
/// listener is dropped the file is removed, if it is still the one that it made. Both happen under a lock on `PATH.lock`, which stays.
#[derive(Debug)]
pub struct Listener {
    /// What clients sent before they were accepted lies in its queue.
    socket: PeerSocket,
    name: PathBuf,
    /// The file, if this listener made one.
    file: Option<SocketFile>,
    /// Who may connect, where no file's mode says so.
    access: Option<Access>,
    /// Others listen on this socket, too.
    is_shared: bool,
    ends: AtomicBool,
    origin: Origin,
}

impl Listener {
    /// Listens on `path`; `access` says which processes may connect. A relative path counts from the working directory of now.
    ///
    /// The file has its mode when it appears, whatever the umask of the process. No symbolic link in its place is followed, and a failure
    /// leaves nothing behind.
    ///
    /// `@name` is an abstract name, which is in no directory and ends with the listener. Any process of the network namespace can reach it;
    /// whom `access` does not admit is hung up on. A file of that name is `./@name`.
    ///
    /// Connections are accepted with `SO_PASSRIGHTS` off where the kernel has it: nobody sends descriptors before they are wanted.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if no socket can have that name: over 107 bytes, empty, with a byte 0, or that of a directory.
    /// [`ErrorKind::System`], which says why: another process listens on the path, it is not a socket, its lock or a stale socket belongs
    /// to another user.
    pub fn bind(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let name = resolve(path.as_ref())?;
        if is_abstract(&name) {
            let bound = || {
                let socket = unbound()?;
                bind(&socket, &address(&name)?.address)?;
                begin_listening(&socket)?;
                Ok(socket)
            };
            let socket = bound().map_err(cannot_listen(&name, ""))?;
            let mut listener = Self::new(socket, name);
            listener.access = Some(access);
            return Ok(listener);
        }
        let (socket, file) = SocketFile::listen(&name, access.mode())?;
        let mut listener = Self::new(socket, name);
        listener.file = Some(file);
        Ok(listener)
    }

    /// Listens on a socket that listens already: one that a service manager or a privileged parent left to this process (see
    /// [`InheritedFds::take`](crate::process::InheritedFds::take); the first of `LISTEN_FDS` has the number 3). Its file belongs to its
    /// maker and stays when the listener is dropped, and who may connect is its maker's to say. The socket becomes nonblocking, for all
    /// processes that share it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it is no unix stream socket that listens, or [`ErrorKind::System`].
    pub fn from_fd(socket: impl Into<OwnedFd>) -> Result<Self> {
        let socket = socket.into();
        if let Some(what) = not_listening(&socket) {
            return Err(Error::invalid(format!("the descriptor is no listening socket: {what}")));
        }
        let prepared = || {
            let socket = lift(socket)?;
            ioctl_fionbio(&socket, true)?;
            fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
            set_pass_rights(socket.as_fd(), false)?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = prepared().map_err(|error| Error::system("cannot prepare a listening socket", error))?;
        let name = getsockname(&socket).ok().and_then(|name| SocketAddrUnix::try_from(name).ok()).map(name_of);
        let mut listener = Self::new(socket, name.unwrap_or_default());
        listener.is_shared = true;
        Ok(listener)
    }

    fn new(socket: OwnedFd, name: PathBuf) -> Self {
        let (file, access, is_shared, ends) = (None, None, false, AtomicBool::new(false));
        let socket = PeerSocket::new(socket);
        Self { socket, name, file, access, is_shared, ends, origin: Origin::here() }
    }

    /// Waits for a connection. Without a free descriptor it pauses and tries again.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], [`ErrorKind::LocalShutdown`] once somebody shut the socket down, or [`ErrorKind::System`] if accepting
    /// fails for good.
    pub fn accept(&self, deadline: impl Into<Deadline>) -> Result<UnixStream> {
        self.origin.check()?;
        let mut deadline = deadline.into();
        loop {
            match self.try_accept() {
                Ok(connection) => {
                    let lifted = lift(connection).map_err(|error| Error::system("cannot keep a connection", error))?;
                    if let Some(connection) = self.admit(lifted) {
                        return Ok(connection.into());
                    }
                }
                Err(Errno::AGAIN) => self.wait(&mut deadline)?,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    let left = deadline.resolve().map(|until| until.saturating_duration_since(Instant::now()));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(Error::new(
                            ErrorKind::Timeout,
                            "the deadline passed while no file descriptor was left for a connection",
                        ));
                    }
                    // The kernel asks for a descriptor before it looks at the socket.
                    if readiness::has_hung_up(self.socket.as_fd())? {
                        return Err(Error::new(ErrorKind::LocalShutdown, "the listening socket was shut down"));
                    }
                    std::thread::sleep(left.map_or(PAUSE, |left| left.min(PAUSE)));
                }
                Err(errno) => {
                    let what = format!("cannot accept a connection on {}", self.name.display());
                    return Err(Error::system(what, errno));
                }
            }
        }
    }

    /// Waits until somebody may have connected.
    fn wait(&self, deadline: &mut Deadline) -> Result<()> {
        let until = deadline.resolve();
        let slice = self.is_shared.then(|| Instant::now() + SLICE);
        let is_ready = readiness::wait(&self.socket, PollFlags::IN, until.into_iter().chain(slice).min())?;
        if self.ends.load(Ordering::Acquire) || readiness::has_hung_up(self.socket.as_fd())? {
            return Err(Error::new(ErrorKind::LocalShutdown, "the listening socket was shut down"));
        }
        if !is_ready && until.is_some_and(|until| Instant::now() >= until) {
            return Err(readiness::timeout("the deadline passed before anybody connected"));
        }
        Ok(())
    }

    /// The connection, if its process may have one. Whoever may not is hung up on.
    fn admit(&self, connection: OwnedFd) -> Option<OwnedFd> {
        let Some(access) = self.access else { return Some(connection) };
        let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if peer_credentials(connection.as_fd()).is_ok_and(|peer| access.admits((peer.uid, peer.gid), us)) {
            return Some(connection);
        }
        // It may have sent descriptors already, where the kernel cannot forbid it.
        foreign::close([connection]);
        None
    }

    /// While too many descriptors wait for their close, no connection comes that might have to wait there as well.
    fn try_accept(&self) -> Result<OwnedFd, Errno> {
        if foreign::is_full() { Err(Errno::MFILE) } else { accept_with(&self.socket, SocketFlags::CLOEXEC) }
    }

    /// Waits for a connection as [`accept`](Self::accept) does, and takes it for [ours alone](FrameSocket::assume_unshared).
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_frames(&self, deadline: impl Into<Deadline>) -> Result<FrameSocket> {
        self.accept(deadline).map(FrameSocket::from_unshared)
    }

    /// Wakes the thread that accepts, for good: nobody can connect any more. Where a filter refuses that, by a last connection. A socket that
    /// others listen on goes on without this listener.
    pub(crate) fn wake(&self) {
        self.ends.store(true, Ordering::Release);
        if !self.is_shared && rustix::net::shutdown(&self.socket, Shutdown::Both).is_err() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let knock = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
            let to = address(&self.name).map_err(|_| Errno::INVAL);
            let _ = knock.and_then(|knock| connect(&knock, &to?.address));
        }
    }

    /// The absolute path of the socket file, or the abstract name with an `@` in front. Of a socket that was left to this process, what its
    /// maker called it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.name
    }
}

/// What keeps a descriptor from being a listener.
fn not_listening(socket: &OwnedFd) -> Option<&'static str> {
    match socket_domain(socket) {
        Err(_) => return Some("it is no socket"),
        Ok(AddressFamily::UNIX) => {}
        Ok(_) => return Some("it is no unix socket"),
    }
    if !matches!(socket_type(socket), Ok(SocketType::STREAM)) {
        return Some("it is no stream socket");
    }
    if matches!(socket_acceptconn(socket), Ok(true)) { None } else { Some("nobody said that it shall listen") }
}

/// The name of a bound socket.
fn name_of(address: SocketAddrUnix) -> PathBuf {
    match (address.abstract_name(), address.path_bytes()) {
        (Some(name), _) => PathBuf::from(OsStr::from_bytes(&[b"@", name].concat())),
        (None, Some(path)) => PathBuf::from(OsStr::from_bytes(path.strip_suffix(b"\0").unwrap_or(path))),
        (None, None) => PathBuf::new(),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A copy that a forked child has is not the end of its parent's listener.
        if let Some(file) = self.file.as_ref().filter(|_| self.origin.is_here()) {
            file.remove();
        }
    }
}
