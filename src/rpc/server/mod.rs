//! The server: a worker per channel, quotas for everything a client can make it keep, and a graceful end.

mod accept;
mod base;
mod call;
mod closing;
mod config;
mod context;
mod counters;
mod debug;
mod here;
mod limits;
mod open;
mod outcome;
mod quota;
mod reply;
mod serve;
mod served;
mod shared;
mod socket;
mod taken;
mod window;
mod worker;

pub use accept::Server;
pub use closing::ServerHandle;
pub use config::ServerConfig;
pub use context::{CancelToken, Context};
pub use counters::ServerCounters;
pub use limits::raise_descriptor_limit;
pub use reply::{Answered, Chunks, Reply};
