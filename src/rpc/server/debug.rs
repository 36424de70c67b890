//! What `{:?}` shows of a call to its handler: numbers, and nothing of what it carried.

use std::fmt;

use super::{Chunks, Context, Reply};

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("peer", self.peer())
            .field("deadline", &self.deadline())
            .field("received_fds", &self.received_fds())
            .field("attached_fds", &self.answer_fds.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("max_bytes", &self.maximum).finish_non_exhaustive()
    }
}

impl fmt::Debug for Chunks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks")
            .field("max_chunk", &self.max_chunk)
            .field("failed", &self.has_failed())
            .finish_non_exhaustive()
    }
}
