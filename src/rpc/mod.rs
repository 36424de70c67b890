//! Typed calls.
pub mod codec;
mod line;
mod router;
mod server;
mod status;
mod trace;
mod violation;
mod wire;

pub use router::Router;
pub use server::{Answered, CancelToken, Chunks, Context, Reply, Server, ServerConfig, ServerCounters, ServerHandle};
pub use status::{CallError, Code, Status};
pub use violation::Violation;
