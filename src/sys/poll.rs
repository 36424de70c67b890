//! Waiting for descriptors until a point in time, whatever signals come meanwhile.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// Waits until `fd` is ready for one of `events`, has hung up, or failed. `false`: the time is up.
pub(crate) fn wait(fd: impl AsFd, events: PollFlags, until: Option<Instant>) -> io::Result<bool> {
    Ok(wait_any(&mut [PollFd::from_borrowed_fd(fd.as_fd(), events)], until)? > 0)
}

/// Waits for any of `fds`; how many are ready, 0 if the time is up. `None` waits for ever, a time that is past polls once.
pub(crate) fn wait_any(fds: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<usize> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // What does not fit is longer than a machine runs.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(fds, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// What holds for `fd` now: those of `events` that it is ready for, a hang-up, a failure. Does not wait.
pub(crate) fn now(fd: impl AsFd, events: PollFlags) -> io::Result<PollFlags> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), events)];
    loop {
        match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
            Err(Errno::INTR) => {}
            result => return result.map(|_| fds[0].revents()).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn readiness_time_and_hang_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(!wait(&ours, PollFlags::IN, Some(soon)).unwrap());
        assert!(Instant::now() >= soon);
        assert!(!wait(&ours, PollFlags::IN, Some(Instant::now() - Duration::from_millis(1))).unwrap());
        theirs.write_all(b"x").unwrap();
        assert!(wait(&ours, PollFlags::IN, None).unwrap());
        assert_eq!(now(&ours, PollFlags::IN).unwrap(), PollFlags::IN);
        drop(theirs);
        assert!(now(&ours, PollFlags::empty()).unwrap().contains(PollFlags::HUP));
    }
}
