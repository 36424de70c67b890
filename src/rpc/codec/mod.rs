//! Values as bytes: big endian, lengths in front, nothing else.
//!
//! | value | bytes |
//! |---|---|
//! | `u8` `u16` `u32` `u64` `i32` `i64` | big endian, two's complement |
//! | `bool` | one byte, 0 or 1 |
//! | `str`, `String` | `u32` length, UTF-8 |
//! | `[u8]`, `Vec<u8>` | `u32` length, the bytes |
//! | `[&str]`, `Vec<String>` | `u32` count, the strings |
//! | [`List<T>`] | `u32` count, the items |
//! | tuples, [`message!`](crate::message) structs | their fields in order |
//! | [`Raw`] | the bytes alone, to the end of the message |
//!
//! A decoder checks every length against what is left before anything is allocated, and borrows where the type allows.
//!
//! What a peer's message can cost is bounded, whatever the type:
//!
//! - *Depth*: structs within each other, and lists within each other, go 64 deep at most ([`DecodeError::TooDeep`]). A type that can contain
//!   itself cannot exhaust the stack; see [`Decoder::nested`] for one with an implementation by hand.
//! - *Memory*: the value takes at most 16 times the bytes of its message, and 64 KiB ([`DecodeError::TooLarge`]): the items of lists,
//!   the bytes of strings, and 32 bytes for each allocation are counted. Any list of numbers, strings, bytes or lists fits that. A
//!   value of serde may take 32 times its bytes, because numbers and lengths of one byte are common there.
//! - *Items that take no memory* count as if they took 16 bytes (with serde, 32): there are no more of them than bytes came, beyond those 64 KiB.
//!
//! ```
//! use flipcall::rpc::codec::{from_bytes, to_bytes};
//!
//! let bytes = to_bytes(&(7u16, "hi", true));
//! assert_eq!(bytes, [0, 7, 0, 0, 0, 2, b'h', b'i', 1]);
//! let (number, text, flag): (u16, &str, bool) = from_bytes(&bytes)?;
//! assert_eq!((number, text, flag), (7, "hi", true));
//! # Ok::<(), flipcall::rpc::codec::DecodeError>(())
//! ```

mod decoder;
mod encoder;
mod error;
#[cfg(feature = "postcard")]
mod limited;
mod limits;
mod message;
#[cfg(feature = "postcard")]
mod postcard;
mod values;

#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
pub use decoder::{Decode, DecodeOwned, Decoder, from_bytes};
pub(crate) use encoder::Sink;
pub use encoder::{Encode, Encoder, to_bytes};
pub use error::DecodeError;
pub use values::{List, Raw};
