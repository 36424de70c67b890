//! Reading values out of bytes that a peer chose.

use std::fmt;

use super::error::DecodeError;
use super::limits::{FACTOR, Limits, Nesting, memory_of_list};
use crate::sys::stack;

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
    limits: Limits,
    /// How many more values are read before the stack is checked.
    reads: u32,
    /// Where the stack ended when it was first checked, 0 before that.
    stack: usize,
}

/// Values that are read between two checks of the stack: as many levels of a recursion go unseen at most. A message of fewer needs none.
const READS: u32 = 64;

/// By how many bytes the stack may grow while a value is decoded: an eighth of what threads have by default. This is for recursions in
/// implementations of [`Decode`] that do not say [`nested`](Decoder::nested).
const MOST_STACK: usize = 256 << 10;

/// Where the stack ended at first, or an error if it has grown too far since.
#[cold]
fn check_stack(first: usize) -> Result<usize, DecodeError> {
    let now = stack::pointer();
    let first = if first == 0 { now } else { first };
    if first.saturating_sub(now) > MOST_STACK { Err(DecodeError::TooDeep) } else { Ok(first) }
}

impl<'a> Decoder<'a> {
    /// A decoder of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, limits: Limits::new(bytes.len(), FACTOR), reads: READS, stack: 0 }
    }

    /// Counts a value that is read.
    #[inline(always)]
    fn step(&mut self) -> Result<(), DecodeError> {
        if self.reads == 0 {
            self.stack = check_stack(self.stack)?;
            self.reads = READS;
        }
        self.reads -= 1;
        Ok(())
    }

    /// Reads a value that has others within. An implementation of [`Decode`] for a type that can contain itself reads its fields in here;
    /// [`message!`](crate::message) does. One that does not is ended by the room that it takes on the stack, which is less exact.
    ///
    /// ```
    /// use flipcall::rpc::codec::{Decode, DecodeError, Decoder, from_bytes};
    ///
    /// struct Chain(Option<Box<Chain>>);
    ///
    /// impl<'a> Decode<'a> for Chain {
    ///     fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
    ///         decoder.nested(|decoder| {
    ///             let goes_on = decoder.bool()?;
    ///             Ok(Self(if goes_on { Some(Box::new(Chain::decode(decoder)?)) } else { None }))
    ///         })
    ///     }
    /// }
    ///
    /// let chain = |length: usize| [vec![1; length - 1], vec![0]].concat();
    /// assert!(from_bytes::<Chain>(&chain(64)).is_ok());
    /// assert!(matches!(from_bytes::<Chain>(&chain(65)), Err(DecodeError::TooDeep)));
    /// ```
    ///
    /// # Errors
    /// [`DecodeError::TooDeep`] if it is the 65th such value within another, and what `read` says.
    #[inline]
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        self.within(Nesting::Struct, read)
    }

    #[inline]
    fn within<T>(
        &mut self,
        what: Nesting,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        self.limits.enter(what)?;
        let value = read(self);
        self.limits.leave(what);
        value
    }

    /// Accounts for `bytes` of memory that the value takes elsewhere than in itself. The library does so for strings and items; an
    /// implementation of [`Decode`] that allocates in another way does it here, before it allocates.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] if that is more than a message of this length may ask for.
    #[inline]
    pub fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.limits.charge(bytes)
    }

    /// Accounts for a copy of `bytes` bytes.
    #[inline]
    pub(super) fn charge_copy(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.charge(memory_of_list::<u8>(bytes, FACTOR))
    }

    /// The next `count` bytes as they are.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`].
    #[inline]
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        self.step()?;
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
        self.step()?;
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
    /// is allocated. Items that may be empty (`least` 0) are limited to one for each byte that is left, and one more; those that take no
    /// memory are counted over the whole message.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`], [`DecodeError::TooLarge`], [`DecodeError::TooDeep`] for the 65th list within another, and what an item says.
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
        self.charge(memory_of_list::<T>(count, FACTOR))?;
        self.within(Nesting::List, |decoder| {
            // The list grows as the items turn out to be there, and never beyond their count.
            let mut items = Vec::with_capacity(count.min(FIRST_ITEMS));
            for _ in 0..count {
                if items.len() == items.capacity() {
                    items.reserve_exact(items.len().min(count - items.len()));
                }
                items.push(item(decoder)?);
            }
            Ok(items)
        })
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
