//! The raw limits that the benchmark compares with: what two processes can do with shared memory and nothing else.
//!
//! No bound on a wait, no shutdown, no check of what the other side says, copies by plain `memcpy`. It exists so that the price of all that
//! can be measured in the same run, and is built with feature `cli` only. It is no interface for programs: a process on the other end that
//! does not keep to the exchange can hang this one, or change bytes in the middle of a copy.
//!
//! ```
//! use flipcall::raw::Word;
//! use flipcall::window::{Allocator, Window};
//!
//! let allocator = Allocator::new()?;
//! let memory = Window::map(&allocator.allocate(4096)?)?.into_raw();
//! memory.bytes().copy_in(b"hello");
//! memory.word(Word::First).store(1);
//!
//! memory.word(Word::First).spin_until(1);
//! let mut copy = [0; 5];
//! memory.bytes().copy_out(&mut copy);
//! assert_eq!(&copy, b"hello");
//! # Ok::<(), flipcall::Error>(())
//! ```
#![allow(unsafe_code, reason = "plain copies to and from a mapping, which is the limit to be measured")]

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::futex::{self, Flags};

use super::mapping::Mapping;

/// Shared memory with the layout of a packet window (four words, then bytes) and none of its protocol.
#[derive(Debug)]
pub struct SharedMemory {
    mapping: Mapping,
}

/// One of the words at the start of the memory. Both lie in its first cache line, as do the first 48 bytes behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The word at offset 0.
    First,
    /// The word at offset 4.
    Second,
}

impl SharedMemory {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self { mapping }
    }

    /// A word of the memory.
    #[inline(always)]
    pub fn word(&self, which: Word) -> SharedWord<'_> {
        let header = self.mapping.header();
        SharedWord(match which {
            Word::First => &header.state,
            Word::Second => &header.length,
        })
    }

    /// The bytes behind the words.
    #[inline(always)]
    pub fn bytes(&self) -> SharedBytes<'_> {
        SharedBytes(&self.mapping)
    }
}

/// A 32-bit word that two processes share.
#[derive(Debug, Clone, Copy)]
pub struct SharedWord<'a>(&'a AtomicU32);

impl SharedWord<'_> {
    /// Loads the word with acquire order.
    #[inline(always)]
    pub fn load(self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Stores the word with release order.
    #[inline(always)]
    pub fn store(self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    /// Spins until the word is `value`, one pause per look. There is no bound on it.
    #[inline(always)]
    pub fn spin_until(self, value: u32) {
        while self.load() != value {
            std::hint::spin_loop();
        }
    }

    /// Sleeps in the kernel until the word is `value`: one plain FUTEX_WAIT per look, no deadline.
    #[inline]
    pub fn sleep_until(self, value: u32) {
        loop {
            let found = self.load();
            if found == value {
                return;
            }
            // Whatever ended the sleep, the word tells what to do next.
            let _ = futex::wait(self.0, Flags::empty(), found, None);
        }
    }

    /// Wakes one process that sleeps on the word.
    #[inline]
    pub fn wake(self) {
        // It fails only on an address that is not mapped or not aligned.
        let _ = futex::wake(self.0, Flags::empty(), 1);
    }
}

/// The bytes that two processes share.
#[derive(Debug, Clone, Copy)]
pub struct SharedBytes<'a>(&'a Mapping);

impl SharedBytes<'_> {
    /// Copies `from` to the start of the shared bytes with `memcpy`.
    ///
    /// # Panics
    /// If it does not fit.
    #[inline]
    pub fn copy_in(self, from: &[u8]) {
        let to = self.0.range(0, from.len()).expect("it fits");
        // SAFETY:
        // - `range` checked that `from.len()` bytes from `to` lie inside the mapping, which outlives `self`;
        // - `from` is private memory, which cannot overlap a mapping that no reference is made to;
        // - the call is hidden from the compiler, so what else happens to the bytes meanwhile spoils the copy and nothing more.
        unsafe { memcpy(to, from.as_ptr(), from.len()) };
    }

    /// Copies the start of the shared bytes to `to` with `memcpy`.
    ///
    /// # Panics
    /// If `to` is longer than the memory.
    #[inline]
    pub fn copy_out(self, to: &mut [u8]) {
        let from = self.0.range(0, to.len()).expect("it fits");
        // SAFETY: as in `copy_in`, with the roles of the two sides exchanged.
        unsafe { memcpy(to.as_mut_ptr(), from, to.len()) };
    }
}

/// The C library's `memcpy`, called behind the compiler's back: as in `bytes.rs`, it may then neither repeat nor invent an access.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, and the two do not overlap.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn memcpy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the three arguments are in the registers of the C calling convention, whose clobbers are declared; the stack is aligned
    // for a call because `nostack` is not given; the ranges are the caller's promise.
    unsafe {
        std::arch::asm!(
            "call qword ptr [rip + {memcpy}@GOTPCREL]",
            memcpy = sym libc::memcpy,
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rdx") len => _,
            clobber_abi("C"),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
use super::bytes::copy as memcpy;
