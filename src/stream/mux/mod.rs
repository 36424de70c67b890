//! Many channels over one socket, each with its own credit.
//!
//! For a parent and a spawned domain that share one socket pair: standard streams, consoles, file transfers, any number of named
//! channels side by side. A channel that nobody reads stops by its credit and never holds up its neighbours.
//!
//! The peer's end of a pair has to be the peer's alone, or its death goes unseen: drop the `Command` that was given it, once the child
//! is started.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//! use flipcall::stream::mux::{Mux, MuxConfig, Role};
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let ours = Mux::new(ours, MuxConfig::new(Role::Initiator))?;
//! let theirs = Mux::new(theirs, MuxConfig::new(Role::Acceptor))?;
//! let soon = Duration::from_secs(5);
//!
//! let serving = std::thread::spawn(move || -> flipcall::Result<Mux> {
//!     let offer = theirs.accept(soon)?;
//!     assert_eq!(offer.name(), "greeting");
//!     let mut channel = offer.accept()?;
//!     channel.sender.send(b"hello", soon)?;
//!     channel.sender.end();
//!     Ok(theirs) // dropping it says goodbye, which ends every channel
//! });
//! let mut channel = ours.open("greeting", soon)?;
//! assert_eq!(channel.receiver.receive(soon)?.unwrap(), b"hello");
//! assert!(channel.receiver.receive(soon)?.is_none());
//! let theirs = serving.join().unwrap()?;
//! drop(theirs);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bridge;
mod bytes;
mod channel;
mod config;
mod delivery;
mod ended;
mod frame_receiver;
mod handle;
mod message_queue;
mod owner;
mod payload;
mod plain;
mod protocol;
mod reader;
mod sending;
mod shared;
mod signal;
mod waiting;
mod write_queue;
mod writer;

pub use bridge::Bridge;
pub use bytes::{ByteReader, ByteWriter};
pub use channel::{Channel, ChannelReceiver, ChannelSender};
pub use config::{MuxConfig, Role};
pub use ended::Ended;
pub use handle::{Mux, Offer};
pub use plain::PlainMux;
pub use protocol::control::Reason;
