//! The connection after its last datagram.

use super::core::Core;
use crate::control::Expect;
use crate::deadline::Deadline;
use crate::error::{ErrorKind, Result};

/// A connection on which the last datagram was sent.
///
/// Dropping it leaves the window as it is, so that the peer can still take that datagram.
#[derive(Debug)]
pub struct Finished {
    pub(super) core: Box<Core>,
}

impl Finished {
    /// Waits until the peer is done: it shut down or answered. What it answered is not read; the connection is shut down then.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), after which it can be waited for again; a dead peer or a violation.
    pub fn wait(&mut self, deadline: impl Into<Deadline>) -> Result<()> {
        let ended = match self.core.check() {
            Ok(()) => self.core.wait(Expect::Answer, deadline.into()).map(drop),
            poisoned => poisoned,
        };
        match ended {
            // A shutdown is the end that was waited for.
            Err(error) if !matches!(error.kind(), ErrorKind::PeerShutdown | ErrorKind::LocalShutdown) => Err(error),
            _ => {
                self.shut_down();
                Ok(())
            }
        }
    }

    /// Shuts the connection down. A last datagram that the peer has not taken yet is lost.
    pub fn shut_down(&self) {
        self.core.shared.shut_down();
    }
}
