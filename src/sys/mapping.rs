//! A mapped packet window: the one type that holds an address the peer can write to.
//!
//! It gives out no reference to the bytes, only bounds-checked copies of them and the four atomic header words.
#![allow(unsafe_code, reason = "raw copies to and from the mapping")]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use super::bytes;
use super::sync::{HeaderWords, header_at};

/// Bytes of the header, which precede the datagram.
pub(crate) const HEADER_LEN: u32 = 16;

/// A shared, writable mapping of a window, unmapped when its last clone is dropped.
///
/// Address and length stand in each clone: between the moment in which a call gets control and the one in which it hands it back, a
/// pointer less has to be followed.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    _map: Arc<MmapRaw>,
}

// SAFETY: the address is that of a mapping which belongs to no thread, and which every clone keeps alive.
unsafe impl Send for Mapping {}
// SAFETY: what can be done through a shared reference is atomic (the header) or a copy that tolerates changes meanwhile.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes (at least a header) of `fd` from `offset`, a multiple of the page size.
    ///
    /// Touching a page past the end of the file would raise SIGBUS: the caller has made sure that the file is that long and sealed
    /// against shrinking.
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: u64, length: u32) -> std::io::Result<Self> {
        assert!(length >= HEADER_LEN, "a window holds at least its header");
        let map = MmapOptions::new().offset(offset).len(length as usize).map_raw(&fd)?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(Self { base, len: map.len(), _map: Arc::new(map) })
    }

    /// The header words.
    #[inline(always)]
    pub(crate) fn header(&self) -> &HeaderWords {
        // SAFETY:
        // - a mapping starts at a page (the offset is a multiple of the page size), so the address is aligned;
        // - it is at least HEADER_LEN bytes long, checked in `new`, and lives as long as `self`;
        // - `read`, `write` and `zero` below never touch the first HEADER_LEN bytes, so the words are only accessed atomically.
        unsafe { header_at(self.base) }
    }

    /// Bytes of datagram that fit behind the header.
    #[inline(always)]
    pub(crate) fn capacity(&self) -> u32 {
        // The length was a u32 when the mapping was made.
        self.len as u32 - HEADER_LEN
    }

    /// Copies out `to.len()` bytes of the datagram from `offset`. `false`: the range does not lie in the window, nothing happened.
    #[inline(always)]
    #[must_use]
    pub(crate) fn read(&self, offset: u32, to: &mut [u8]) -> bool {
        let Some(from) = self.range(offset, to.len()) else { return false };
        if to.is_empty() {
            // An empty datagram is common, and a branch that is predicted costs nothing: the copy costs 10 ns even then.
            return true;
        }
        // SAFETY:
        // - `range` checked that `to.len()` bytes from `from` lie inside the mapping, which lives as long as `self`;
        // - `to` is private memory of this process: it cannot overlap a mapping to which no reference is ever made;
        // - the only references into the mapping are to the header, which `range` excludes.
        unsafe { bytes::copy(to.as_mut_ptr(), from, to.len()) };
        true
    }

    /// Copies `from` into the datagram at `offset`. `false`: the range does not lie in the window, nothing happened.
    #[inline(always)]
    #[must_use]
    pub(crate) fn write(&self, offset: u32, from: &[u8]) -> bool {
        let Some(to) = self.range(offset, from.len()) else { return false };
        if from.is_empty() {
            return true;
        }
        // SAFETY: as in `read`, with the roles of the two sides exchanged.
        unsafe { bytes::copy(to, from.as_ptr(), from.len()) };
        true
    }

    /// Zeroes the bytes from `start` to `end` of the datagram. `false`: the range does not lie in the window, nothing happened.
    #[must_use]
    pub(crate) fn zero(&self, start: u32, end: u32) -> bool {
        let Some(len) = end.checked_sub(start) else { return false };
        let Some(to) = self.range(start, len as usize) else { return false };
        // SAFETY: `range` checked the bytes, and no reference covers them.
        unsafe { bytes::zero(to, len as usize) };
        true
    }

    /// The address of a datagram range, if all of it lies in the window.
    #[inline(always)]
    pub(super) fn range(&self, offset: u32, len: usize) -> Option<*mut u8> {
        let start = HEADER_LEN as usize + offset as usize;
        let fits = start.checked_add(len).is_some_and(|end| end <= self.len);
        // SAFETY: `start` is at most the length of the mapping.
        fits.then(|| unsafe { self.base.as_ptr().add(start) })
    }
}
