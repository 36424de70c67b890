//! What decoding one message may cost: how deep its values lie within each other, and how much memory they take.

use super::error::{DecodeError, MOST_NESTED};

/// Bytes of memory that a value may take for each byte of its message. The worst of the codec's own types are lists of one list each: 4
/// bytes make 24 for the list and [`ALLOCATION`].
pub(super) const FACTOR: usize = 16;

/// The same for serde types, where a short string takes two bytes of the message and a small number one.
#[cfg(feature = "postcard")]
pub(super) const SERDE_FACTOR: usize = 32;

/// Bytes of memory that every message may ask for: a short one is not refused for an unlucky ratio.
const FREE: usize = 64 << 10;

/// Bytes that an allocation takes besides its contents, at most, with the usual allocators.
pub(super) const ALLOCATION: usize = 32;

/// What can lie within its like. Each is counted by itself, so that 64 levels of a type are allowed, whatever they are made of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Nesting {
    Struct,
    List,
    #[cfg_attr(not(feature = "postcard"), expect(dead_code, reason = "the codec has no options of its own"))]
    Option,
}

/// What is left of a message's allowance.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    memory: usize,
    depths: [u8; 3],
}

impl Limits {
    /// The allowance of a message of `bytes` bytes.
    #[inline]
    pub(super) fn new(bytes: usize, factor: usize) -> Self {
        Self { memory: bytes.saturating_mul(factor).saturating_add(FREE), depths: [0; 3] }
    }

    /// Begins a value that has others within.
    #[inline]
    pub(super) fn enter(&mut self, what: Nesting) -> Result<(), DecodeError> {
        let depth = &mut self.depths[what as usize];
        if *depth == MOST_NESTED {
            return Err(DecodeError::TooDeep);
        }
        *depth += 1;
        Ok(())
    }

    /// Ends it.
    #[inline]
    pub(super) fn leave(&mut self, what: Nesting) {
        self.depths[what as usize] -= 1;
    }

    /// Takes memory off.
    #[inline]
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.memory = self.memory.checked_sub(bytes).ok_or(DecodeError::TooLarge)?;
        Ok(())
    }

    /// Gives memory back that was taken for nothing.
    #[cfg(feature = "postcard")]
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.memory += bytes;
    }
}

/// The memory of a list of `count` items. One without a size counts as what one byte of the message may take: so there cannot be more of
/// them than bytes.
#[inline]
pub(super) fn memory_of_list<T>(count: usize, factor: usize) -> usize {
    match size_of::<T>() {
        0 => count.saturating_mul(factor),
        _ if count == 0 => 0,
        size => count.saturating_mul(size).saturating_add(ALLOCATION),
    }
}
