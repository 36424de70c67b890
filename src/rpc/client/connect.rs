//! Ways to a server.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::{Client, ClientConfig};
use crate::endpoint::{pass_descriptor, take_descriptor};
use crate::{Deadline, Error, ErrorKind, Result};

/// How long a server with a full backlog is left alone between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// Where a spawned server finds its socket: the number of the descriptor.
const VARIABLE: &str = "FLIPCALL_SOCKET";

impl Client {
    /// Connects to a server that listens on `path`.
    ///
    /// # Errors
    /// [`PeerGone`](ErrorKind::PeerGone) if nobody listens, [`Timeout`](ErrorKind::Timeout), what the handshake finds wrong with the
    /// server, or [`System`](ErrorKind::System).
    pub fn connect(path: impl AsRef<Path>, config: ClientConfig, deadline: impl Into<Deadline>) -> Result<Self> {
        let (path, mut deadline) = (path.as_ref().to_path_buf(), deadline.into());
        let until = deadline.resolve();
        let socket = open(&path, until)?;
        Self::begin(socket, Some(path), config, until.map_or(Deadline::NEVER, Deadline::at))
    }

    /// A client on a connected socket, such as one end of a pair or an inherited descriptor. It waits at most 10 s for the handshake.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn from_socket(socket: impl Into<OwnedFd>, config: ClientConfig) -> Result<Self> {
        Self::begin(socket.into(), None, config, Deadline::after(crate::rpc::wire::HANDSHAKE))
    }

    /// Starts `command` as a server of its own, which finds its end of a socket pair with [`inherited_socket`]. There is no file, and
    /// nobody else can connect. When the client is dropped the server sees the end of its connection.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`System`](ErrorKind::System) if the process cannot be started.
    pub fn spawn(mut command: Command, config: ClientConfig) -> Result<(Self, Child)> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| Error::system("making a socket pair", error))?;
        let number = pass_descriptor(&mut command, &theirs)?;
        command.env(VARIABLE, number.to_string());
        let mut child = command.spawn().map_err(|error| Error::system("starting the server", error))?;
        // Its end has to be the server's alone, or a dead server would not hang up.
        drop((command, theirs));
        match Self::from_socket(ours, config) {
            Ok(client) => Ok((client, child)),
            Err(error) => {
                // It is of no use without a connection; both fail only if it has ended already.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

/// The socket that this process was given by [`Client::spawn`], to be served with [`Server::serve_one`](crate::rpc::Server::serve_one).
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) if it was not started that way, or the socket was taken before.
pub fn inherited_socket() -> Result<OwnedFd> {
    let value = std::env::var(VARIABLE)
        .map_err(|_| Error::invalid(format!("this process was not started with a socket: {VARIABLE} is not set")))?;
    take_descriptor(value.parse().map_err(|_| Error::invalid(format!("{VARIABLE} names no descriptor")))?)
}

/// Connects a socket to `path`.
pub(super) fn open(path: &PathBuf, until: Option<Instant>) -> Result<OwnedFd> {
    let failed = |errno: Errno| Error::system(format!("connecting to {}", path.display()), errno);
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if until.is_none_or(|until| Instant::now() < until) => std::thread::sleep(PAUSE),
            Err(Errno::AGAIN) => {
                return Err(Error::new(ErrorKind::Timeout, "the server did not accept by the deadline"));
            }
            Err(errno @ (Errno::CONNREFUSED | Errno::NOENT)) => {
                let source = std::io::Error::from(errno);
                return Err(Error::caused(
                    ErrorKind::PeerGone,
                    format!("nobody listens on {}", path.display()),
                    source,
                ));
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
}
