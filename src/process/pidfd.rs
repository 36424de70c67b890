//! A descriptor that becomes readable when a child ends.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::sys::lift::lift;
use crate::sys::thread;

/// The pidfd of a child that was not reaped yet, or what does as well where none can be had.
pub(super) fn of_child(child: Pid) -> io::Result<OwnedFd> {
    match pidfd_open(child, PidfdFlags::empty()) {
        // Linux before 5.3, or a filter.
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::INVAL) => stand_in(child),
        // It has ended, and somebody else has reaped it: something that is as readable.
        Err(Errno::SRCH) => lift(eventfd(1, EventfdFlags::CLOEXEC)?),
        result => lift(result?),
    }
}

/// The reading end of a pipe that hangs up when the child ends: a thread of its own waits for that. It reaps nothing.
fn stand_in(child: Pid) -> io::Result<OwnedFd> {
    let (reader, end) = io::pipe().and_then(|(reader, end)| Ok((lift(reader)?, lift(end)?)))?;
    thread::spawn("flipcall-child", move || {
        let wait = || waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        while wait().is_err_and(|errno| errno == Errno::INTR) {}
        drop(end);
    })?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::event::PollFlags;

    use super::*;
    use crate::sys::poll;

    /// Issue 13, C18.
    #[test]
    fn a_child_is_waited_for_without_a_pidfd() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let end = stand_in(Pid::from_child(&child)).unwrap();
        let soon = Instant::now() + Duration::from_millis(10);
        assert!(!poll::wait(&end, PollFlags::IN, Some(soon)).unwrap(), "it runs");
        drop(child.stdin.take());
        let ages = Instant::now() + Duration::from_secs(10);
        assert!(poll::wait(&end, PollFlags::IN, Some(ages)).unwrap(), "it has ended");
        assert!(child.wait().unwrap().success(), "and was left to be reaped");
    }
}
