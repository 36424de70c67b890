//! Why there is no control.

use rustix::io::Errno;

use super::state::StateViolation;

/// Why a flip or a wait did not lead to control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The deadline passed. The wait can be taken up again.
    TimedOut,
    /// This side shut down.
    LocalShutdown,
    /// The peer shut down.
    PeerShutdown,
    /// The peer died.
    PeerGone,
    /// The peer broke the protocol.
    Violation(StateViolation),
    /// The kernel refused to sleep.
    System(Errno),
}
