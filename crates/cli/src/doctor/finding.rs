//! What a line says.

use rustix::io::Errno;

/// What is there, and what follows from it.
pub(super) struct Finding {
    pub(super) found: String,
    pub(super) follows: &'static str,
}

/// `yes`, or `no` with the system's reason.
pub(super) fn found(what: Result<(), Errno>, yes: &'static str, no: &'static str) -> Finding {
    match what {
        Ok(()) => finding("yes", yes),
        Err(errno) => finding(format!("no ({errno})"), no),
    }
}

pub(super) fn finding(found: impl Into<String>, follows: &'static str) -> Finding {
    Finding { found: found.into(), follows }
}
