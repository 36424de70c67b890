//! The four bytes in front of a message in a window.
//!
//! ```text
//!   0        2      3       4
//! +--------+------+-------+-----------···
//! | type   | fds  | flags | payload
//! +--------+------+-------+-----------···
//!   native endian
//! ```

use super::number::{CONTINUE, WINDOW_HEAD};
use crate::rpc::CallViolation;

/// Type, number of descriptors and flags of a message in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowHead {
    /// The message's type.
    pub tag: u16,
    /// How many descriptors went over the socket before the flip.
    pub fds: u8,
    /// Where the payload is.
    pub flags: u8,
}

impl WindowHead {
    /// Asks for the next chunk or fragment: a whole message without a payload.
    pub const CONTINUE: Self = Self { tag: CONTINUE, fds: 0, flags: 0 };

    /// Reads a head.
    #[inline(always)]
    pub const fn parse([a, b, fds, flags]: [u8; WINDOW_HEAD]) -> Self {
        Self { tag: u16::from_ne_bytes([a, b]), fds, flags }
    }

    /// The head's bytes.
    #[inline(always)]
    pub const fn encode(self) -> [u8; WINDOW_HEAD] {
        let [a, b] = self.tag.to_ne_bytes();
        [a, b, self.fds, self.flags]
    }

    /// Whether nothing belongs to the message but the payload behind the head.
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        u16::from_ne_bytes([self.fds, self.flags]) == 0
    }
}

/// An error unless a datagram asks for what comes next. `front` are its first bytes, four of them if it has as many.
///
/// # Errors
/// What it is instead.
pub fn expect_continue(datagram: u32, front: &[u8]) -> Result<(), CallViolation> {
    match front.first_chunk().map(|head| WindowHead::parse(*head)) {
        None => Err(CallViolation::Datagram(datagram)),
        Some(WindowHead::CONTINUE) if datagram as usize == WINDOW_HEAD => Ok(()),
        Some(head) => Err(CallViolation::Unexpected(head.tag)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_is_what_it_was_encoded_from() {
        for number in 0..=u32::from(u16::MAX) {
            let tag = number as u16;
            for (fds, flags) in [(0, 0), (1, 2), (16, 1), (255, 255)] {
                let head = WindowHead { tag, fds, flags };
                assert_eq!(WindowHead::parse(head.encode()), head);
                assert_eq!(head.is_plain(), fds == 0 && flags == 0);
            }
        }
    }

    #[test]
    fn only_continue_asks_for_more() {
        let good = WindowHead::CONTINUE.encode();
        assert_eq!(expect_continue(4, &good), Ok(()));
        assert_eq!(expect_continue(5, &good), Err(CallViolation::Unexpected(CONTINUE)));
        for length in 0..4 {
            let short = expect_continue(length, &good[..length as usize]);
            assert_eq!(short, Err(CallViolation::Datagram(length)));
        }
        for (at, bit) in (0..32).map(|bit| (bit / 8, bit % 8)) {
            let mut head = good;
            head[at] ^= 1 << bit;
            let tag = WindowHead::parse(head).tag;
            assert_eq!(expect_continue(4, &head), Err(CallViolation::Unexpected(tag)));
        }
    }
}
