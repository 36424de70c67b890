//! Inline datagrams: those of a cache line, moved without a branch on their length. For the layer of typed calls, whose layout they have.

use super::active::Endpoint;
use super::core::Core;
use crate::error::{Error, Result};
pub(crate) use crate::sys::inline::{INLINE_BYTES, INLINE_HEAD, INLINE_WORDS};

/// The most bytes of such a datagram.
pub(crate) const INLINE: u32 = (INLINE_HEAD + INLINE_BYTES) as u32;

impl Endpoint {
    /// Copies the received datagram out, which has at most [`INLINE`] bytes: its head, and the rest into `to`, of which the bytes past
    /// its end mean nothing. `None` if there is no such datagram.
    #[inline(always)]
    pub(crate) fn read_inline(&self, to: &mut [u8; INLINE_BYTES]) -> Option<[u8; INLINE_HEAD]> {
        let core = self.core.as_deref().filter(|core| core.received <= INLINE)?;
        core.mapping().read_inline(to)
    }

    /// Makes the next datagram: a head, and `bytes` bytes of `words` as they lie in memory. The others of them are zero.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    #[inline(always)]
    pub(crate) fn write_inline(
        &mut self,
        head: [u8; INLINE_HEAD],
        words: &[u64; INLINE_WORDS],
        bytes: u32,
    ) -> Result<()> {
        match &mut self.core {
            Some(core) => core.write_inline(head, words, bytes),
            None => Err(self.absent()),
        }
    }
}

impl Core {
    #[inline(always)]
    fn write_inline(&mut self, head: [u8; INLINE_HEAD], words: &[u64; INLINE_WORDS], bytes: u32) -> Result<()> {
        let end = INLINE_HEAD as u32 + bytes;
        if end > INLINE || self.is_unusable() || !self.mapping().write_inline(head, words) {
            return Err(self.not_inline(end));
        }
        self.stale.wrote(end);
        Ok(())
    }

    #[cold]
    fn not_inline(&self, length: u32) -> Error {
        match self.check() {
            Ok(()) => Error::invalid(format!("a datagram of {length} bytes cannot be an inline one in this window")),
            Err(error) => error,
        }
    }
}
