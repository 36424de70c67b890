//! Numbers and fixed messages of the protocol.

use std::time::{Duration, Instant};

/// A service's message types.
pub(crate) const SERVICE_TYPES: std::ops::RangeInclusive<u16> = 0x0001..=0xFEFF;
/// An answer: a zero byte, then what the method returns.
pub(crate) const RESPONSE: u16 = 0xFF00;
/// An answer: a [`Status`](super::Status).
pub(crate) const ERROR: u16 = 0xFF01;
/// Part of a streamed answer.
pub(crate) const CHUNK: u16 = 0xFF02;
/// The last part of a streamed answer.
pub(crate) const END: u16 = 0xFF03;
/// Opens a channel.
pub(crate) const OPEN: u16 = 0xFFF0;
/// Begins version 1.
pub(crate) const HELLO: u16 = 0xFFF1;
/// Announces descriptors; only the stream layer deals with it.
pub(crate) const ATTACH: u16 = crate::stream::ATTACH;
/// A piece of a payload that does not fit the window.
pub(crate) const BULK: u16 = 0xFFF3;
/// Asks for the next chunk, in a window.
pub(crate) const CONTINUE: u16 = 0xFFF4;

/// The version that this crate speaks.
pub(crate) const VERSION: u32 = 1;
/// Most extensions that a HELLO may list.
pub(crate) const MOST_EXTENSIONS: usize = 64;
/// The smallest maximum message that a HELLO may announce, in bytes: every error fits it.
pub(crate) const LEAST_MAXIMUM: u64 = 4096;

/// The first byte of a response.
pub(crate) const OK: u8 = 0;
/// Bytes of the deadline in front of a request of version 1.
pub(crate) const PREFIX: usize = 8;
/// Bytes of a message's header in a window: `u16` type, `u8` descriptors, `u8` flags, native endian.
pub(crate) const WINDOW_HEADER: usize = 4;
/// Bytes of a datagram whose payload follows on the socket: the header and a native-endian `u64` length.
pub(crate) const BULK_DATAGRAM: usize = 12;
/// The flag of such a datagram.
pub(crate) const FLAG_BULK: u8 = 1;
/// Payload bytes of each bulk frame but the last.
pub(crate) const BULK_FRAME: usize = 1 << 20;

/// The extension of version 1 in which a payload that does not fit the window goes through it all the same, part by part.
pub(crate) const PARTS: &str = "parts";
/// The flag of each part. The first has the type of its message, those that follow have [`BULK`].
pub(crate) const FLAG_PARTS: u8 = 2;
/// Bytes in front of a part: the header, four zero bytes, and a native-endian `u64`: in the first part the payload's length, in those that
/// follow where in the payload they belong.
pub(crate) const PART_HEADER: usize = 16;
/// The fewest payload bytes of the first part, and of every other but the last.
pub(crate) const LEAST_PART: u64 = 2048;

/// What a window channel's socket may hold of bulk frames, in bytes; the kernel doubles it, and gives less where it allows less.
pub(crate) const BULK_BUFFER: usize = 512 << 10;
/// How long a bulk transfer is tried again before it sleeps: both sides are at it, and a sleep and its wake cost 30 to 90 µs.
pub(crate) const BULK_LINGER: Duration = Duration::from_micros(50);

/// The largest message unless configured otherwise, in bytes.
pub(crate) const DEFAULT_MAXIMUM: u32 = 64 << 20;
/// The window of a channel unless configured otherwise, in bytes.
pub(crate) const DEFAULT_WINDOW: u32 = 256 << 10;
/// The largest window that a server gives unless configured otherwise, in bytes.
pub(crate) const DEFAULT_MOST_WINDOW: u32 = 1 << 20;
/// The largest window that can be configured, in bytes: a peer that could grow it further could stall a page fault for long.
pub(crate) const MOST_WINDOW: u32 = 16 << 20;

/// How long a handshake may take: HELLO, OPEN, the window's greeting.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a bulk transfer may take from its flip on, and how long a CONTINUE may take to come.
pub(crate) const TRANSFER: Duration = Duration::from_secs(30);
/// How long a CONTINUE may take once the call's deadline has passed.
pub(crate) const CONTINUE_GRACE: Duration = Duration::from_secs(1);
/// How long a late answer is waited for before its channel is retired.
pub(crate) const LATE: Duration = Duration::from_secs(1);

crate::message! {
    /// HELLO, and its answer behind the zero byte.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Hello {
        pub(crate) version: u32,
        pub(crate) maximum: u64,
        pub(crate) extensions: Vec<String>,
    }

    /// OPEN.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Open {
        pub(crate) window: u32,
    }

    /// The answer to OPEN, behind the zero byte.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Opened {
        pub(crate) offset: u64,
        pub(crate) length: u32,
    }
}

impl Hello {
    /// Whether it lists this extension.
    pub(crate) fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|other| other == extension)
    }

    /// Whether it is an answer to this offer.
    pub(crate) fn agrees_with(&self, offer: &Self) -> bool {
        let accepted = self.extensions.iter().all(|extension| offer.has(extension));
        self.version == VERSION && self.maximum >= LEAST_MAXIMUM && accepted
    }
}

/// The extensions that this crate knows.
pub(crate) fn extensions() -> Vec<String> {
    vec![PARTS.to_owned()]
}

/// Whether a request of this type breaks the protocol; every other unknown type is merely unknown.
pub(crate) fn is_forbidden_request(tag: u16) -> bool {
    matches!(tag, RESPONSE..=END | BULK | CONTINUE | ATTACH)
}

/// When a call ends that had `left` nanoseconds at `begun`; `None` for never.
pub(crate) fn deadline_from(left: u64, begun: Instant) -> Option<Instant> {
    if left == 0 { None } else { begun.checked_add(Duration::from_nanos(left)) }
}
