//! Channels whose call timed out.
//!
//! The channel is set aside with a thread that waits for the answer a little longer. If it comes, it is thrown away and the channel
//! goes back to the others; if not, the channel is retired. In between nobody else can use it, so an answer that comes too late is seen by
//! nobody.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::channel::Channel;
use super::shared::Shared;
use crate::deadline::Deadline;
use crate::rpc::message::answer::{NoValue, overdue};
use crate::rpc::trace;
use crate::sys::thread;

/// How long the answer to a call that timed out is waited for before its channel is retired.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Sets a channel aside that waits for the answer to a call of type `tag`, for `patience` at most.
pub(super) fn set_aside(shared: &Arc<Shared>, mut channel: Box<Channel>, tag: u16, patience: Duration) {
    trace::slow_call(tag);
    let shared = Arc::downgrade(shared);
    let wait = move || {
        let answered = channel.receive(Deadline::after(patience), &mut |tag, _, _| {
            overdue(tag).map_err(|violation| NoValue::from(violation).into())
        });
        match answered {
            Ok(()) => give_back(&shared, channel),
            Err(_) => retire(&shared, channel),
        }
    };
    // Without a thread the closure is dropped, and the channel with it: it is retired at once.
    drop(thread::spawn("flipcall-aside", wait));
}

fn give_back(shared: &Weak<Shared>, channel: Box<Channel>) {
    if let Some(shared) = shared.upgrade() {
        shared.give_back(channel);
    }
}

fn retire(shared: &Weak<Shared>, channel: Box<Channel>) {
    channel.shut_down();
    drop(channel);
    if let Some(shared) = shared.upgrade() {
        shared.pool.released();
    }
}
