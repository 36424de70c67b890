//! Sockets that are ours alone.
//!
//! A process that holds a duplicate of our end, of one open file description, can change its flags and timeouts. The peer cannot: its end is
//! another description. So a socket that this process has made itself, by `connect`, `accept` or `socketpair`, is its own until it
//! gives a duplicate away, and waits on it may rely on what is set here. A socket that was inherited or received is not: its maker may
//! have kept a duplicate.
//!
//! ```
//! use flipcall::Deadline;
//! use flipcall::stream::{Access, FrameSocket, Listener};
//!
//! let path = std::env::temp_dir().join(format!("flipcall-unshared-{}.sock", std::process::id()));
//! let listener = Listener::bind(&path, Access::Owner)?;
//! let mut client = FrameSocket::connect(&path, Deadline::NEVER)?;
//! let mut served = listener.accept_frames(Deadline::NEVER)?;
//! client.send(7, b"a frame", Deadline::NEVER)?;
//! assert_eq!(served.receive(Deadline::NEVER)?.unwrap().payload, b"a frame");
//! # Ok::<(), flipcall::Error>(())
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::address::{address, resolve};
use super::frame_socket::FrameSocket;
use super::readiness::SLICE;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::lift::lift;

/// How long a listener with a full backlog is left alone between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

impl FrameSocket {
    /// Connects to the unix socket at `path`, and takes the connection for [ours alone](Self::assume_unshared). `@name` is an abstract
    /// name.
    ///
    /// # Errors
    /// [`ErrorKind::PeerGone`] if nobody listens, [`ErrorKind::Timeout`] if the listener's backlog stays full,
    /// [`ErrorKind::InvalidInput`] if no socket can have that name (over 107 bytes, empty, with a byte 0), or [`ErrorKind::System`].
    pub fn connect(path: impl AsRef<Path>, deadline: impl Into<Deadline>) -> Result<Self> {
        Self::connect_resolved(&resolve(path.as_ref())?, deadline.into())
    }

    /// Connects to a name that was resolved.
    pub(crate) fn connect_resolved(path: &Path, mut deadline: Deadline) -> Result<Self> {
        let failed = |error: io::Error| Error::system(format!("cannot connect to {}", path.display()), error);
        let to = address(path).map_err(failed)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let socket = socket.map_err(io::Error::from).and_then(lift).map_err(failed)?;
        loop {
            match connect(&socket, &to.address) {
                Ok(()) => return Ok(Self::from_unshared(socket)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if deadline.resolve().is_none_or(|until| Instant::now() < until) => {
                    std::thread::sleep(PAUSE);
                }
                Err(Errno::AGAIN) => {
                    let what = format!(
                        "the deadline passed before the server on {} had room for a connection",
                        path.display()
                    );
                    return Err(Error::new(ErrorKind::Timeout, what));
                }
                Err(errno @ (Errno::CONNREFUSED | Errno::NOENT)) => {
                    let source = io::Error::from(errno);
                    let what = format!("no server listens on {}", path.display());
                    return Err(Error::caused(ErrorKind::PeerGone, what, source));
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    /// Makes a pair of sockets: one end is [ours alone](Self::assume_unshared), the other is to be handed to a child or sent to a peer.
    /// Keep no duplicate of it (a `Command` that was given it is one), or the end of the peer goes unseen.
    ///
    /// # Errors
    /// [`ErrorKind::System`] if there are no descriptors left.
    pub fn pair() -> Result<(Self, UnixStream)> {
        let pair = UnixStream::pair().and_then(|(ours, theirs)| Ok((lift(ours)?, lift(theirs)?)));
        let (ours, theirs) = pair.map_err(|error| Error::system("cannot make a socket pair", error))?;
        Ok((Self::from_unshared(ours), theirs.into()))
    }

    /// Frames on a socket that this process has just made.
    pub(super) fn from_unshared(socket: impl Into<OwnedFd>) -> Self {
        let mut socket = Self::new(socket);
        // A kernel that refuses the options leaves a socket whose waits take more system calls, and nothing else.
        let _ = socket.assume_unshared();
        socket
    }

    /// Says that the open file description of this socket is this process's alone: nobody else holds a duplicate of it. Sockets that
    /// this type or a [`Listener`](crate::stream::Listener) makes are so from the beginning; one given to [`new`](Self::new) is if this process
    /// made it and gave no duplicate away. Then waits need one system call instead of three, because the socket's own timeouts can be
    /// relied on, and [`send_file`](Self::send_file) and [`send_pipe_bytes`](Self::send_pipe_bytes) let the kernel move the bytes.
    ///
    /// The timeouts and the blocking mode of the socket must not be changed by other code of this process either. A child made by `fork`
    /// alone holds duplicates of everything; one that runs another program does not hold this one, which is close-on-exec. Dropping the
    /// socket ends the connection for every duplicate.
    ///
    /// # Errors
    /// [`ErrorKind::System`] if the socket's options cannot be set, or the error that poisoned it.
    pub fn assume_unshared(&mut self) -> Result<()> {
        self.origin.check()?;
        self.check()?;
        for (timeout, what) in [(Timeout::Recv, "SO_RCVTIMEO"), (Timeout::Send, "SO_SNDTIMEO")] {
            set_socket_timeout(self.as_fd(), timeout, Some(SLICE))
                .map_err(|error| Error::system(format!("cannot set {what} on a socket"), error))?;
        }
        ioctl_fionbio(self.as_fd(), false).map_err(|error| Error::system("cannot make a socket blocking", error))?;
        self.unshared = true;
        self.socket.set_end_at_drop(true);
        Ok(())
    }

    /// Takes [`assume_unshared`](Self::assume_unshared) back, for a socket of which a duplicate is about to be given away.
    pub fn assume_shared(&mut self) {
        self.unshared = false;
        self.socket.set_end_at_drop(false);
    }
}
