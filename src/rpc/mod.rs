//! Typed calls over a window, or over a socket where no window can be had.
//!
//! A [`Server`] answers calls with the functions of a [`Router`]; a [`Client`] makes calls, from any number of threads. A method has a
//! number, and a request and an answer are values that the [`codec`] turns into bytes. A window and a socket carry the same messages: a
//! handler cannot tell which one brought its call.
//!
//! ```
//! use flipcall::rpc::{Client, Router, Server, Status};
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//!
//! let mut router = Router::new();
//! router.unary(2, |_context, (a, b): (u64, u64)| {
//!     a.checked_add(b).ok_or_else(|| Status::invalid_argument("overflow"))
//! });
//! let server = Server::new(router, Default::default());
//! let (ours, theirs) = UnixStream::pair()?;
//! std::thread::spawn(move || server.serve_one(theirs));
//!
//! let client = Client::from_socket(ours, Default::default())?;
//! let sum: u64 = client.call(2, &(40u64, 2u64), Duration::from_secs(5))?;
//! assert_eq!(sum, 42);
//! let error = client.call::<_, u64>(2, &(u64::MAX, 1u64), Duration::from_secs(5)).unwrap_err();
//! assert_eq!(error.status().unwrap().message, "overflow");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`service!`](crate::service) makes a typed client and a server trait of a list of methods. [`message!`](crate::message) makes structs
//! that can be sent. `docs/wire.md` has the bytes that travel, `docs/rpc.md` the reasons and the limits.
//!
//! # What happens when something goes wrong
//!
//! A call that brings no value is a [`CallError`]. [`CallError::Status`]: the other side answered with an error. [`CallError::Failed`]:
//! there is no answer. Every call has a deadline. A client that has given up on a call sets the call's channel aside until the answer
//! comes, so a late answer never passes for that of another call.
//!
//! # What a client can make the server keep
//!
//! Connections, channels, bytes of windows and bytes of large requests are limited by [`ServerConfig`], in total and for each connection.
//! One connecting process gets at most a quarter of each total, so that no client starves the others. The number of connections and
//! channels is lowered to what the process's descriptor table holds; [`raise_descriptor_limit`] makes room.

mod client;
pub mod codec;
#[doc(hidden)]
pub mod message;
mod nesting;
mod router;
mod server;
mod service;
mod status;
mod trace;
mod transport;
mod violation;

pub use crate::endpoint::WaitPolicy;
pub use client::{Client, ClientConfig, ClientCounters, Stream, inherited_socket};
pub use router::Router;
pub use server::{
    Answered, CancelToken, Chunks, Context, Reply, Server, ServerConfig, ServerCounters, ServerHandle,
    raise_descriptor_limit,
};
pub use status::{CallError, Code, Status};
pub use violation::CallViolation;
