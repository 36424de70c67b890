//! Ways to a server.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::config::ClientConfig;
use super::handle::Client;
use super::register::Register;
use super::shared::Shared;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::process::{ChildProcess, Handover, InheritedFds};
use crate::rpc::message::number::HANDSHAKE;
use crate::stream::{FrameSocket, resolve};
use crate::sys::foreign::Foreign;
use crate::sys::socket_kind::{check_stream, check_unix_stream};

/// Where a spawned server finds its socket, as a [`Handover`].
const VARIABLE: &str = "FLIPCALL_SOCKET";

impl Client {
    /// Connects to a server that listens on `path`, or on the abstract name `@name`. A relative path counts from the working directory of
    /// now, when the client reconnects, too.
    ///
    /// # Errors
    /// [`PeerGone`](crate::ErrorKind::PeerGone) if nobody listens, or the server closes the connection before the handshake;
    /// [`Timeout`](crate::ErrorKind::Timeout); [`Refused`](crate::ErrorKind::Refused) if the server answers the handshake with an error;
    /// [`Violation`](crate::ErrorKind::Violation) if it answers with anything else than the protocol allows;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if no socket can have that name; or [`System`](crate::ErrorKind::System).
    pub fn connect(path: impl AsRef<Path>, config: ClientConfig, deadline: impl Into<Deadline>) -> Result<Self> {
        let (path, mut deadline) = (resolve(path.as_ref())?, deadline.into());
        let _ = deadline.resolve();
        let socket = FrameSocket::connect_resolved(&path, deadline)?;
        Ok(Self { shared: Shared::begin(socket, Some(path), config, deadline)? })
    }

    /// A client on a connected socket, such as one end of a pair or an inherited descriptor. It waits at most 10 s for the handshake.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is no unix stream socket; for
    /// the base protocol ([`ClientConfig::base_protocol`]) any stream socket will do, TCP included.
    pub fn from_socket(socket: impl Into<OwnedFd>, config: ClientConfig) -> Result<Self> {
        let socket = Foreign::new(socket.into());
        match config.base_only {
            true => check_stream(socket.as_fd())?,
            false => check_unix_stream(socket.as_fd())?,
        }
        Ok(Self {
            shared: Shared::begin(
                FrameSocket::new(socket.take()).end_at_drop(),
                None,
                config,
                Deadline::after(HANDSHAKE),
            )?,
        })
    }

    /// Starts `command` as a server of its own, which finds its end of a socket pair with [`inherited_socket`]. There is no file, and
    /// nobody else can connect. When the client is dropped the server sees the end of its connection. The deadline is that of the
    /// handshake.
    ///
    /// Dropping the process kills it; it ends with this process, too, see [`ChildProcess`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect), with how the process ended if it did; [`System`](crate::ErrorKind::System) if it cannot be started.
    pub fn spawn(
        mut command: Command,
        config: ClientConfig,
        deadline: impl Into<Deadline>,
    ) -> Result<(Self, ChildProcess)> {
        let mut deadline = deadline.into();
        let _ = deadline.resolve();
        let (ours, theirs) = FrameSocket::pair()?;
        let (handover, kept) = Handover::new(&theirs)?;
        // Its end has to be the server's alone, or a dead server would not hang up.
        drop(theirs);
        command.env(VARIABLE, handover.to_string());
        let mut process = ChildProcess::start_with(command, vec![kept])?;
        let register = Register::new(config.channels);
        let of_server = Arc::downgrade(&register);
        // A process that the server started may hold its ends, which then show no hang-up.
        let watched =
            process.when_ended(move || of_server.upgrade().into_iter().for_each(|register| register.server_died()));
        // Without a thread for it only the hang-up tells.
        drop(watched);
        match Shared::begin_with(register, ours, None, config, deadline) {
            Ok(shared) => Ok((Self { shared }, process)),
            Err(error) => Err(process.explain(error)),
        }
    }
}

/// The socket that this process was given by [`Client::spawn`], among the descriptors that it inherited, to be served with
/// [`Server::serve_one`](crate::rpc::Server::serve_one).
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it was not started that way, or the socket was taken before.
pub fn inherited_socket(inherited: &InheritedFds) -> Result<OwnedFd> {
    let value = std::env::var(VARIABLE)
        .map_err(|_| Error::invalid(format!("this process was not started with a socket: {VARIABLE} is not set")))?;
    let handover: Handover =
        value.parse().map_err(|()| Error::invalid(format!("{VARIABLE} is \"{value}\", not a descriptor")))?;
    handover.take(inherited)
}
