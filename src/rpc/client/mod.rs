//! The client: calls from many threads over a pool of channels.

mod calls;
mod channel;
mod checkout;
mod config;
mod connect;
mod debug;
mod failure;
mod handle;
mod open;
mod pool;
mod quarantine;
mod session;
mod shared;
mod stream;

pub use config::ClientConfig;
pub use connect::inherited_socket;
pub use handle::Client;
pub use shared::ClientCounters;
pub use stream::Stream;
