//! Many channels over one socket.

mod control;
mod core;
#[cfg(test)]
mod explore;

pub use control::Reason;
