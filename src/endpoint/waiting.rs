//! Calls that missed their deadline.

use super::ShutdownHandle;
use super::active::Endpoint;
use super::core::Core;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};

/// A connection whose answer is late. Control is the peer's.
///
/// [`resume`](Self::resume) waits on; dropping it shuts the connection down. Either way the late answer is never taken for that of a
/// later call.
///
/// ```
/// use flipcall::endpoint::{Endpoint, Interrupted};
/// use flipcall::Error;
/// use std::time::Duration;
///
/// /// Waits a little, says so, and waits on. The connection comes back with the answer.
/// fn call(endpoint: &mut Endpoint, length: u32) -> Result<u32, Error> {
///     match endpoint.send_recv(length, Duration::from_millis(100)) {
///         Err(Interrupted::TimedOut(waiting)) => {
///             eprintln!("the answer is late");
///             let (back, length) = waiting.resume(Duration::from_secs(5))?;
///             *endpoint = back;
///             Ok(length)
///         }
///         done => Ok(done?),
///     }
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping it shuts the connection down"]
pub struct Waiting {
    core: Box<Core>,
}

impl Waiting {
    pub(super) fn new(core: Box<Core>) -> Self {
        Self { core }
    }

    /// Waits on for the answer: returns the connection and the length of the datagram in bytes.
    ///
    /// # Errors
    /// As [`Endpoint::send_recv`].
    pub fn resume(mut self, deadline: impl Into<Deadline>) -> Result<(Endpoint, u32), Interrupted<Self>> {
        match self.core.wait(deadline.into()) {
            Ok(length) => Ok((Endpoint::new(self.core), length)),
            Err(error) => Err(Interrupted::by(error, self)),
        }
    }

    /// A handle that ends the wait from anywhere.
    #[must_use]
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.core.shared.handle()
    }
}

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
