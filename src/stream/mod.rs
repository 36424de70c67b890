//! Bytes on a socket: frames, attached file descriptors, and many channels over one connection.
//!
//! This floor knows nothing of windows. What it offers:
//!
//! - [`Header`], [`Decoder`], [`read_frame`], [`write_frame`]: six-byte frames, without input and output or over anything that reads
//!   and writes;
//! - [`FrameSocket`]: blocking frames with deadlines and [`Attachments`] on a socket of this host, best on one that it makes itself
//!   ([`connect`](FrameSocket::connect), [`pair`](FrameSocket::pair)); [`Listener`]: the socket file that such connections come from;
//! - [`NonBlockingReader`], [`BufferedWriter`]: the same for an event loop with many sockets on one thread;
//! - [`send_pipe`], [`send_with_fd`], [`receive_with_fd`]: messages with one descriptor, for sockets without frames;
//! - [`mux`]: many channels over one socket, each with its own credit.
//!
//! Every peer is taken for hostile: see `docs/stream.md` for what it may try and what happens then.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use flipcall::{Deadline, stream::FrameSocket};
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (mut ours, mut theirs) = (FrameSocket::new(ours), FrameSocket::new(theirs));
//! ours.send(7, b"a frame", Deadline::NEVER)?;
//! assert_eq!(theirs.receive(Deadline::NEVER)?.unwrap().payload, b"a frame");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attach;
mod attachments;
mod beside;
mod bulk;
mod decode;
mod ending;
mod exchange;
mod framed;
mod header;
mod inbox;
mod listener;
pub mod mux;
mod nonblocking;
mod one_shot;
mod outbox;
mod own;
mod peer;
mod readiness;
mod violation;

pub use attach::{ATTACH, MAX_ATTACHMENTS};
pub use attachments::Attachments;
pub use decode::{Decoder, Frame, read_frame, write_frame};
pub use ending::ShutdownHandle;
pub use framed::{DEFAULT_MAX_FRAME, DEFAULT_PATIENCE, FrameSocket};
pub use header::Header;
pub use inbox::Message;
pub use listener::Listener;
pub use nonblocking::{BufferedWriter, NonBlockingReader, Step};
pub use one_shot::{MissingFd, WithFd, receive_with_fd, send_pipe, send_with_fd};
pub use peer::Peer;
pub use violation::{MuxViolation, Violation};
