//! What the benchmark does without the library: the only unsafe code of the command line.
//!
//! - [`shared_memory`] two words and bytes that two processes share, with no protocol and no check of what the other side says

pub(crate) mod shared_memory;
