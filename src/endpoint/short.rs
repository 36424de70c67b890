//! Datagrams of a cache line, moved without a branch on their length: for the layer of typed calls, whose layout they have.

use super::Endpoint;
use super::core::Core;
use crate::Result;
pub(crate) use crate::sys::short::{SHORT_BYTES, SHORT_HEAD, SHORT_WORDS};

/// The most bytes of such a datagram.
pub(crate) const SHORT: u32 = (SHORT_HEAD + SHORT_BYTES) as u32;

impl Endpoint {
    /// Copies the received datagram out, which has at most [`SHORT`] bytes: its head, and the rest into `to`, of which the bytes past
    /// its end mean nothing. `None` if there is no such datagram.
    #[inline(always)]
    pub(crate) fn read_short(&self, to: &mut [u8; SHORT_BYTES]) -> Option<[u8; SHORT_HEAD]> {
        let core = self.core.as_deref().filter(|core| core.received <= SHORT)?;
        core.mapping().read_short(to)
    }

    /// Makes the next datagram: a head, and `bytes` bytes of `words` as they lie in memory. The others of them are zero.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[inline(always)]
    pub(crate) fn write_short(&mut self, head: [u8; SHORT_HEAD], words: &[u64; SHORT_WORDS], bytes: u32) -> Result<()> {
        match &mut self.core {
            Some(core) => core.write_short(head, words, bytes),
            None => Err(self.absent()),
        }
    }
}

impl Core {
    #[inline(always)]
    fn write_short(&mut self, head: [u8; SHORT_HEAD], words: &[u64; SHORT_WORDS], bytes: u32) -> Result<()> {
        let end = SHORT_HEAD as u32 + bytes;
        if end > SHORT || self.is_poisoned() || !self.mapping().write_short(head, words) {
            return Err(self.not_short(end));
        }
        self.stale.wrote(end);
        Ok(())
    }

    #[cold]
    fn not_short(&self, length: u32) -> crate::Error {
        match self.check() {
            Ok(()) => crate::Error::invalid(format!("{length} bytes are no short datagram of this window")),
            Err(error) => error,
        }
    }
}
