//! How a call ends that brings no value.
//!
//! Two very different things can go wrong. Either the other side answered with an error ([`Status`]): the connection is fine. Or there is
//! no answer ([`Error`]): a deadline passed, the peer is dead, or it broke the protocol. [`CallError`] keeps the two apart.

use std::fmt;

use super::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::error::{Error, ErrorKind};

macro_rules! codes {
    ($($(#[$note:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// What kind of error a [`Status`] is: one byte on the wire. `Code::from` makes it from the byte; a number that this crate has no
        /// name for becomes [`Code::Other`].
        ///
        /// ```
        /// use flipcall::rpc::Code;
        /// assert_eq!(Code::from(5), Code::Timeout);
        /// assert_eq!((Code::from(200), u8::from(Code::Other(200))), (Code::Other(200), 200));
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$note])* $name,)*
            /// A number that this crate has no name for, such as a service's own.
            Other(u8),
        }

        impl From<u8> for Code {
            fn from(number: u8) -> Self {
                match number {
                    $($number => Self::$name,)*
                    number => Self::Other(number),
                }
            }
        }

        impl From<Code> for u8 {
            fn from(code: Code) -> Self {
                match code {
                    $(Code::$name => $number,)*
                    Code::Other(number) => number,
                }
            }
        }

        impl fmt::Display for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Other(number) => write!(f, "error {number}"),
                }
            }
        }
    };
}

codes! {
    /// A handle that is unknown or closed.
    InvalidHandle = 1, "invalid handle";
    /// An argument out of range, a request that does not decode, an unknown message type.
    InvalidArgument = 2, "invalid argument";
    /// What the call is about does not run.
    NotRunning = 3, "not running";
    /// What the call is about is closed.
    AlreadyClosed = 4, "already closed";
    /// The deadline of the call passed at the server.
    Timeout = 5, "timeout";
    /// There is no hypervisor, or the operation is not supported.
    HypervisorUnavailable = 6, "hypervisor unavailable";
    /// An error of the operating system.
    Io = 7, "input/output error";
    /// An error of the network.
    Network = 8, "network error";
    /// The operation was cancelled.
    Cancelled = 9, "cancelled";
    /// A message is over the size that its receiver accepts.
    TooLarge = 64, "too large";
    /// A quota, descriptors or memory are used up.
    NoResource = 65, "no resource left";
    /// Anything else.
    Unknown = 99, "unknown error";
}

/// An error that the other side answered with. A handler makes one, and its caller gets it in a [`CallError::Status`].
///
/// ```
/// use flipcall::rpc::{Code, Status};
/// let status = Status::new(Code::Io, "no space left on device").op("write").path("/var/lib/disk.img");
/// assert_eq!(status.to_string(), "write /var/lib/disk.img: input/output error: no space left on device");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a status has no effect until the handler returns it"]
pub struct Status {
    /// What kind of error it is, for the program.
    pub code: Code,
    /// What went wrong, for a person. A peer chose the text, so treat it as foreign.
    pub message: String,
    /// The operation that failed, empty if the method says enough.
    pub op: String,
    /// The file or address that the operation failed on, empty if there is none.
    pub path: String,
}

impl Status {
    /// An error without operation and path. `message` is a sentence without a full stop, and may be empty.
    #[cold]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), op: String::new(), path: String::new() }
    }

    /// Names the operation that failed.
    pub fn op(mut self, op: impl Into<String>) -> Self {
        self.op = op.into();
        self
    }

    /// Names the file or address that the operation failed on.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// [`Code::InvalidArgument`] with a message.
    #[cold]
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.op.as_str(), self.path.as_str()) {
            ("", "") => {}
            ("", what) | (what, "") => write!(f, "{what}: ")?,
            (op, path) => write!(f, "{op} {path}: ")?,
        }
        write!(f, "{}", self.code)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Status {}

impl Encode for Status {
    fn encode(&self, encoder: &mut Encoder<'_>) {
        encoder.u8(self.code.into());
        for text in [&self.message, &self.op, &self.path] {
            encoder.str(text);
        }
    }
}

