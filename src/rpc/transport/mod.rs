//! The transports of calls: a socket alone, or a window with a socket beside it. They move the bytes that [`message`](super::message) asks
//! for, and know nothing of what a message means.

mod bulk;
mod fault;
mod fragments;
mod inline;
mod payload;
mod retention;
mod socket;
mod staged;
mod window;
mod window_receive;
mod window_send;

pub(crate) use fault::hang_up;
pub(crate) use inline::InlineMessage;
pub(crate) use payload::{Payload, Received};
pub(crate) use retention::{Budget, QUIET, SETTLED};
pub(crate) use socket::SocketTransport;
pub(crate) use staged::{Long, Staged, Unstaged};
pub(crate) use window::WindowTransport;
pub(crate) use window_send::Held;
