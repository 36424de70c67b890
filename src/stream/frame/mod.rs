//! Frames without input and output: what the bytes mean, and which of them a peer may not send.

pub(super) mod attach;
pub(super) mod decoder;
mod exchange;
pub(super) mod header;
pub(super) mod violation;
