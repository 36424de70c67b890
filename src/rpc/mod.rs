//! Typed calls over a window, or over a socket where no window can be had.
//!
//! A [`Server`] answers message types with the functions of a [`Router`]; a [`Client`] calls them from any number of threads. Both
//! transports carry the same messages, and a handler cannot tell which one it was called by.
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
//! [`service!`](crate::service) makes a typed client and a server trait of a list of methods, [`message!`](crate::message) makes
//! structs that can be sent, and [`codec`] has the encodings. What travels between the two, and why, is in `docs/rpc.md`.

mod client;
pub mod codec;
mod line;
#[doc(hidden)]
pub mod message;
mod router;
mod server;
mod service;
mod status;
mod trace;
mod violation;
mod wire;

pub use client::{Client, ClientConfig, ClientCounters, Stream, inherited_socket};
pub use router::Router;
pub use server::{Answered, CancelToken, Chunks, Context, Reply, Server, ServerConfig, ServerCounters, ServerHandle};
pub use status::{CallError, Code, Status};
pub use violation::CallViolation;
