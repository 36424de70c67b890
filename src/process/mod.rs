//! Child processes: how one is started, what it inherits, and how it ends.
//!
//! A [`ChildProcess`] is killed and reaped when it is dropped, and ends with this process, whatever thread started it, unless it is
//! [detached](ChildProcess::detach). Descriptors go along with [`pass_descriptor`], and [`InheritedFds`] is how the child comes to own
//! them. [`endpoint::Spawned`](crate::endpoint::Spawned) and [`rpc::Client::spawn`](crate::rpc::Client::spawn) are made of these.

mod child;
mod handover;
mod pidfd;
mod reaper;
mod tail;

pub use crate::sys::inherit::InheritedFds;
pub use child::ChildProcess;
pub use handover::pass_descriptor;

pub(crate) use handover::Handover;
