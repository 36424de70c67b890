//! Reading values out of bytes that a peer chose.

use std::fmt;

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
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the message ends inside a value",
            Self::TrailingBytes => "the message has bytes after its value",
            Self::NotBool => "a bool is neither 0 nor 1",
            Self::NotUtf8 => "a string is not UTF-8",
            Self::Invalid => "a value is out of its type's range",
        })
    }
}

impl std::error::Error for DecodeError {}

/// A value that can be read from a message, and may borrow from it.
pub trait Decode<'a>: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// A [`DecodeError`] if the bytes are not such a value.
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError>;
}

/// A value that borrows nothing from its message.
pub trait DecodeOwned: for<'a> Decode<'a> {}

impl<T: for<'a> Decode<'a>> DecodeOwned for T {}

/// Reads the primitives of the wire format. Nothing is allocated before all of its bytes were found to be there.
#[derive(Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes as they are.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (value, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        Ok(value)
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or(DecodeError::TooShort)?;
        self.rest = rest;
        Ok(*value)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Four bytes, two's complement.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// Eight bytes, two's complement.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// One byte, 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::NotBool`], [`DecodeError::TooShort`].
    #[inline]
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::NotBool),
        }
    }

    /// A length and the bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.raw(length as usize)
    }

    /// A length and UTF-8 bytes.
    ///
    /// # Errors
    /// [`DecodeError::NotUtf8`], [`DecodeError::TooShort`].
    #[inline]
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::NotUtf8)
    }

    /// A count and the items, each of which takes at least `least` bytes. A count that cannot fit what is left is refused before anything
    /// is allocated. Items that may be empty (`least` 0) are limited to one for each byte that is left, and one more.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`], and what an item says.
    pub fn items<T>(
        &mut self,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()? as usize;
        let possible = self.rest.len().checked_div(least).unwrap_or(self.rest.len() + 1);
        if count > possible {
            return Err(DecodeError::TooShort);
        }
        // An item in memory can be larger than on the wire: the list grows as the items turn out to be there.
        let mut items = Vec::with_capacity(count.min(FIRST_ITEMS));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    #[inline]
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("left", &self.rest.len()).finish_non_exhaustive()
    }
}

/// Items for which a list makes room before the first of them has been read.
const FIRST_ITEMS: usize = 64;

/// The value that `bytes` hold, from the first byte to the last.
///
/// # Errors
/// A [`DecodeError`] if they are not such a value, or if bytes are left over.
#[inline]
pub fn from_bytes<'a, T: Decode<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = T::decode(&mut decoder)?;
    decoder.finish()?;
    Ok(value)
}
