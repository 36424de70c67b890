//! Packet windows: ranges of a shared-memory file that two processes map.
//!
//! An [`Allocator`] owns a sealed memfd and hands out [`WindowDescriptor`]s, which say where a window lies. A descriptor travels to the
//! peer by whatever means: inheritance ([`pass_descriptor`](crate::process::pass_descriptor) here,
//! [`InheritedFds`](crate::process::InheritedFds) in the child), or a Unix socket ([`stream`](crate::stream)); offset and length go
//! along as numbers. [`Spawned`](crate::endpoint::Spawned) does all of it for a child process. Each side turns it into a [`Window`], the mapping that an endpoint works on. Our
//! own descriptors are mapped as they are, with [`Window::map`]; what a peer sent is checked first, with [`Window::receive`].
//!
//! ```text
//!  offset 0        4        8               12              16                    length
//!         ┌────────┬────────┬───────────────┬───────────────┬─────────────────────┐
//!         │ state  │ length │ client parked │ server parked │ datagram …          │
//!         └────────┴────────┴───────────────┴───────────────┴─────────────────────┘
//!           u32 each, native endian                           capacity = length − 16
//! ```
//!
//! ```
//! use flipcall::window::{Allocator, Seals, Window};
//!
//! let allocator = Allocator::new()?;
//! let descriptor = allocator.allocate(4096)?;
//! let ours = Window::map(&descriptor)?;
//!
//! // The peer gets the descriptor with a copy of the file, and trusts nothing.
//! let fd = descriptor.fd().try_clone_to_owned()?;
//! let theirs = Window::receive(fd, descriptor.offset(), descriptor.length(), Seals::Strict)?;
//! assert_eq!(ours.capacity(), theirs.capacity());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod allocator;
mod layout;
mod mapped;
mod receive;
mod refusal;
pub(crate) mod seal_after_map;

pub use allocator::{Allocator, WindowDescriptor};
pub use layout::{HEADER_LEN, length_for_capacity};
pub use mapped::Window;
pub use receive::Seals;
pub use refusal::Refusal;

pub(crate) use layout::page_size;
