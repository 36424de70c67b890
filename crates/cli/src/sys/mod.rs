//! What the command line does without the library: its only unsafe code.
//!
//! - `inherit` the right to the descriptors that a command was started with
//! - [`probe`] tries of system calls, for `doctor`
//! - [`shared_memory`] two words and bytes that two processes share, with no protocol and no check of what the other side says

mod inherit;
pub(crate) mod probe;
pub(crate) mod shared_memory;

pub(crate) use inherit::inherited;
