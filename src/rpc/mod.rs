//! Typed calls.
pub mod codec;
mod status;
mod wire;

pub use status::{CallError, Code, Status};
