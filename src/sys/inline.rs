//! An inline datagram lies in the first cache line, header of the window included: it is moved without a branch on its length.
//!
//! The layout is that of a message of typed calls: four bytes, then a payload. Moves are made so that what the payload's owner loads
//! afterwards, or stored before, lies within one of them: a load that needs the bytes of two stores waits until both have left the
//! store buffer, which costs as much as the rest of the copy.
#![allow(unsafe_code, reason = "raw copies to and from the mapping")]

use super::mapping::{HEADER_LEN, Mapping};

/// Bytes in front of the payload.
pub(crate) const INLINE_HEAD: usize = 4;
/// The most payload bytes: whole words of what is left of the cache line.
pub(crate) const INLINE_BYTES: usize = 40;
/// The most payload words.
pub(crate) const INLINE_WORDS: usize = INLINE_BYTES / 8;

const _: () = assert!(HEADER_LEN as usize + INLINE_HEAD + INLINE_BYTES <= 64, "one cache line");

impl Mapping {
    /// Copies the payload's [`INLINE_BYTES`] out, however many of them count, and returns what stands in front of it. `None`: the
    /// window is too small for them.
    #[inline(always)]
    #[must_use]
    pub(crate) fn read_inline(&self, to: &mut [u8; INLINE_BYTES]) -> Option<[u8; INLINE_HEAD]> {
        let from = self.range(0, INLINE_HEAD + INLINE_BYTES)?;
        // SAFETY:
        // - `range` checked that these bytes lie inside the mapping, which lives as long as `self`;
        // - `to` is private memory of this process, of INLINE_BYTES bytes;
        // - the only references into the mapping are to the header, which `range` excludes.
        Some(unsafe { copy_out(to.as_mut_ptr(), from) })
    }

    /// Writes what stands in front of a payload, and the payload: all words, whose bytes beyond its length are zero. `false`: the
    /// window is too small for them, nothing happened.
    #[inline(always)]
    #[must_use]
    pub(crate) fn write_inline(&self, head: [u8; INLINE_HEAD], words: &[u64; INLINE_WORDS]) -> bool {
        let Some(to) = self.range(0, INLINE_HEAD + INLINE_BYTES) else { return false };
        // SAFETY: as in `read_inline`, with the roles of the two sides exchanged.
        unsafe { copy_in(to, head, words) };
        true
    }
}

/// # Safety
/// - `from` is valid for reads of [`INLINE_HEAD`] and [`INLINE_BYTES`] bytes, `to` for writes of [`INLINE_BYTES`]; they do not overlap.
/// - No Rust reference covers `from`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_out(to: *mut u8, from: *const u8) -> [u8; INLINE_HEAD] {
    let head: u32;
    // SAFETY: 4 bytes at 0, and 16, 16 and 8 from 4 on are read, which are the 44 of the contract, and the last 40 written in the same
    // pieces; everything that is written is declared.
    unsafe {
        std::arch::asm!(
            "mov {head:e}, [{from}]",
            "movups {first}, [{from} + 4]",
            "movups {second}, [{from} + 20]",
            "mov {from}, [{from} + 36]",
            "movups [{to}], {first}",
            "movups [{to} + 16], {second}",
            "mov [{to} + 32], {from}",
            head = out(reg) head,
            from = inout(reg) from => _,
            to = in(reg) to,
            first = out(xmm_reg) _,
            second = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
    head.to_ne_bytes()
}

/// # Safety
/// - `to` is valid for writes of [`INLINE_HEAD`] and [`INLINE_BYTES`] bytes.
/// - No Rust reference covers `to`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_in(to: *mut u8, head: [u8; INLINE_HEAD], words: &[u64; INLINE_WORDS]) {
    let head = u32::from_ne_bytes(head);
    // SAFETY: 4 bytes at 0 and 8 at each of 4, 12, 20, 28 and 36 are written, which are the 44 of the contract.
    unsafe {
        std::arch::asm!(
            "mov [{to}], {head:e}",
            "mov [{to} + 4], {first}",
            "mov [{to} + 12], {second}",
            to = in(reg) to,
            head = in(reg) head,
            first = in(reg) words[0],
            second = in(reg) words[1],
            options(nostack, preserves_flags),
        );
        std::arch::asm!(
            "mov [{to} + 20], {third}",
            "mov [{to} + 28], {fourth}",
            "mov [{to} + 36], {fifth}",
            to = in(reg) to,
            third = in(reg) words[2],
            fourth = in(reg) words[3],
            fifth = in(reg) words[4],
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// As on x86-64.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_out(to: *mut u8, from: *const u8) -> [u8; INLINE_HEAD] {
    let mut head = [0; INLINE_HEAD];
    // SAFETY: the caller's contract covers both ranges; `head` is private memory of its length.
    unsafe {
        super::bytes::copy(head.as_mut_ptr(), from, INLINE_HEAD);
        super::bytes::copy(to, from.add(INLINE_HEAD), INLINE_BYTES);
    }
    head
}

/// # Safety
/// As on x86-64.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_in(to: *mut u8, head: [u8; INLINE_HEAD], words: &[u64; INLINE_WORDS]) {
    // SAFETY: the caller's contract covers the destination; the sources are private memory of the lengths that are copied.
    unsafe {
        super::bytes::copy(to, head.as_ptr(), INLINE_HEAD);
        super::bytes::copy(to.add(INLINE_HEAD), words.as_ptr().cast(), INLINE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::memfd;

    #[test]
    fn an_inline_datagram_comes_out_as_it_went_in() {
        let file = memfd::create("inline", 4096).unwrap();
        let window = Mapping::new(file.as_fd(), 0, 4096).unwrap();
        let all: Vec<u8> = (1..=100).collect();
        assert!(window.write(0, &all));
        let (head, bytes): ([u8; INLINE_HEAD], [u8; INLINE_BYTES]) =
            ([201, 202, 203, 204], std::array::from_fn(|at| at as u8 + 101));
        let words = std::array::from_fn(|at| u64::from_ne_bytes(*bytes[8 * at..].first_chunk().unwrap()));
        assert!(window.write_inline(head, &words));
        let mut plain = [0; 100];
        assert!(window.read(0, &mut plain));
        assert_eq!((&plain[..4], &plain[4..44], &plain[44..]), (&head[..], &bytes[..], &all[44..]));
        let mut copy = [0; INLINE_BYTES];
        assert_eq!(window.read_inline(&mut copy), Some(head));
        assert_eq!(copy, bytes);
    }

    #[test]
    fn a_window_that_is_too_small_is_left_alone() {
        let file = memfd::create("inline", 4096).unwrap();
        let window = Mapping::new(file.as_fd(), 0, HEADER_LEN + 43).unwrap();
        assert!(!window.write_inline([1; 4], &[u64::MAX; INLINE_WORDS]));
        assert_eq!(window.read_inline(&mut [0; INLINE_BYTES]), None);
        let mut bytes = [9; 43];
        assert!(window.read(0, &mut bytes));
        assert_eq!(bytes, [0; 43]);
    }
}
