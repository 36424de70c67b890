//! What every handle of a mux holds.

use std::sync::Arc;

use super::protocol::control::Reason;
use super::shared::Shared;

/// Ends the mux when the last handle goes.
pub(super) struct Owner(pub(super) Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let Ok(mut inner) = self.0.enter() else { return };
        inner.closing.get_or_insert(Reason::CLOSING);
        self.0.wake_reader();
    }
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mux").field("socket", &self.0.socket).finish_non_exhaustive()
    }
}
