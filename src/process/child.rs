//! A child process and its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::tail::{Tail, pipe};
use super::{pidfd, reaper};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::child::{self, Launch, let_live};
use crate::sys::fork::Origin;
use crate::sys::poll;

/// How long a killed child may take to end before a thread waits for it.
const REAP: Duration = Duration::from_secs(2);

/// How often a child is looked at that has ended and cannot be reaped yet.
const PAUSE: Duration = Duration::from_millis(20);

/// There is no such child, or not any more.
const ECHILD: i32 = Errno::CHILD.raw_os_error();

/// How long a child whose connection broke may take to end, so that the error can say how.
const AFTERMATH: Duration = Duration::from_millis(200);

/// A child process. Dropping it kills and reaps it, and it ends with this process, whatever thread started it, unless it is
/// [detached](Self::detach).
///
/// A child that inherits our standard error is listened to: what it says goes there, and the last 4 KiB are kept for the error that tells
/// of its end. One that the command gave another keeps that.
///
/// As a descriptor it is a pidfd, which becomes readable when the process ends. Where no pidfd can be had (Linux before 5.3, a system call
/// filter) it is a pipe that hangs up then.
#[derive(Debug)]
pub struct ChildProcess {
    program: String,
    /// Gone once a thread waits for it.
    child: Option<Child>,
    pidfd: OwnedFd,
    /// How it ended, once it was reaped.
    status: Option<ExitStatus>,
    tail: Tail,
    /// Whether the end of what it said was waited for.
    is_settled: bool,
    /// What the child inherited of the pipe whose other end closes with this process.
    lifeline: Arc<OwnedFd>,
    _end: OwnedFd,
    /// A forked child has nothing to wait for, and ends nothing.
    origin: Origin,
}

impl ChildProcess {
    /// Starts `command`.
    ///
    /// # Errors
    /// [`System`](ErrorKind::System) if it cannot be started, or the system lacks descriptors, memory or threads.
    pub fn start(command: Command) -> Result<Self> {
        Self::start_with(command, Vec::new())
    }

    /// Starts `command` with descriptors that the child inherits under the numbers that they have here. They are the child's alone then:
    /// their closing shows its death.
    pub(crate) fn start_with(command: Command, kept: Vec<Arc<OwnedFd>>) -> Result<Self> {
        let program = command.get_program().display().to_string();
        let (reader, end) = pipe()?;
        let lifeline = Arc::new(reader);
        let (tail, stderr) = Tail::listen()?;
        let started = child::start(Launch { command, kept, stderr, lifeline: Arc::clone(&lifeline) });
        let mut child = started.map_err(|error| Error::system(format!("cannot start {program}"), error))?;
        match pidfd::of_child(Pid::from_child(&child)) {
            Ok(pidfd) => Ok(Self {
                program,
                child: Some(child),
                pidfd,
                status: None,
                tail,
                is_settled: false,
                lifeline,
                _end: end,
                origin: Origin::here(),
            }),
            Err(error) => {
                // The child is ours and not reaped yet, so neither call can hit another process.
                let _ = child.kill().and_then(|()| child.wait());
                Err(Error::system(format!("cannot watch {program}"), error))
            }
        }
    }

