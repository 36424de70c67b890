//! The mux without sockets, clocks and locks: what its frames say, which of them is allowed when, and which thread reads the socket.
//!
//! [`state`] has one side's channels and credit and what a program does with them; [`validate`] has what a peer's frame means, or that it
//! is a violation; [`leadership`] decides which thread reads, the leader. Tests walk through every order of events of each.

pub(super) mod control;
#[cfg(test)]
mod explore;
#[cfg(test)]
mod hostile;
pub(super) mod leadership;
#[cfg(test)]
mod leadership_explore;
pub(super) mod state;
mod validate;
