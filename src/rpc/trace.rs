//! Events for the `tracing` crate, none of them on the hot path. Without the feature they are nothing.

#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $($rest:tt)*) => { tracing::$level!(target: "flipcall::rpc", $($rest)*) };
}

#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($level:ident, $($name:ident = $(%)? $value:expr,)* $text:literal) => {{ $(let _ = &$value;)* }};
}

use crate::error::Error;

/// A channel or connection of the server ended because its client broke the protocol, or by a failed system call.
pub(super) fn transport_ended(error: &Error) {
    event!(warn, error = %format_args!("{error:#}"), "a client's channel or connection ended");
}

/// A client is connected.
pub(super) fn connected(version: u32) {
    event!(info, version = version, "connected");
}

/// A client opened a channel; a window of 0 bytes is a socket alone.
pub(super) fn channel_opened(window: u32) {
    event!(debug, window = window, "channel opened");
}

/// A client goes on without a window.
pub(super) fn fell_back(error: &Error) {
    event!(warn, error = %format_args!("{error:#}"), "no window to be had, going on over a socket");
}

/// A client's channel can no longer be used.
pub(super) fn poisoned(error: &Error) {
    event!(warn, error = %format_args!("{error:#}"), "a channel ended");
}

/// A call missed its deadline; its channel is in quarantine until the answer comes.
pub(super) fn slow_call(tag: u16) {
    event!(warn, tag = tag, "a call missed its deadline");
}
