//! The typed connection over a window.
//!
//! The types say who may do what, and when. A [`Connector`] can only [`connect`](Connector::connect), an [`Acceptor`] can only wait for its
//! [first call](Acceptor::recv_first); both become an [`Endpoint`], whose holder has control: it fills in a datagram and flips
//! with [`send_recv`](Endpoint::send_recv), which returns once control is back. A call that missed its deadline becomes a [`Waiting`], which
//! waits on or is dropped. [`send_last`](Endpoint::send_last) ends the conversation. The one thing that may happen at any time, from
//! any thread, is a shutdown, on a [`ShutdownHandle`] of its own.
//!
//! ```text
//!  Connector ──connect──▶ Endpoint ──send_last──▶ Finished
//!                          ▲    │ send_recv
//!  Acceptor ──recv_first───┤    ├──answer in time──▶ (this Endpoint)
//!                          │    ▼ deadline
//!                          └─ Waiting ──drop──▶ shut down
//!                           resume
//! ```
//!
//! ```
//! use flipcall::window::{Allocator, Window};
//! use flipcall::endpoint::{Acceptor, Connector, Options};
//! use flipcall::Deadline;
//! use std::io::{Read, Write};
//!
//! let allocator = Allocator::new()?;
//! let descriptor = allocator.allocate(4096)?;
//! let server = Acceptor::new(Window::map(&descriptor)?, Options::new())?;
//! let serving = std::thread::spawn(move || -> Result<(), flipcall::Error> {
//!     let (mut endpoint, _) = server.recv_first(Deadline::NEVER)?;
//!     loop {
//!         let mut name = String::new();
//!         endpoint.reader().read_to_string(&mut name).expect("it is UTF-8");
//!         let length = endpoint.write_datagram(format!("hello, {name}").as_bytes())?;
//!         endpoint.send_recv(length, Deadline::NEVER)?;
//!     }
//! });
//!
//! let client = Connector::new(Window::map(&descriptor)?, Options::new())?;
//! let mut endpoint = client.connect(Deadline::NEVER)?;
//! let length = endpoint.write_datagram(b"world")?;
//! endpoint.send_recv(length, Deadline::NEVER)?;
//! let mut answer = String::new();
//! endpoint.reader().read_to_string(&mut answer)?;
//! assert_eq!(answer, "hello, world");
//!
//! drop(endpoint); // shuts down
//! let end = serving.join().expect("no panic").unwrap_err();
//! assert_eq!(end.kind(), flipcall::ErrorKind::PeerShutdown);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # For readers of gVisor's `pkg/flipcall`
//!
//! | Go | here |
//! |---|---|
//! | `NewEndpoint(ClientSide, pwd)` · `NewEndpoint(ServerSide, pwd)` | [`Connector::new`] · [`Acceptor::new`] |
//! | `Connect` | [`Connector::connect`] |
//! | `RecvFirst` | [`Acceptor::recv_first`] |
//! | `SendRecv` · `SendRecvFast` | [`Endpoint::send_recv`], with a [`WaitPolicy`] |
//! | `SendLast` | [`Endpoint::send_last`] |
//! | `Shutdown` | [`ShutdownHandle::shut_down`] |
//! | `Destroy` | dropping it, which shuts down first |
//! | `Data` | [`Endpoint::read_at`], [`Endpoint::write_at`]: copies, never a slice of what the peer can change |
//! | `DataCap` | [`Endpoint::capacity`] |
//! | `NewReader` · `NewWriter` | [`Endpoint::reader`] · [`Endpoint::writer`] |
//! | `PacketWindowAllocator` · `PacketWindowDescriptor` | [`Allocator`](crate::window::Allocator) · [`WindowDescriptor`](crate::window::WindowDescriptor) |
//! | `PacketWindowLengthForDataCap` | [`length_for_capacity`](crate::window::length_for_capacity) |

mod active;
mod connecting;
mod core;
mod datagram;
mod finished;
mod greeting;
mod handle;
mod inline;
mod interrupted;
mod options;
mod spawn;
mod stale;

pub use crate::control::{Counters, StateViolation, WaitPolicy};
pub use active::{Endpoint, Waiting};
pub use connecting::{Acceptor, Connector};
pub use datagram::{DatagramReader, DatagramWriter};
pub use finished::Finished;
pub use greeting::Greeting;
pub use handle::ShutdownHandle;
pub(crate) use inline::{INLINE, INLINE_BYTES, INLINE_HEAD, INLINE_WORDS};
pub use interrupted::Interrupted;
pub use options::Options;
pub use spawn::{Inherited, Spawned};

pub(crate) use core::Halted;
