//! The state word as a table, without memory or time.
//!
//! ```text
//!              client flips                    any side shuts down
//!        ┌──────────────────────┐            ┌─────────────────────┐
//!        │                      ▼            │                     ▼
//!  0 client active      1 server active ─────┴──────────▶ 2 shut down (for good)
//!        ▲                      │
//!        └──────────────────────┘            every other value: a violation
//!              server flips
//! ```

use std::fmt;

/// The value of the state word that means "shut down".
pub(crate) const SHUT_DOWN: u32 = 2;

/// Which end of the window an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Holds control at first.
    Client,
    /// Waits at first.
    Server,
}

impl Side {
    /// The state in which this side holds control.
    #[inline(always)]
    pub(crate) const fn active(self) -> u32 {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }

    /// The other side.
    #[inline(always)]
    pub(crate) const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What a value of the state word means to one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// This side holds control.
    Ours,
    /// The peer holds it.
    Theirs,
    /// Nobody will hold it again.
    Down,
    /// No such state: the peer wrote it.
    Invalid(u32),
}

/// Reads the state word for `side`.
pub(crate) const fn read(word: u32, side: Side) -> Control {
    if word == side.active() {
        Control::Ours
    } else if word == side.peer().active() {
        Control::Theirs
    } else if word == SHUT_DOWN {
        Control::Down
    } else {
        Control::Invalid(word)
    }
}

/// Why `side`'s flip failed, given the value that its compare-exchange found instead of its own. `None`: shut down. While a side
/// holds control nobody but a shutdown may change the word, so everything else is a violation.
pub(crate) const fn refused_flip(found: u32) -> Option<StateViolation> {
    match found {
        SHUT_DOWN => None,
        state => Some(StateViolation::State(state)),
    }
}

/// How a peer broke the protocol of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateViolation {
    /// The state word has a value that it cannot have now.
    State(u32),
    /// The announced datagram is longer than the window's capacity.
    Length {
        /// Bytes announced.
        length: u32,
        /// Bytes that fit.
        capacity: u32,
    },
    /// Bytes or descriptors lay for a second on a socket that nobody reads.
    Unread,
    /// The handshake datagram is not what the protocol says.
    Handshake(&'static str),
}

impl fmt::Display for StateViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "invalid state word {state:#x}"),
            Self::Length { length, capacity } => {
                write!(f, "a datagram of {length} bytes: the window has room for {capacity}")
            }
            Self::Unread => f.write_str("it sent something over a socket that nobody reads, where it lay for a second"),
            Self::Handshake(fault) => write!(f, "invalid handshake: {fault}"),
        }
    }
}

impl std::error::Error for StateViolation {}
