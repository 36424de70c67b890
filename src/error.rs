//! What can go wrong, and whose fault it was.
//!
//! Every fallible function of the crate returns one opaque [`Error`]. Its [`ErrorKind`] is what a program
//! branches on, [`ErrorKind::blame`] says who caused it, [`Error::is_fatal`] whether the connection it came from can still be used,
//! and the source chain carries the detail (a [`Refusal`](crate::window::Refusal), a [`StateViolation`](crate::endpoint::StateViolation), an
//! operating system error).
//!
//! ```
//! use flipcall::window::{Seals, Window};
//! use flipcall::{Blame, ErrorKind};
//!
//! // A pipe is no packet window.
//! let (reader, _writer) = std::io::pipe()?;
//! let error = Window::receive(reader.into(), 0, 4096, Seals::Strict).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Refused);
//! assert_eq!(error.kind().blame(), Blame::Peer);
//!
//! // `{}` is the error alone, `{:#}` has its causes, too.
//! assert_eq!(error.to_string(), "the peer's window is refused");
//! assert_eq!(format!("{error:#}"), "the peer's window is refused: the file cannot be sealed: it is not a memfd");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use rustix::io::Errno;

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate: a kind, a sentence, and possibly a source.
///
/// `{}` prints the sentence alone, as a caller wants it that walks the chain of [sources](std::error::Error::source) itself. `{:#}` prints
/// the chain, each cause after a colon; so does `{:?}`, after the kind.
///
/// Cloning is cheap: a poisoned endpoint keeps the error that poisoned it and hands out copies.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    what: Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// Whether the connection is gone, where the kind alone does not say so.
    ended: bool,
}

/// The class of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or a call order that the documentation forbids. Nothing happened.
    InvalidInput,
    /// The answer to an earlier, timed-out call is still outstanding, in a [`Waiting`](crate::endpoint::Waiting).
    AnswerPending,
    /// The deadline passed.
    Timeout,
    /// This side shut the connection down.
    LocalShutdown,
    /// The peer shut the connection down.
    PeerShutdown,
    /// The peer's process or its end of the socket is gone.
    PeerGone,
    /// The peer broke the protocol.
    Violation,
    /// A file descriptor or a window that the peer handed over is not acceptable.
    Refused,
    /// This kernel, or the policy this process runs under, lacks something that is needed.
    Unsupported,
    /// The operating system refused something that should have worked.
    System,
    /// A limit of this side is used up, such as the channels of a client. Nothing was sent.
    NoResource,
}

/// Who caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// This process: a wrong argument, a wrong order of calls, its own shutdown, its own limits.
    Us,
    /// The other process.
    Peer,
    /// The operating system or its configuration.
    System,
}

impl ErrorKind {
    /// Who caused errors of this kind.
    #[must_use]
    pub fn blame(self) -> Blame {
        match self {
            Self::InvalidInput | Self::AnswerPending | Self::LocalShutdown | Self::NoResource => Blame::Us,
            Self::Timeout | Self::PeerShutdown | Self::PeerGone => Blame::Peer,
            Self::Violation | Self::Refused => Blame::Peer,
            Self::Unsupported | Self::System => Blame::System,
        }
    }

    /// The name of the kind as the command line prints it, such as `peer-gone`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid-input",
            Self::AnswerPending => "answer-pending",
            Self::Timeout => "timeout",
            Self::LocalShutdown => "local-shutdown",
            Self::PeerShutdown => "peer-shutdown",
            Self::PeerGone => "peer-gone",
            Self::Violation => "violation",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::System => "system",
            Self::NoResource => "no-resource",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Error {
    /// An error of `kind`; `what` is a sentence without a full stop.
    #[cold]
    pub(crate) fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, what: what.into(), source: None, ended: false }))
    }

    /// An error of `kind` that a typed error caused.
    #[cold]
    pub(crate) fn caused(
        kind: ErrorKind,
        what: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { kind, what: what.into(), source: Some(source.into().into()), ended: false }))
    }

    /// A system call, named by `what`, failed.
    #[cold]
    pub(crate) fn system(what: impl Into<Cow<'static, str>>, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let kind = match Errno::from_io_error(&source) {
            Some(Errno::NOSYS) => ErrorKind::Unsupported,
            _ => ErrorKind::System,
        };
        Self::caused(kind, what, source)
    }

    /// The same error where it took the connection with it: what carried the connection was dropped.
    #[cold]
    pub(crate) fn and_the_end(self) -> Self {
        let Inner { kind, what, source, .. } = &*self.0;
        Self(Arc::new(Inner { kind: *kind, what: what.clone(), source: source.clone(), ended: true }))
    }

    /// The caller passed something that the documentation forbids.
    #[cold]
    pub(crate) fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, what)
    }

    /// What a program branches on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the connection that returned this error is gone for good. `false` means that only this call failed: a wrong
    /// argument, a deadline, a limit, an answer that is still outstanding. A deadline is fatal where the call that waits was given up, as `?`
    /// does with [`Interrupted`](crate::endpoint::Interrupted).
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        use ErrorKind::{AnswerPending, InvalidInput, NoResource, Timeout};
        self.0.ended || !matches!(self.kind(), InvalidInput | AnswerPending | Timeout | NoResource)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        let mut cause = std::error::Error::source(self).filter(|_| f.alternate());
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}: {self:#})", self.kind())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::AnswerPending => Io::InvalidInput,
            ErrorKind::Timeout => Io::TimedOut,
            ErrorKind::LocalShutdown => Io::NotConnected,
            ErrorKind::PeerShutdown => Io::ConnectionAborted,
            ErrorKind::PeerGone => Io::ConnectionReset,
            ErrorKind::Violation | ErrorKind::Refused => Io::InvalidData,
            ErrorKind::Unsupported => Io::Unsupported,
            ErrorKind::NoResource => Io::ResourceBusy,
            ErrorKind::System => Io::Other,
        };
        Self::new(kind, error)
    }
}
