//! Frames without input and output: what the bytes mean, and which of them a peer may not send.

pub(super) mod attach;
mod buffer_swap;
pub(super) mod decoder;
pub(super) mod header;
pub(super) mod violation;
