//! A message that fits the first cache line of a window, header of the window included.

use crate::endpoint::{Endpoint, INLINE, INLINE_BYTES, INLINE_HEAD};
use crate::rpc::message::fragment::LEAST_FRAGMENT_DATAGRAM;
use crate::rpc::message::head::WindowHead;
use crate::rpc::message::number::WINDOW_HEAD;

/// The private copy of an inline message: on the stack of the function that takes it.
#[repr(align(16))]
pub(crate) struct InlineMessage {
    bytes: [u8; INLINE_BYTES],
    head: u32,
    /// Bytes of its payload; [`ELSEWHERE`](Self::ELSEWHERE): it is not here.
    filled: usize,
}

const _: () = assert!(INLINE_HEAD == WINDOW_HEAD);
// What is inline is never a fragment of a longer message.
const _: () = assert!(LEAST_FRAGMENT_DATAGRAM > INLINE);

impl InlineMessage {
    const ELSEWHERE: usize = usize::MAX;

    /// Room for a message.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { bytes: [0; INLINE_BYTES], head: 0, filled: Self::ELSEWHERE }
    }

    /// Copies the datagram that came with control, if it has the size of an inline message: its type, if it is one and nothing but its
    /// payload belongs to it.
    #[inline(always)]
    pub(super) fn take(&mut self, endpoint: &Endpoint, datagram: u32) -> Option<u16> {
        if !(WINDOW_HEAD as u32..=INLINE).contains(&datagram) {
            return None;
        }
        let head = endpoint.read_inline(&mut self.bytes)?;
        (self.head, self.filled) = (u32::from_ne_bytes(head), datagram as usize - WINDOW_HEAD);
        let head = WindowHead::parse(head);
        head.is_plain().then_some(head.tag)
    }

    #[inline(always)]
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Writes the first bytes of the datagram to `to`, which is no longer than it. `false`: the datagram is not here.
    pub(super) fn copy_to(&self, to: &mut [u8]) -> bool {
        match to.split_first_chunk_mut() {
            Some((front, rest)) if self.filled != Self::ELSEWHERE => {
                *front = self.head.to_ne_bytes();
                rest.copy_from_slice(&self.bytes[..rest.len()]);
                true
            }
            _ => false,
        }
    }
}
