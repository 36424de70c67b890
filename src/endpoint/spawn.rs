//! A child process that shares a window with us, in one call.
//!
//! The parent makes the window and the child inherits it, together with one end of a socket pair by which each side notices the death of
//! the other. An environment variable tells the child where to look.
//!
//! ```no_run
//! use flipcall::endpoint::{Options, Spawned, WaitPolicy};
//! use flipcall::Deadline;
//! use std::process::Command;
//!
//! let mut child = Spawned::start(Command::new("device-model"), 4096, Options::new())?;
//! let mut endpoint = child.connect(Deadline::NEVER)?;
//! endpoint.send_recv(0, Deadline::NEVER)?;
//! drop(endpoint);
//! child.finish(std::time::Duration::from_secs(2))?;
//! # Ok::<(), flipcall::Error>(())
//! ```
//!
//! The child:
//!
//! ```no_run
//! use flipcall::Deadline;
//! use flipcall::endpoint::{Inherited, Options};
//! use flipcall::process::InheritedFds;
//!
//! // SAFETY: this is the start of `main`: nothing in this process owns an inheritable descriptor above 2.
//! let inherited = unsafe { InheritedFds::claim() };
//! let acceptor = Inherited::from_env(&inherited)?.into_acceptor(Options::new())?;
//! let (mut endpoint, length) = acceptor.recv_first(Deadline::NEVER)?;
//! # let _ = (endpoint, length);
//! # Ok::<(), flipcall::Error>(())
//! ```

use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::active::Endpoint;
use super::connecting::{Acceptor, Connector};
use super::handle::ShutdownHandle;
use super::interrupted::Interrupted;
use super::options::Options;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{ChildProcess, Handover, InheritedFds};
use crate::sys::lift;
use crate::window::{Allocator, Seals, Window};
use std::os::fd::AsFd;

/// Names the variable that tells a child where its window is: `file,offset,length,socket`, the first and the last as a [`Handover`].
const VARIABLE: &str = "FLIPCALL_WINDOW";
/// How long a child that was dropped may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// A child process with a window of its own, and the parent's end of it.
///
/// Dropping it shuts the window down, gives the child two seconds to end, then kills and reaps it. The child ends with this process, too,
/// see [`ChildProcess`].
#[derive(Debug)]
pub struct Spawned {
    process: ChildProcess,
    client: Option<Connector>,
    /// What a failed handshake left, for a caller that tries again.
    failed: Option<Error>,
    handle: ShutdownHandle,
    /// Closes with us, by which the child notices our death.
    socket: Option<OwnedFd>,
    detached: bool,
}

impl Spawned {
    /// Starts `command` with a window of `length` bytes (rounded up to whole pages), the child being the server. It calls
    /// [`Inherited::from_env`]. What is watched is the child, in place of what the options name.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `length` is 0; [`System`](ErrorKind::System) if the command cannot be started or
    /// the system lacks memory, descriptors or threads.
    pub fn start(mut command: Command, length: u32, options: Options) -> Result<Self> {
        let allocator = Allocator::with_size(u64::from(length.max(1)))?;
        let descriptor = allocator.allocate(length)?;
        let window = Window::map(&descriptor)?;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(std::io::Error::from)
                .and_then(|(ours, theirs)| Ok((lift::lift(ours)?, theirs)))
                .map_err(|error| Error::system("cannot make a socket pair for a child", error))?;
        let (file, kept_file) = Handover::new(descriptor.fd())?;
        let (socket, kept_socket) = Handover::new(&theirs)?;
        drop(theirs);
        command.env(VARIABLE, format!("{file},{},{},{socket}", descriptor.offset(), descriptor.length()));
        let process = ChildProcess::start_with(command, vec![kept_file, kept_socket])?;
        let watched = process.as_fd().try_clone_to_owned();
        let watched = watched.map_err(|error| Error::system("cannot duplicate the pidfd of a child", error))?;
        let client = Connector::new(window, options.watch_process(watched))?;
        let handle = client.shutdown_handle();
        Ok(Self { process, client: Some(client), failed: None, handle, socket: Some(ours), detached: false })
    }

