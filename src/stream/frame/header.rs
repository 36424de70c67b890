//! The six bytes in front of every payload.
//!
//! ```text
//!   0        1        2        3        4        5        6 …
//! +--------+--------+--------+--------+--------+--------+---------+
//! |   tag (u16)     |       payload length (u32)        | payload |
//! +--------+--------+--------+--------+--------+--------+---------+
//!   both big endian
//! ```
//!
//! Two protocols share this header. In RPC the tag is a message type, on a mux it is a channel id.
//!
//! ```
//! use flipcall::stream::Header;
//!
//! let header = Header { tag: 0x0201, length: 5 };
//! assert_eq!(header.encode(), [2, 1, 0, 0, 0, 5]);
//! assert_eq!(Header::decode([2, 1, 0, 0, 0, 5]), header);
//! ```

use crate::error::{Error, Result};

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// Message type or channel id.
    pub tag: u16,
    /// Payload bytes that follow.
    pub length: u32,
}

impl Header {
    /// Bytes of an encoded header.
    pub const SIZE: usize = 6;

    /// The bytes of the header.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let [a, b] = self.tag.to_be_bytes();
        let [c, d, e, f] = self.length.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// The header that `bytes` encode. Every combination is a header; a reader checks the length against its limit.
    #[must_use]
    pub fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f] = bytes;
        Self { tag: u16::from_be_bytes([a, b]), length: u32::from_be_bytes([c, d, e, f]) }
    }

    /// The header of a payload of `length` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 4 GiB or more.
    pub(crate) fn of_payload(tag: u16, length: usize) -> Result<Self> {
        match u32::try_from(length) {
            Ok(length) => Ok(Self { tag, length }),
            Err(_) => {
                Err(Error::invalid(format!("a payload of {length} bytes does not fit a frame (limit {})", u32::MAX)))
            }
        }
    }

    /// The header at the front of `bytes`, if all of it is there.
    pub(crate) fn at_front(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|chunk| Self::decode(*chunk))
    }

    /// Bytes of the whole frame, header included.
    pub(crate) fn frame_size(self) -> u64 {
        Self::SIZE as u64 + u64::from(self.length)
    }
}
