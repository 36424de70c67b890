//! What the benchmark does without the library: the only unsafe code of the command line.
//!
//! - `inherit` the right to the descriptors that a command was started with
//! - [`shared_memory`] two words and bytes that two processes share, with no protocol and no check of what the other side says

mod inherit;
pub(crate) mod shared_memory;

pub(crate) use inherit::inherited;
