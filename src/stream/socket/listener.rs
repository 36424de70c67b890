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

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with};

use super::access::Access;
use super::frame_socket::FrameSocket;
use super::readiness;
use super::unshared::address;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::foreign;
use crate::sys::fork::Origin;
use crate::sys::lift::lift;
use crate::sys::peer_socket::PeerSocket;
use crate::sys::socket::set_pass_rights;

/// How long accepting pauses when this process or the system has no descriptor left: the connection stays in the backlog.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// How long another process may hold the lock beside the socket file, which it does for a bind or a removal only.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A listening unix socket with a file of its own.
///
/// A file that a dead service left behind is replaced; one that somebody listens on, or that is not a socket, is an error. When the
/// listener is dropped the file is removed, if it is still the one that it made. Both happen under a lock on `PATH.lock`, which stays.
#[derive(Debug)]
pub struct Listener {
    socket: PeerSocket,
    path: PathBuf,
    /// Device and inode of the file that this listener made.
    identity: (u64, u64),
    origin: Origin,
}

impl Listener {
    /// Listens on `path`; `access` says which processes may connect.
    ///
    /// Connections are accepted with `SO_PASSRIGHTS` off where the kernel has it: nobody sends descriptors before they are wanted.
    ///
    /// # Errors
    /// [`ErrorKind::System`], whose source says why: another process listens on the path, it is not a socket, or is over 107 bytes long.
    pub fn bind(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error| Error::system(format!("cannot listen on {}", path.display()), error);
        Self::bind_locked(path, access).map_err(failed)
    }

    fn bind_locked(path: &Path, access: Access) -> io::Result<Self> {
        let _lock = lock(path)?;
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = lift(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)?;
        set_pass_rights(socket.as_fd(), false)?;
        bind(&socket, &address(path)?)?;
        let metadata = fs::symlink_metadata(path)?;
        // Nobody can connect before the permissions are right, because nobody listens yet.
        fs::set_permissions(path, Permissions::from_mode(access.mode()))?;
        listen(&socket, BACKLOG)?;
        // What clients sent before they were accepted lies in its queue.
        let socket = PeerSocket::new(socket);
        Ok(Self { socket, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()), origin: Origin::here() })
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
                    let lifted = lift(connection).map_err(|error| Error::system("cannot keep a connection", error));
                    return Ok(lifted?.into());
                }
                Err(Errno::AGAIN) => {
                    if !readiness::wait(&self.socket, PollFlags::IN, deadline.resolve())? {
                        return Err(readiness::timeout("the deadline passed before anybody connected"));
                    }
                    if readiness::has_hung_up(self.socket.as_fd())? {
                        return Err(Error::new(ErrorKind::LocalShutdown, "the listening socket was shut down"));
                    }
                }
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
                    let what = format!("cannot accept a connection on {}", self.path.display());
                    return Err(Error::system(what, errno));
                }
            }
        }
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

    /// Wakes the thread that accepts, for good: nobody can connect any more. Where a filter refuses that, by a last connection.
    pub(crate) fn wake(&self) {
        if rustix::net::shutdown(&self.socket, Shutdown::Both).is_err() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let knock = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
            let _ = knock.and_then(|knock| connect(&knock, &address(&self.path).map_err(|_| Errno::INVAL)?));
        }
    }

    /// The path of the socket file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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
        if !self.origin.is_here() {
            return;
        }
        let Ok(_lock) = lock(&self.path) else { return };
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours {
            // What cannot be removed is found stale by the next service.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes the lock beside `path`; dropping the file releases it.
fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as _)
        .open(name)?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(5)),
            Err(Errno::AGAIN) => {
                let text = format!("another process has held the lock beside it for {} s", LOCK_PATIENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket"));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&probe, &address(path)?) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it")),
    }
}
