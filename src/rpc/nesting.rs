//! Whether a thread serves calls. A call that a handler makes holds up the one that it answers, and perhaps others that wait for that.

use std::cell::Cell;

thread_local! {
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// This thread serves calls, until dropped.
#[derive(Debug)]
pub(super) struct Serving {
    /// A handler may serve, too.
    before: bool,
}

impl Serving {
    /// From now on.
    pub(super) fn begin() -> Self {
        Self { before: SERVES.replace(true) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVES.set(self.before);
    }
}

/// Whether a call that this thread makes is made by a handler.
pub(super) fn is_in_handler() -> bool {
    SERVES.get()
}