    /// Shakes hands with the child and returns the connection. It notices the child's death by its pidfd.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), after which it can be tried again; [`InvalidInput`](ErrorKind::InvalidInput) if it is
    /// connected already; otherwise as [`Connector::connect`]. After a failure every later call fails like the first.
    pub fn connect(&mut self, deadline: impl Into<Deadline>) -> Result<Endpoint> {
        let taken = || {
            self.failed
                .clone()
                .unwrap_or_else(|| Error::invalid(format!("{} is connected already", self.process.program())))
        };
        let client = self.client.take().ok_or_else(taken)?;
        client.connect(deadline).map_err(|interrupted| match interrupted {
            Interrupted::TimedOut(client) => {
                self.client = Some(client);
                Error::new(
                    ErrorKind::Timeout,
                    format!("{} did not shake hands by the deadline", self.process.program()),
                )
            }
            Interrupted::Failed(error) => self.failed.insert(self.process.explain(error)).clone(),
        })
    }

    /// A handle that ends the handshake from anywhere, and the connection later.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.handle.clone()
    }

    /// The number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process. To end it, [`finish`](Self::finish) asks first.
    pub fn process(&mut self) -> &mut ChildProcess {
        &mut self.process
    }

    /// Shuts the window down, waits for the child to end, kills it after `grace`, and reaps it.
    ///
    /// # Errors
    /// As [`ChildProcess::finish`].
    pub fn finish(mut self, grace: Duration) -> Result<ExitStatus> {
        self.handle.shut_down();
        self.process.end(grace)
    }

    /// Lets the child go on, however long this process lives. A connection that was made stays, and the child goes on watching for the end
    /// of this process. See [`ChildProcess::detach`] for what it loses.
    ///
    /// # Errors
    /// As [`ChildProcess::detach`]; the child ends then.
    pub fn detach(mut self) -> Result<()> {
        self.process.let_go()?;
        self.detached = true;
        // It closes when this process ends.
        std::mem::forget(self.socket.take());
        Ok(())
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        self.handle.shut_down();
        // What is left then is up to the process's own drop. One that `finish` reaped is found ended.
        let _ = self.process.end(GRACE);
    }
}

/// What a process that was started by [`Spawned`] inherited.
#[derive(Debug)]
pub struct Inherited {
    window: Window,
    socket: OwnedFd,
}

impl Inherited {
    /// The window that the parent left for this process, among the descriptors that it inherited. It is found once; a second call fails.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if this process was not started by [`Spawned`], or has taken its window already;
    /// [`Refused`](ErrorKind::Refused) if what the variable names is no window.
    pub fn from_env(inherited: &InheritedFds) -> Result<Self> {
        let value = std::env::var(VARIABLE).map_err(|_| {
            Error::invalid(format!("this process was not started with a window: {VARIABLE} is not set"))
        })?;
        let malformed =
            || Error::invalid(format!("{VARIABLE} is \"{value}\", not a file, an offset, a length and a socket"));
        let fields: Vec<&str> = value.split(',').collect();
        let [file, offset, length, socket] = fields[..] else { return Err(malformed()) };
        let file: Handover = file.parse().map_err(|()| malformed())?;
        let offset: u64 = offset.parse().map_err(|_| malformed())?;
        let length: u32 = length.parse().map_err(|_| malformed())?;
        let socket: Handover = socket.parse().map_err(|()| malformed())?;
        let (file, socket) = (file.take(inherited)?, socket.take(inherited)?);
        Ok(Self { window: Window::receive(file, offset, length, Seals::Strict)?, socket })
    }

    /// This process as the server of the window. It notices the parent's death.
    ///
    /// # Errors
    /// [`System`](ErrorKind::System) if the watchdog cannot be started.
    pub fn into_acceptor(self, options: Options) -> Result<Acceptor> {
        Acceptor::new(self.window, options.watch_socket(self.socket))
    }
}
