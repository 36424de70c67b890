//! How the peer ended a channel, or the whole mux.

use super::protocol::control::Reason;
use crate::error::{Error, ErrorKind};

/// Why the peer ended a channel or a whole mux: the source of an error of kind [`ErrorKind::PeerShutdown`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The peer refused the channel.
    Refused(Reason),
    /// The peer gave the channel up.
    Reset(Reason),
    /// The peer ended the mux, with a text for people.
    Goodbye(Reason, String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "the channel was refused: {reason}"),
            Self::Reset(reason) => write!(f, "the channel was reset: {reason}"),
            Self::Goodbye(reason, text) if text.is_empty() => write!(f, "the mux was closed: {reason}"),
            // The text is the peer's: what a terminal would take for a command is escaped.
            Self::Goodbye(reason, text) => write!(f, "the mux was closed: {reason}: {}", text.escape_debug()),
        }
    }
}

impl std::error::Error for Ended {}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        let what = match ended {
            Ended::Refused(_) => "the peer refused the channel",
            Ended::Reset(_) => "the peer gave the channel up",
            Ended::Goodbye(..) => "the peer closed the mux",
        };
        Self::caused(ErrorKind::PeerShutdown, what, ended)
    }
}