impl<'a> Decode<'a> for Status {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let code = Code::from(decoder.u8()?);
        let mut text = || String::decode(decoder);
        Ok(Self { code, message: text()?, op: text()?, path: text()? })
    }
}

impl From<DecodeError> for Status {
    fn from(error: DecodeError) -> Self {
        Self::invalid_argument(format!("the request does not decode as what this method takes: {error}"))
    }
}

impl From<std::io::Error> for Status {
    fn from(error: std::io::Error) -> Self {
        // With the causes of an error that this crate put into it: the other side gets no more than the text.
        Self::new(Code::Io, format!("{error:#}"))
    }
}

/// Why a call brought no value.
///
/// It prints as the error inside it does, and [`source`](std::error::Error::source) is the cause of that error: a program that prints the
/// chain prints each error once.
///
/// ```
/// # use flipcall::rpc::{CallError, Code, Status};
/// fn explain(error: &CallError) -> String {
///     match error {
///         CallError::Status(status) if status.code == Code::InvalidArgument => format!("wrong: {}", status.message),
///         error if error.is_timeout() => "too slow".into(),
///         error => format!("{error:#}"), // with its causes
///     }
/// }
/// assert_eq!(explain(&Status::invalid_argument("no such key").into()), "wrong: no such key");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CallError {
    /// The other side answered with an error. The connection is as good as before.
    Status(Status),
    /// There is no answer. [`Error::kind`] says why. The client goes on with other channels where it has them:
    /// [`Client::is_alive`](super::Client::is_alive) says whether it still has a connection, [`Error::is_fatal`] does not.
    Failed(Error),
}

impl CallError {
    /// Whether the call's deadline passed, here or at the server.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Status(status) => status.code == Code::Timeout,
            Self::Failed(error) => error.kind() == ErrorKind::Timeout,
        }
    }

    /// The error that the other side answered with, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            Self::Failed(_) => None,
        }
    }

    /// Why there is no answer, if there is none.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        match self {
            Self::Status(_) => None,
            Self::Failed(error) => Some(error),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Status(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<CallError> for std::io::Error {
    /// For programs whose errors are those of the standard library. The call's error is inside it.
    fn from(error: CallError) -> Self {
        use std::io::ErrorKind as Io;
        let status = match error {
            CallError::Failed(error) => return error.into(),
            CallError::Status(status) => status,
        };
        let kind = match status.code {
            Code::InvalidHandle | Code::InvalidArgument => Io::InvalidInput,
            Code::NotRunning | Code::AlreadyClosed => Io::NotConnected,
            Code::Timeout => Io::TimedOut,
            Code::HypervisorUnavailable => Io::Unsupported,
            Code::Cancelled => Io::Interrupted,
            Code::TooLarge => Io::FileTooLarge,
            _ => Io::Other,
        };
        Self::new(kind, status)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_status_names_what_it_has() {
        let status = || Status::new(Code::Io, "broken");
        assert_eq!(status().to_string(), "input/output error: broken");
        assert_eq!(status().op("read").to_string(), "read: input/output error: broken");
        assert_eq!(status().path("/x").to_string(), "/x: input/output error: broken");
        assert_eq!(status().op("read").path("/x").to_string(), "read /x: input/output error: broken");
        assert_eq!(Status::new(Code::Other(77), "").to_string(), "error 77");
    }

    #[test]
    fn an_error_in_the_chain_of_a_call_is_there_once() {
        let violation = crate::rpc::CallViolation::Unexpected(7);
        let failed = CallError::from(Error::from(violation));
        let cause = failed.source().and_then(|source| source.downcast_ref());
        assert_eq!(cause, Some(&violation), "the cause of the error inside is the cause of the call's");
        assert!(failed.status().is_none() && failed.failure().is_some());
        let refused = CallError::from(Status::invalid_argument("no such key"));
        assert!(refused.source().is_none() && refused.failure().is_none());
        assert_eq!(refused.to_string(), "invalid argument: no such key");
    }

    #[test]
    fn every_number_is_a_code_and_back() {
        for number in 0..=u8::MAX {
            assert_eq!(u8::from(Code::from(number)), number);
        }
    }
}
