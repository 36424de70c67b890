//! Calls that missed their deadline, or failed.

use crate::error::{Error, ErrorKind};

/// Why a call did not lead to a datagram. With `?` it becomes an [`Error`], and what was waiting is dropped, which shuts down: such a
/// timeout [is fatal](Error::is_fatal).
///
/// In a function that returns `Box<dyn std::error::Error>`, `?` keeps it as it is, connection and all, so that a downcast to [`Error`]
/// finds nothing: convert it first, with `map_err(Error::from)`.
#[must_use = "dropping it shuts the connection down if it only timed out"]
pub enum Interrupted<S> {
    /// The deadline passed. Nothing is lost: this can be waited on with.
    TimedOut(S),
    /// The connection is gone, or the call was wrong in the first place: [`Error::is_fatal`] tells.
    Failed(Error),
}

impl<S> Interrupted<S> {
    /// Sorts an error of `waiting`.
    #[cold]
    pub(super) fn by(error: Error, waiting: S) -> Self {
        match error.kind() {
            ErrorKind::Timeout => Self::TimedOut(waiting),
            _ => Self::Failed(error),
        }
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TimedOut(_) => ErrorKind::Timeout,
            Self::Failed(error) => error.kind(),
        }
    }
}

impl<S> From<Interrupted<S>> for Error {
    fn from(interrupted: Interrupted<S>) -> Self {
        match interrupted {
            Interrupted::TimedOut(_) => {
                Self::new(ErrorKind::Timeout, "the peer did not answer by the deadline").and_the_end()
            }
            Interrupted::Failed(error) => error,
        }
    }
}

/// As an [`Error`] does: `{:#}` has its causes, too.
impl<S> std::fmt::Display for Interrupted<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(_) => f.write_str("the peer did not answer by the deadline"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// As an [`Error`] shows itself, whatever was waiting.
impl<S> std::fmt::Debug for Interrupted<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(_) => write!(f, "TimedOut({}: {self})", ErrorKind::Timeout),
            Self::Failed(error) => write!(f, "Failed({error:?})"),
        }
    }
}

impl<S> std::error::Error for Interrupted<S> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TimedOut(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}
