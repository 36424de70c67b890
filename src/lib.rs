//! Synchronous procedure calls between two processes on one Linux host that do not trust each other.
//!
//! Control flips between the two ends of a shared-memory packet window with one atomic exchange; the kernel is entered only when
//! somebody sleeps. The floors, each using only the ones under it:
//!
//! | floor | module | what it is |
//! |---|---|---|
//! | 0 | `sys` (private) | the only unsafe code: futex, memfd, mapping, bytes that a peer can change |
//! | 1' | [`stream`] | bytes on a socket: frames, attached descriptors, a mux |
//! | – | [`deadline`] | how long a wait may take |
//! | – | [`error`] | one error type that says what happened and whose fault it was |

#![forbid(unsafe_op_in_unsafe_fn)]

pub mod deadline;
pub mod error;
pub mod stream;
mod sys;

pub use deadline::Deadline;
pub use error::{Blame, Error, ErrorKind, Result};
