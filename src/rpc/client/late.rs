//! Channels whose answer is late.
//!
//! The channel is set aside with a thread that waits for the answer a little longer. If it comes, it is thrown away and the channel
//! goes back to the others; if not, the channel is retired. In between nobody else can use it, so the late answer is seen by nobody.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Shared;
use super::channel::{Channel, Line};
use super::failure::Failure;
use crate::Deadline;
use crate::rpc::wire::{ERROR, RESPONSE};
use crate::rpc::{CallViolation, trace};

/// Sets a channel aside that waits for the answer to a call of type `tag`, for `patience` at most.
pub(super) fn set_aside(shared: &Arc<Shared>, mut channel: Box<Channel>, tag: u16, patience: Duration) {
    trace::slow_call(tag);
    let shared = Arc::downgrade(shared);
    let wait = move || {
        let answered = channel.receive(Deadline::after(patience), &mut |tag, _, _| match tag {
            RESPONSE | ERROR => Ok(()),
            _ => Err(Failure::Lost(CallViolation::Unexpected(tag).into())),
        });
        match answered {
            Ok(()) => give_back(&shared, channel),
            Err(_) => retire(&shared, channel),
        }
    };
    // Without a thread the closure is dropped, and the channel with it: it is retired at once.
    drop(std::thread::Builder::new().name("flipcall-late".into()).spawn(wait));
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

impl Shared {
    /// Takes a channel back that was away and is in order.
    pub(super) fn give_back(&self, mut channel: Box<Channel>) {
        let Some(loan) = channel.loan.take() else { return self.pool.put(channel) };
        match channel.line {
            Line::Socket(_) if channel.is_known_over() => drop(loan),
            Line::Socket(line) => loan.give_back(line),
            Line::Window(_) => {}
        }
        self.pool.released();
    }
}
