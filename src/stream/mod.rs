//! Bytes on a socket: frames, attached file descriptors, and many channels over one connection.
//!
//! This layer knows nothing of windows. What it offers:
//!
//! - [`Header`], [`FrameDecoder`], [`read_frame`], [`write_frame`]: six-byte frames, without input and output or over anything that reads
//!   and writes;
//! - [`FrameSocket`]: blocking frames with deadlines and [`Attachments`] on a socket of this host, best on one that it makes itself
//!   ([`connect`](FrameSocket::connect), [`pair`](FrameSocket::pair)); [`Listener`]: the socket file that such connections come from;
//! - [`NonBlockingReader`], [`BufferedWriter`]: frames in an event loop with many sockets on one thread;
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

mod frame;
pub mod mux;
mod read_write;
mod socket;

pub use frame::attach::{ATTACH, MAX_ATTACHMENTS};
pub use frame::decoder::{Frame, FrameDecoder};
pub use frame::header::Header;
pub use frame::violation::{FrameViolation, MuxViolation};
pub use read_write::{read_frame, write_frame};
pub use socket::access::Access;
pub(crate) use socket::address::resolve;
pub use socket::attachments::{Attachments, unclosed_descriptors};
pub use socket::frame_socket::{DEFAULT_MAX_FRAME, DEFAULT_PATIENCE, FrameSocket};
pub use socket::inbox::Message;
pub use socket::listener::Listener;
pub use socket::nonblocking::{BufferedWriter, NonBlockingReader, Step};
pub use socket::one_shot::{MissingFd, WithFd, receive_with_fd, send_pipe, send_with_fd};
pub use socket::peer::Peer;
pub use socket::shutdown::SocketShutdown;
