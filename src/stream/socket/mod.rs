//! Frames on a socket of this host: every wait has a deadline, whatever the peer does to the flags of the socket.
//!
//! [`frame_socket`] blocks, [`nonblocking`] serves an event loop; both are shells around [`inbox`] (what comes) and [`outbox`] (what goes).

pub(super) mod access;
pub(crate) mod address;
mod attach_only;
pub(super) mod attachments;
mod buffer_swap;
pub(super) mod frame_socket;
pub(super) mod inbox;
pub(super) mod listener;
mod lock_file;
pub(super) mod nonblocking;
pub(super) mod one_shot;
pub(super) mod outbox;
pub(super) mod peer;
pub(super) mod progress;
pub(super) mod readiness;
mod receiving;
mod send_file;
mod sending;
pub(super) mod shutdown;
mod socket_file;
mod unshared;
