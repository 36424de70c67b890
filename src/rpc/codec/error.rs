//! Why bytes are no value.

use std::fmt;

/// How deep a message's structs, lists or options may lie within each other, each counted by itself: deeper ones are no value of anybody, and
/// decoding recurses.
pub(super) const MOST_NESTED: u8 = 64;

/// Why bytes are not the value that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message ends inside the value.
    TooShort,
    /// Bytes are left after the value.
    TrailingBytes,
    /// A bool is neither 0 nor 1.
    NotBool,
    /// A string is not UTF-8.
    NotUtf8,
    /// The bytes break a rule of their own type.
    Invalid,
    /// Values are nested deeper than 64.
    TooDeep,
    /// The value takes more memory than its message may ask for: see [`codec`](crate::rpc::codec).
    TooLarge,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the message ends inside a value",
            Self::TrailingBytes => "the message has bytes after its value",
            Self::NotBool => "a bool is neither 0 nor 1",
            Self::NotUtf8 => "a string is not UTF-8",
            Self::Invalid => "a value is out of its type's range",
            Self::TooDeep => "values are nested deeper than 64",
            Self::TooLarge => "the value takes more memory than a message of its length may ask for",
        })
    }
}

impl std::error::Error for DecodeError {}
