//! Whether the channels of a connection can have windows, and what becomes of one that has none.
//!
//! What cannot change as long as the connection lasts is remembered: a side that refuses windows, a kernel or a policy that does not
//! allow them. Anything else was bad luck, such as a moment without descriptors: that channel is a stopgap, which is replaced after a while.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};

/// How long the first stopgap lasts until a window is tried again. Each further one lasts twice as long.
const FIRST: Duration = Duration::from_millis(200);

/// How often that is doubled: to 6.4 s. An attempt costs less than 1 ms.
const DOUBLINGS: u32 = 5;

/// What is known of the windows of a connection's channels.
#[derive(Debug, Default)]
pub(super) struct Windows {
    never: AtomicBool,
    /// Attempts in a row that failed by bad luck.
    misses: AtomicU32,
}

impl Windows {
    /// Whether to ask for one.
    pub(super) fn may_come(&self) -> bool {
        !self.never.load(Ordering::Relaxed)
    }

    /// None can come on this connection.
    pub(super) fn never_come(&self) {
        self.never.store(true, Ordering::Relaxed);
    }

    /// One came.
    pub(super) fn came(&self) {
        self.misses.store(0, Ordering::Relaxed);
    }

    /// None came this time: when to try again.
    pub(super) fn missed(&self) -> Option<Instant> {
        let misses = self.misses.fetch_add(1, Ordering::Relaxed).min(DOUBLINGS);
        Instant::now().checked_add(FIRST * 2_u32.pow(misses))
    }
}

/// Whether what kept a window away will do so again, as long as the connection lasts.
pub(super) fn is_lasting(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Refused | ErrorKind::Unsupported | ErrorKind::Violation => true,
        ErrorKind::System => errno(error).is_some_and(|errno| !is_shortage(errno)),
        _ => false,
    }
}

/// Whether this process, or the machine, lacks something that may come back.
pub(super) fn is_lack(error: &Error) -> bool {
    error.kind() == ErrorKind::System && !is_lasting(error)
}

fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN | Errno::NOSPC)
}

/// The error of the system in the chain of causes.
fn errno(error: &Error) -> Option<Errno> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Errno::from_io_error(error);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_change_lasts() {
        let system = |errno: Errno| Error::system("no window", errno);
        for error in [system(Errno::MFILE), system(Errno::NOMEM), Error::new(ErrorKind::System, "no descriptors left")]
        {
            assert!(!is_lasting(&error) && is_lack(&error), "{error:?}");
        }
        let refused = Error::new(ErrorKind::Refused, "no window of ours");
        for error in [system(Errno::PERM), system(Errno::ACCESS), system(Errno::NOSYS), refused] {
            assert!(is_lasting(&error) && !is_lack(&error), "{error:?}");
        }
        let gone = Error::new(ErrorKind::PeerGone, "gone");
        assert!(!is_lasting(&gone) && !is_lack(&gone));
    }

    #[test]
    fn attempts_become_rare_and_a_window_forgets_that() {
        let windows = Windows::default();
        let pause = || windows.missed().unwrap() - Instant::now();
        let pauses: Vec<_> = (0..10).map(|_| pause()).collect();
        assert!(pauses[0] <= FIRST && pauses[1] > FIRST && pauses[9] <= FIRST * 32, "{pauses:?}");
        windows.came();
        assert!(pause() <= FIRST && windows.may_come());
        windows.never_come();
        assert!(!windows.may_come());
    }
}
