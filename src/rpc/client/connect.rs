//! Ways to a server.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};

use super::{Client, ClientConfig};
use crate::endpoint::{pass_descriptor, take_descriptor};
use crate::stream::FrameSocket;
use crate::{Deadline, Error, Result};

/// Where a spawned server finds its socket: the number of the descriptor.
const VARIABLE: &str = "FLIPCALL_SOCKET";

impl Client {
    /// Connects to a server that listens on `path`.
    ///
    /// # Errors
    /// [`PeerGone`](crate::ErrorKind::PeerGone) if nobody listens, [`Timeout`](crate::ErrorKind::Timeout), what the handshake finds wrong with the
    /// server, or [`System`](crate::ErrorKind::System).
    pub fn connect(path: impl AsRef<Path>, config: ClientConfig, deadline: impl Into<Deadline>) -> Result<Self> {
        let (path, mut deadline) = (path.as_ref().to_path_buf(), deadline.into());
        let until = deadline.resolve();
        let until = until.map_or(Deadline::NEVER, Deadline::at);
        let socket = FrameSocket::connect(&path, until)?;
        Self::begin(socket, Some(path), config, until)
    }

    /// A client on a connected socket, such as one end of a pair or an inherited descriptor. It waits at most 10 s for the handshake.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn from_socket(socket: impl Into<OwnedFd>, config: ClientConfig) -> Result<Self> {
        Self::begin(FrameSocket::new(socket), None, config, Deadline::after(crate::rpc::wire::HANDSHAKE))
    }

    /// Starts `command` as a server of its own, which finds its end of a socket pair with [`inherited_socket`]. There is no file, and
    /// nobody else can connect. When the client is dropped the server sees the end of its connection.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`System`](crate::ErrorKind::System) if the process cannot be started.
    pub fn spawn(mut command: Command, config: ClientConfig) -> Result<(Self, Child)> {
        let (ours, theirs) = FrameSocket::pair()?;
        let number = pass_descriptor(&mut command, &theirs)?;
        command.env(VARIABLE, number.to_string());
        let mut child = command.spawn().map_err(|error| {
            let program = command.get_program().display();
            Error::system(format!("starting the server {program}"), error)
        })?;
        // Its end has to be the server's alone, or a dead server would not hang up.
        drop((command, theirs));
        match Self::begin(ours, None, config, Deadline::after(crate::rpc::wire::HANDSHAKE)) {
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
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it was not started that way, or the socket was taken before.
pub fn inherited_socket() -> Result<OwnedFd> {
    let value = std::env::var(VARIABLE)
        .map_err(|_| Error::invalid(format!("this process was not started with a socket: {VARIABLE} is not set")))?;
    take_descriptor(value.parse().map_err(|_| Error::invalid(format!("{VARIABLE} names no descriptor")))?)
}
