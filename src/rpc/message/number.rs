//! Numbers of the protocol.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A service's message types.
pub const SERVICE_TYPES: RangeInclusive<u16> = 0x0001..=0xFEFF;
/// An answer: a zero byte, then what the method returns.
pub const RESPONSE: u16 = 0xFF00;
/// An answer: a [`Status`](crate::rpc::Status).
pub const ERROR: u16 = 0xFF01;
/// One chunk of a streamed answer.
pub const CHUNK: u16 = 0xFF02;
/// The last message of a streamed answer.
pub const END: u16 = 0xFF03;
/// Opens a channel.
pub const OPEN: u16 = 0xFFF0;
/// Begins version 1.
pub const HELLO: u16 = 0xFFF1;
/// Announces descriptors; only the stream layer deals with it.
pub const ATTACH: u16 = 0xFFF2;
/// A frame of a payload that follows on the socket, or a later fragment in a window.
pub const BULK: u16 = 0xFFF3;
/// Asks for the next chunk or fragment, in a window.
pub const CONTINUE: u16 = 0xFFF4;

/// The version that this crate speaks.
pub const VERSION: u32 = 1;
/// Most bytes that a HELLO, or its answer, may have: 64 extensions of a thousand bytes each.
pub const MOST_HELLO: u32 = 64 << 10;
/// Most extensions that a HELLO may list.
pub const MOST_EXTENSIONS: usize = 64;
/// The smallest maximum message that a HELLO may announce, in bytes: every error fits it.
pub const LEAST_MAXIMUM: u64 = 4096;
/// The extension of version 1 in which a payload that does not fit the window goes through it in fragments. The wire calls them parts.
pub const FRAGMENTS: &str = "parts";
/// Most descriptors of a message.
pub const MOST_DESCRIPTORS: u8 = 16;

/// The first byte of a response.
pub const OK: u8 = 0;
/// Bytes of the time left in front of a request of version 1.
pub const PREFIX: usize = 8;
/// Bytes in front of a message in a window: `u16` type, `u8` descriptors, `u8` flags, native endian.
pub const WINDOW_HEAD: usize = 4;
/// Bytes of a datagram whose payload follows on the socket: the head and a native-endian `u64` length.
pub const BULK_DATAGRAM: usize = 12;
/// The flag of such a datagram.
pub const FLAG_BULK: u8 = 1;
/// Payload bytes of each bulk frame but the last.
pub const BULK_FRAME: usize = 1 << 20;
/// The flag of each fragment. The first has the type of its message, those that follow have [`BULK`].
pub const FLAG_FRAGMENT: u8 = 2;
/// Bytes in front of a fragment: the head, four zero bytes, and a native-endian `u64`: in the first fragment the payload's length, in
/// those that follow where in the payload they belong.
pub const FRAGMENT_HEAD: usize = 16;
/// The fewest payload bytes of the first fragment, and of every other but the last.
pub const LEAST_FRAGMENT: u32 = 2048;

/// The largest message unless configured otherwise, in bytes.
pub const DEFAULT_MAXIMUM: u32 = 64 << 20;
/// The window of a channel unless configured otherwise, in bytes.
pub const DEFAULT_WINDOW: u32 = 256 << 10;
/// The largest window that a server gives unless configured otherwise, in bytes.
pub const DEFAULT_MOST_WINDOW: u32 = 1 << 20;
/// The largest window that can be configured, in bytes: a peer that could grow it further could stall a page fault for long.
pub const MOST_WINDOW: u32 = 16 << 20;

/// How long a handshake may take: HELLO, OPEN, the window's greeting.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the transfer of a payload may take from its flip on, and how long a CONTINUE may take to come.
pub const TRANSFER: Duration = Duration::from_secs(30);
/// How long a CONTINUE may take once the call's deadline has passed.
pub const CONTINUE_GRACE: Duration = Duration::from_secs(1);

// A head that announces more is the head of a message and a number.
const _: () = assert!(BULK_DATAGRAM == WINDOW_HEAD + size_of::<u64>());
const _: () = assert!(FRAGMENT_HEAD == WINDOW_HEAD + 4 + size_of::<u64>());
// The shortest window, a page less its header of 16 bytes, has room for a fragment that may be the first.
const _: () = assert!(FRAGMENT_HEAD as u32 + LEAST_FRAGMENT <= 4096 - 16);
// The longest message of the base protocol, an error without its texts, fits the least maximum.
const _: () = assert!(LEAST_MAXIMUM > 13);
const _: () = assert!(FLAG_BULK & FLAG_FRAGMENT == 0);
// A datagram that is too short for a first fragment is within every maximum.
const _: () = assert!(FRAGMENT_HEAD as u64 + LEAST_FRAGMENT as u64 <= LEAST_MAXIMUM);