    /// The program, as the command named it.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The process as the standard library knows it, for what the command piped.
    pub fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it is there until this value is consumed")
    }

    /// Waits until the process has ended, and reaps it. What it said has then come out on our standard error, unless another process
    /// still holds the child's. Again is no error.
    ///
    /// Where SIGCHLD is ignored, or other code of this process reaps every child, the status is what the kernel remembers of it (Linux
    /// 6.15), or else exit status 255.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) at the deadline; [`System`](ErrorKind::System) if the process cannot be waited for.
    pub fn wait(&mut self, deadline: impl Into<Deadline>) -> Result<ExitStatus> {
        self.origin.check()?;
        let until = deadline.into().resolve();
        let Some(status) = self.reap_by(until).map_err(|error| self.cannot("wait for", error))? else {
            return Err(Error::new(ErrorKind::Timeout, format!("{} has not ended by the deadline", self.program)));
        };
        if !std::mem::replace(&mut self.is_settled, true) {
            self.tail.wait_for_end();
        }
        Ok(status)
    }

    /// Reaps the process by `until`, if it ends in time and nobody traces it any more: its real parent cannot reap it until then.
    fn reap_by(&mut self, until: Option<Instant>) -> std::io::Result<Option<ExitStatus>> {
        if self.status.is_some() || !poll::wait(&self.pidfd, PollFlags::IN, until)? {
            return Ok(self.status);
        }
        let mut pause = Duration::from_millis(1);
        while self.status.is_none() {
            let Some(child) = &mut self.child else { return Ok(None) };
            self.status = match child.try_wait() {
                // SIGCHLD is ignored, or another thread reaps every child.
                Err(error) if error.raw_os_error() == Some(ECHILD) => Some(child::exit_status(&self.pidfd)),
                reaped => reaped?,
            };
            if self.status.is_none() {
                let left = until.map_or(pause, |until| until.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(pause.min(left));
                pause = (pause * 2).min(PAUSE);
            }
        }
        Ok(self.status)
    }

    /// Runs `action`, on a thread, once the process has ended.
    pub(crate) fn when_ended(&self, action: impl FnOnce() + Send + 'static) -> Result<()> {
        let watched = self.pidfd.try_clone().and_then(|pidfd| reaper::when_ended(pidfd, action));
        watched.map_err(|error| self.cannot("watch", error))
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        poll::wait(&self.pidfd, PollFlags::IN, Some(Instant::now())).unwrap_or(false)
    }

    /// Kills the process, without waiting for its end.
    ///
    /// # Errors
    /// [`System`](ErrorKind::System) if it may not be killed, as one that changed its user.
    pub fn kill(&mut self) -> Result<()> {
        self.origin.check()?;
        if self.status.is_some() {
            return Ok(());
        }
        // Not by its number: somebody else may have reaped it.
        let killed = match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(_) if self.has_ended() => Ok(()),
            Err(_) => self.child().kill(),
        };
        killed.map_err(|error| self.cannot("kill", error))
    }

    /// Waits for the process to end, kills it after `grace`, and reaps it.
    ///
    /// # Errors
    /// As [`kill`](Self::kill) and [`wait`](Self::wait); [`Timeout`](ErrorKind::Timeout) if it has not ended two seconds after it was
    /// killed, as one that hangs in a file system, or cannot be reaped, as one that a process traces. A thread reaps it as soon as it can be.
    pub fn finish(mut self, grace: Duration) -> Result<ExitStatus> {
        self.end(grace)
    }

    /// As [`finish`](Self::finish), for a holder that cannot give the process away: it is only dropped after this. A process that is
    /// reaped already ends again.
    pub(crate) fn end(&mut self, grace: Duration) -> Result<ExitStatus> {
        let mut ended = self.wait(grace);
        if ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout) {
            ended = self.kill().and_then(|()| self.wait(REAP));
        }
        if ended.is_err() && self.origin.is_here() {
            self.leave_to_reaper();
        }
        ended
    }

    /// Lets the process go on when this value is dropped and when this process ends. A thread reaps it.
    ///
    /// What it inherited of our standard error ends with this process: a child that is to outlive it needs one of its own, see
    /// [`Command::stderr`].
    ///
    /// # Errors
    /// [`System`](ErrorKind::System) if the kernel refuses; the process then ends with this value.
    pub fn detach(mut self) -> Result<()> {
        self.let_go()
    }

    /// As [`detach`](Self::detach), for a holder that cannot give the process away.
    pub(crate) fn let_go(&mut self) -> Result<()> {
        self.origin.check()?;
        let_live(&self.lifeline).map_err(|error| self.cannot("detach", error))?;
        self.leave_to_reaper();
        Ok(())
    }

    /// Has the process be reaped when it ends.
    fn leave_to_reaper(&mut self) {
        if let (Some(child), Ok(pidfd)) = (self.child.take(), self.pidfd.try_clone()) {
            reaper::reap(child, pidfd);
        }
    }

    /// An error of the connection to this process, with the process's end as its reason if it has ended.
    #[cold]
    pub(crate) fn explain(&mut self, error: Error) -> Error {
        let patience = match error.kind() {
            ErrorKind::PeerGone | ErrorKind::PeerShutdown => AFTERMATH,
            _ => Duration::ZERO,
        };
        let Ok(status) = self.wait(patience) else { return error };
        let last_words = match self.tail.last_words() {
            said if said.is_empty() => String::new(),
            said => format!("; its last words: \"{said}\""),
        };
        Error::caused(error.kind(), format!("{} has ended ({status}){last_words}", self.program), error)
    }

    #[cold]
    fn cannot(&self, what: &str, error: std::io::Error) -> Error {
        Error::system(format!("cannot {what} {}", self.program), error)
    }
}

impl AsFd for ChildProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // A process that was reaped before is found ended. One that cannot be reaped now is left to the reaper.
        if self.origin.is_here() && self.child.is_some() {
            let _ = self.end(Duration::ZERO);
        }
    }
}
