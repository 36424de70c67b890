//! The client: calls from many threads over a pool of channels.

mod calls;
mod channel;
mod checkout;
mod config;
mod connect;
mod debug;
mod failure;
mod handle;
mod lack;
mod open;
mod overdue;
mod pool;
mod quarantine;
mod reconnect;
mod register;
mod request;
mod session;
mod shared;
mod stream;
mod windows;

pub use config::ClientConfig;
pub use connect::inherited_socket;
pub use handle::Client;
pub use shared::ClientCounters;
pub use stream::Stream;
