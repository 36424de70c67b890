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

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags};

use super::{Acceptor, Connector, Endpoint, Interrupted, Options, ShutdownHandle};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::spawn;
use crate::window::{Allocator, Seals, Window};

/// Names the variable that tells a child where its window is: `descriptor,offset,length,socket`.
const VARIABLE: &str = "FLIPCALL_WINDOW";
/// How long a child that was dropped may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// A child process with a window of its own, and the parent's end of it.
///
/// Dropping it shuts the window down, gives the child two seconds to end, then kills and reaps it.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    pidfd: OwnedFd,
    client: Option<Connector>,
    /// What a failed handshake left, for whoever tries again.
    failed: Option<Error>,
    handle: ShutdownHandle,
    /// Closes with us, by which the child notices our death.
    _socket: OwnedFd,
}

impl Spawned {
    /// Starts `command` with a window of `length` bytes (rounded up to whole pages), the child being the server. It calls
    /// [`Inherited::from_env`]. What is watched is the child, in place of what the options name.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if `length` is 0; [`System`](ErrorKind::System) if the command cannot be started or
    /// the system lacks memory or descriptors.
    pub fn start(mut command: Command, length: u32, options: Options) -> Result<Self> {
        let allocator = Allocator::with_size(u64::from(length.max(1)))?;
        let descriptor = allocator.allocate(length)?;
        let window = Window::map(&descriptor)?;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(|errno| Error::system("socketpair", errno))?;
        let file = descriptor.fd().try_clone_to_owned().map_err(|error| Error::system("dup", error))?;
        let (offset, length) = (descriptor.offset(), descriptor.length());
        command.env(VARIABLE, format!("{},{offset},{length},{}", file.as_raw_fd(), theirs.as_raw_fd()));
        spawn::inherit(&mut command, vec![Arc::new(file), Arc::new(theirs)]);
        let mut child = command.spawn().map_err(|error| {
            let program = command.get_program().display();
            Error::system(format!("starting the child {program}"), error)
        })?;
        // The command holds the child's end of the socket, whose closing shows the child's death.
        drop(command);
        let connected = watch(&child).and_then(|(pidfd, watched)| {
            let client = Connector::new(window, options.watch_process(watched))?;
            Ok((pidfd, client))
        });
        match connected {
            Ok((pidfd, client)) => Ok(Self {
                handle: client.shutdown_handle(),
                child,
                pidfd,
                client: Some(client),
                failed: None,
                _socket: ours,
            }),
            Err(error) => {
                // The child is ours and not reaped yet, so neither call can hit another process.
                let _ = child.kill().and_then(|()| child.wait());
                Err(error)
            }
        }
    }

    /// Shakes hands with the child and returns the connection. It notices the child's death by its pidfd.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), after which it can be tried again; [`InvalidInput`](ErrorKind::InvalidInput) if it is
    /// connected already; otherwise as [`Connector::connect`], and again the same after a failure.
    pub fn connect(&mut self, deadline: impl Into<Deadline>) -> Result<Endpoint> {
        let taken = || self.failed.clone().unwrap_or_else(|| Error::invalid("the child is connected already"));
        let client = self.client.take().ok_or_else(taken)?;
        client.connect(deadline).map_err(|interrupted| match interrupted {
            Interrupted::TimedOut(client) => {
                self.client = Some(client);
                Error::new(ErrorKind::Timeout, "the child did not shake hands by the deadline")
            }
            Interrupted::Failed(error) => self.failed.insert(error).clone(),
        })
    }

    /// A handle that ends the handshake from anywhere, and the connection later.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.handle.clone()
    }

    /// The process, for what the command piped.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Shuts the window down, waits for the child to end, kills it after `grace`, and reaps it.
    ///
    /// # Errors
    /// [`System`](ErrorKind::System) if the process cannot be waited for, or not be killed, as one that changed its user. Such a process
    /// stays.
    pub fn finish(mut self, grace: Duration) -> Result<ExitStatus> {
        self.reap(grace)
    }

    fn reap(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.handle.shut_down();
        if !self.ends_within(grace)? {
            self.child.kill().map_err(|error| Error::system("killing the child", error))?;
        }
        self.child.wait().map_err(|error| Error::system("waiting for the child", error))
    }

    fn ends_within(&self, grace: Duration) -> Result<bool> {
        let until = Instant::now().checked_add(grace);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("waiting for the child", errno)),
            }
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // After `finish` this finds the status that the standard library keeps of a reaped child.
        let _ = self.reap(GRACE);
    }
}

/// Two pidfds of a child that is not reaped yet: one to wait with, one for the watchdog.
fn watch(child: &Child) -> Result<(OwnedFd, OwnedFd)> {
    let system = |errno| Error::system("pidfd_open", errno);
    let pidfd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(system)?;
    let watched = pidfd.try_clone().map_err(|error| Error::system("dup", error))?;
    Ok((pidfd, watched))
}

/// What a process that was started by [`Spawned`] inherited.
#[derive(Debug)]
pub struct Inherited {
    window: Window,
    socket: OwnedFd,
}

impl Inherited {
    /// The window that the parent left for this process. It is found once; a second call fails.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if this process was not started by [`Spawned`], or has taken its window already;
    /// [`Refused`](ErrorKind::Refused) if what the variable names is no window.
    pub fn from_env() -> Result<Self> {
        let value = std::env::var(VARIABLE)
            .map_err(|_| Error::invalid("this process was not started with a window: FLIPCALL_WINDOW is not set"))?;
        let malformed = || Error::invalid(format!("FLIPCALL_WINDOW is \"{value}\", not four numbers"));
        let fields: Vec<&str> = value.split(',').collect();
        let [fd, offset, length, socket] = fields[..] else { return Err(malformed()) };
        let fd: RawFd = fd.parse().map_err(|_| malformed())?;
        let offset: u64 = offset.parse().map_err(|_| malformed())?;
        let length: u32 = length.parse().map_err(|_| malformed())?;
        let socket: RawFd = socket.parse().map_err(|_| malformed())?;
        let (file, socket) = (take_descriptor(fd)?, take_descriptor(socket)?);
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

/// Makes every process that `command` starts inherit `fd`, under the number that is returned. In this process it stays close-on-exec.
/// The command keeps a copy open until it is dropped.
///
/// # Errors
/// [`System`](ErrorKind::System) if the descriptor cannot be duplicated.
pub fn pass_descriptor(command: &mut Command, fd: impl AsFd) -> Result<RawFd> {
    let copy = fd.as_fd().try_clone_to_owned().map_err(|error| Error::system("dup", error))?;
    let number = copy.as_raw_fd();
    spawn::inherit(command, vec![Arc::new(copy)]);
    Ok(number)
}

/// Takes over a descriptor that this process was started with, such as one named on its command line. It becomes close-on-exec.
///
/// Naming it states that this process inherited it and that nothing else in it uses it: call this early, before anything else opens
/// files, for numbers that whoever started the process chose.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) if `number` is a standard stream, not open, taken before, or close-on-exec: then
/// something in this process owns it.
pub fn take_descriptor(number: RawFd) -> Result<OwnedFd> {
    let taken = spawn::adopt(number);
    taken.map_err(|_| {
        let may = "it must be open, over 2, inheritable, and not taken before";
        Error::invalid(format!("descriptor {number} was not inherited for this process to take: {may}"))
    })
}
