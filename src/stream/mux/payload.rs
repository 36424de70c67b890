//! A data frame's payload on its way to the queue of its channel.

/// A payload of at least this many bytes is received where it stays; a shorter one is cheaper to copy than to receive alone.
pub(super) const DIRECT: usize = 8 * 1024;

/// The payload of a frame.
pub(super) enum Payload<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl Payload<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    /// The payload in a buffer of its own.
    pub(super) fn into_owned(self, spare: impl FnOnce() -> Option<Vec<u8>>) -> Vec<u8> {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Borrowed(bytes) if bytes.len() < DIRECT => bytes.to_vec(),
            Self::Borrowed(bytes) => {
                let mut buffer = spare().unwrap_or_default();
                buffer.clear();
                buffer.extend_from_slice(bytes);
                buffer
            }
        }
    }
}
