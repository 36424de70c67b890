//! What the command says: the one place that writes to the standard streams.
//!
//! A reader that has had enough, as in `flipcall doctor | head -n 1`, ends a command quietly and with exit status 0. What cannot be written for
//! another reason, as onto a full device, is an error. What cannot be written to the standard error is lost.

use std::fmt;
use std::io::{self, Write};

use crate::outcome::Outcome;

/// The standard output took no more.
#[derive(Debug)]
pub(crate) struct Unsaid(io::Error);

impl Unsaid {
    /// Whether that is because nobody reads any more.
    pub(crate) fn is_unheard(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to the standard output: {}", self.0)
    }
}

impl std::error::Error for Unsaid {}

/// Writes to the standard output, and sees to it that it has left.
pub(crate) fn say(text: impl fmt::Display) -> Outcome {
    let mut output = io::stdout().lock();
    Ok(write!(output, "{text}").and_then(|()| output.flush()).map_err(Unsaid)?)
}

/// A line on the standard output of a command that goes on, whether anybody reads it or not.
pub(crate) fn announce(line: impl fmt::Display) -> Outcome {
    match say(format_args!("{line}\n")) {
        Err(error) if error.downcast_ref().is_some_and(Unsaid::is_unheard) => Ok(()),
        other => other,
    }
}

/// A line on the standard error, if that takes it.
pub(crate) fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
