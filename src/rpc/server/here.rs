//! Which workers the current thread serves: a handler that closes the server must not wait for itself.

use std::cell::RefCell;
use std::sync::Arc;

use super::worker::Worker;

thread_local! {
    /// One, or more where a handler serves a connection itself.
    static HERE: RefCell<Vec<Arc<Worker>>> = const { RefCell::new(Vec::new()) };
}

/// This thread serves a worker, until dropped.
#[derive(Debug)]
pub(super) struct Here(());

impl Here {
    pub(super) fn begin(worker: &Arc<Worker>) -> Self {
        HERE.with_borrow_mut(|workers| workers.push(Arc::clone(worker)));
        Self(())
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        drop(HERE.with_borrow_mut(Vec::pop));
    }
}

/// Spares the workers of the handlers that run on this thread.
pub(super) fn spare() {
    HERE.with_borrow(|workers| workers.iter().for_each(|worker| worker.spare()));
}
