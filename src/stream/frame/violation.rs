//! The ways in which a peer can break the rules of a socket.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// What the peer did on a socket that the protocol does not allow: the source of an error of kind
/// [`ErrorKind::Violation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameViolation {
    /// A frame header announced a payload over the maximum, both in bytes.
    TooLong {
        /// What the header says.
        announced: u32,
        /// What this side accepts.
        maximum: u32,
    },
    /// A frame that had begun was not complete by its deadline.
    TooSlow,
    /// The peer did not take what was written to it by the deadline for a write.
    WriteTooSlow,
    /// More bytes wait to be written than the bound of a buffered writer allows.
    Backlog {
        /// Bytes that wait.
        waiting: usize,
        /// The bound, in bytes.
        bound: usize,
    },
    /// File descriptors came with bytes that do not begin an ATTACH frame.
    MisplacedFds,
    /// An ATTACH frame began in a read that brought no file descriptors.
    AttachWithoutFds,
    /// An ATTACH frame whose length is not 1 or whose number is not 1 to 16.
    MalformedAttach,
    /// The number of file descriptors that came is not the announced one.
    WrongFdCount {
        /// What the ATTACH frame says.
        announced: u8,
        /// How many came.
        came: usize,
    },
    /// Two ATTACH frames for one message, or two in one read.
    SecondAttach,
    /// A mux frame that the state of its channel does not allow.
    Mux(MuxViolation),
}

/// What the peer did on a mux that the state table does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MuxViolation {
    /// The first frame was not a HELLO.
    NoHello,
    /// A second HELLO.
    SecondHello,
    /// A HELLO of another version, or with a value out of range.
    BadHello,
    /// No HELLO by the deadline for handshakes.
    LateHello,
    /// A control frame with an unknown operation, a wrong length, or a malformed name.
    Malformed,
    /// An OPEN with an id of the wrong parity, or id 0.
    WrongParity(u16),
    /// A frame that the state of its channel forbids.
    Forbidden {
        /// The channel id.
        id: u16,
        /// The operation byte, `None` for a data frame.
        operation: Option<u8>,
    },
    /// Data over the credit that was granted.
    OverCredit(u16),
    /// A first credit under the sender's own maximum frame, a CREDIT of 0, or a sum over 2^31.
    BadCredit(u16),
}

impl fmt::Display for FrameViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { announced, maximum } => {
                write!(f, "a frame of {announced} bytes was announced (limit {maximum})")
            }
            Self::TooSlow => f.write_str("a frame was begun and not finished in time"),
            Self::WriteTooSlow => f.write_str("what was sent was not taken in time"),
            Self::Backlog { waiting, bound } => {
                write!(f, "{waiting} bytes wait for a peer that does not read (limit {bound})")
            }
            Self::MisplacedFds => f.write_str("file descriptors came on bytes that do not begin an ATTACH frame"),
            Self::AttachWithoutFds => {
                f.write_str("an ATTACH frame came without the file descriptors that it announces")
            }
            Self::MalformedAttach => f.write_str("an ATTACH frame did not have one byte of 1 to 16 as its payload"),
            Self::WrongFdCount { announced, came } => {
                write!(f, "an ATTACH frame announced {announced} file descriptors, and {came} came")
            }
            Self::SecondAttach => f.write_str("a second ATTACH frame came for one message, or in one read"),
            Self::Mux(violation) => violation.fmt(f),
        }
    }
}

impl fmt::Display for MuxViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHello => f.write_str("the first frame was not a HELLO"),
            Self::SecondHello => f.write_str("a second HELLO came"),
            Self::BadHello => f.write_str("the HELLO has an unknown version, or a value out of range"),
            Self::LateHello => f.write_str("no HELLO came in time"),
            Self::Malformed => {
                f.write_str("a control frame has an unknown operation, a wrong length or a malformed text")
            }
            Self::WrongParity(id) => write!(f, "an OPEN came for channel {id}, which is not the sender's to open"),
            Self::Forbidden { id, operation: Some(operation) } => {
                write!(f, "{} is not allowed in the state of channel {id}", operation_name(*operation))
            }
            Self::Forbidden { id, operation: None } => write!(f, "data is not allowed in the state of channel {id}"),
            Self::OverCredit(id) => write!(f, "data came for channel {id} that is over its credit"),
            Self::BadCredit(id) => write!(f, "the credit granted for channel {id} is out of range"),
        }
    }
}

/// The name of a control operation that depends on the state of its channel.
fn operation_name(operation: u8) -> &'static str {
    match operation {
        1 => "OPEN",
        2 => "ACCEPT",
        3 => "REFUSE",
        5 => "END",
        6 => "RESET",
        _ => "this operation",
    }
}

impl std::error::Error for FrameViolation {}
impl std::error::Error for MuxViolation {}

impl From<MuxViolation> for FrameViolation {
    fn from(violation: MuxViolation) -> Self {
        Self::Mux(violation)
    }
}

impl From<FrameViolation> for Error {
    fn from(violation: FrameViolation) -> Self {
        Self::caused(ErrorKind::Violation, "the peer broke the protocol of the socket", violation)
    }
}
