//! Synchronous procedure calls between two processes on one Linux host that do not trust each other.
//!
//! Control flips between the two ends of a shared-memory packet window with one atomic exchange; the kernel is entered only when
//! somebody sleeps. The peer may do anything to the shared memory: a call returns an answer or an error by its deadline, and this
//! side stays sound.
//!
//! The layers, each using only the ones under it:
//!
//! | layer | module | what it is |
//! |---|---|---|
//! | 0 | `sys` (private) | the only unsafe code: futex, memfd, mapping, bytes that a peer can change |
//! | 1 | [`window`] | bytes on the page: layout, allocator, checks on a received window |
//! | 2 | `control` (private) | who holds control: state table, flip and wait, wait policies |
//! | 3 | [`endpoint`] | the typed connection: handshake, typestates, cursors, shutdown |
//! | 1' | [`stream`] | bytes on a socket: frames, attached descriptors, a mux; knows nothing of windows |
//! | 1' | [`process`] | child processes: what they inherit, and how they end |
//! | 4 | [`rpc`] | typed calls: codec, channels, client pool, router, server |
//! | – | [`error`], [`Deadline`] | what went wrong and whose fault it was; how long to wait |
//!
//! Begin with [`rpc`] for typed calls, with [`endpoint::Spawned`] for a window to a child process of your own, or with [`endpoint`] for
//! the connection itself.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("flipcall stands on Linux system calls: memfd seals and futexes");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("a window can be as long as a 32-bit address space: flipcall needs 64-bit addresses");

mod control;
mod deadline;
mod sys;

pub mod endpoint;
pub mod error;
pub mod process;
pub mod rpc;
pub mod stream;
pub mod window;

pub use deadline::Deadline;
pub use error::{Blame, Error, ErrorKind, Result};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
