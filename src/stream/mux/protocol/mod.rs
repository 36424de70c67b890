//! The mux without sockets, clocks and locks: what its frames say, which of them is allowed when, and who reads the socket.
//!
//! [`state`] has one side's channels and credit and what a program does with them; [`judge`] has what a peer's frame means, or that it
//! is a violation; [`lead`] decides which thread reads. Tests walk through every order of events of each.

pub(super) mod control;
#[cfg(test)]
mod explore;
mod judge;
pub(super) mod lead;
#[cfg(test)]
mod lead_explore;
pub(super) mod state;
