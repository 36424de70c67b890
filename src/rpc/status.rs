//! How a call ends that brings no answer.
//!
//! Two very different things can go wrong: the other side answered with an error ([`Status`], the connection is fine), or there is no
//! answer ([`Error`]: a deadline, a dead peer, a broken protocol). [`CallError`] keeps them apart.

use std::fmt;

use super::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::{Error, ErrorKind};

macro_rules! codes {
    ($($(#[$note:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The number of an error on the wire. One that this crate does not know is kept as [`Code::Other`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$note])* $name,)*
            /// A number that this crate has no name for.
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

/// An error that the other side answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What kind of error it is.
    pub code: Code,
    /// A sentence for a person.
    pub message: String,
    /// The operation that failed, empty if that says nothing.
    pub op: String,
    /// The file or address it failed on, empty if there is none.
    pub path: String,
}

impl Status {
    /// An error without operation and path.
    #[cold]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), op: String::new(), path: String::new() }
    }

    /// The operation that failed.
    pub fn op(mut self, op: impl Into<String>) -> Self {
        self.op = op.into();
        self
    }

    /// The file or address it failed on.
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
        if !self.op.is_empty() {
            write!(f, "{} ", self.op)?;
        }
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
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
        let mut text = || decoder.str().map(str::to_owned);
        Ok(Self { code, message: text()?, op: text()?, path: text()? })
    }
}

impl From<DecodeError> for Status {
    fn from(error: DecodeError) -> Self {
        Self::invalid_argument(format!("the request does not decode: {error}"))
    }
}

impl From<std::io::Error> for Status {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Io, error.to_string())
    }
}

/// Why a call brought no answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CallError {
    /// The other side answered with an error. The connection is as good as before.
    Status(Status),
    /// There is no answer. [`Error::kind`] says why; the client goes on with other channels where it has them. Whether it still has a
    /// connection says [`Client::is_alive`](super::Client::is_alive), not [`Error::is_fatal`].
    Failed(Error),
}

impl CallError {
    /// Whether the call's deadline passed, here or at the server.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Status(status) => status.code == Code::Timeout,
            Self::Failed(error) => error.kind() == ErrorKind::Timeout,
        }
    }

    /// The error that the other side answered with, if it did.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            Self::Failed(_) => None,
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
            Self::Status(status) => Some(status),
            Self::Failed(error) => Some(error),
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
