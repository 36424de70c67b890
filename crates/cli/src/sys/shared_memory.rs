//! The raw limits that the benchmark compares with: what two processes can do with shared memory and nothing else.
//!
//! There is no bound on a wait, no shutdown and no check of what the other side says; copies are plain `memcpy`. It exists so that the
//! price of all that can be measured in the same run. It is no interface for programs: a process on the other end that does not keep to the
//! exchange can hang this one, or change bytes in the middle of a copy.
#![allow(unsafe_code, reason = "plain copies to and from a mapping, which is the limit to be measured")]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use flipcall::window::HEADER_LEN;
use memmap2::{MmapOptions, MmapRaw};
use rustix::thread::futex::{self, Flags};

/// Shared memory with the layout of a packet window (four words, then bytes) and none of its protocol.
///
/// Address and length stand in the value itself: a pointer less has to be followed between the moment in which a call sees its turn and
/// the one in which it hands it back.
#[derive(Debug)]
pub struct SharedMemory {
    base: NonNull<u8>,
    len: usize,
    _map: MmapRaw,
}

/// One of the words at the start of the memory. Both lie in its first cache line, as do the first 48 bytes behind the four words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The word at offset 0.
    First,
    /// The word at offset 4.
    Second,
}

impl SharedMemory {
    /// Maps `length` bytes (at least the four words) of `fd` from `offset`, a multiple of the page size. The file has to be that long:
    /// touching a page past its end raises SIGBUS.
    ///
    /// # Errors
    /// What the kernel says of the mapping.
    pub fn map(fd: BorrowedFd<'_>, offset: u64, length: u32) -> std::io::Result<Self> {
        assert!(length >= HEADER_LEN, "the words need {HEADER_LEN} bytes");
        let map = MmapOptions::new().offset(offset).len(length as usize).map_raw(&fd)?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(Self { base, len: map.len(), _map: map })
    }

    /// A word of the memory.
    #[inline(always)]
    pub fn word(&self, which: Word) -> SharedWord<'_> {
        let index = match which {
            Word::First => 0,
            Word::Second => 1,
        };
        // SAFETY:
        // - a mapping starts at a page, so the address of each of its words is aligned;
        // - it is at least HEADER_LEN = 16 bytes long, checked in `map`, and lives as long as `self`;
        // - the copies below never touch the first HEADER_LEN bytes, so the words are only accessed atomically.
        SharedWord(unsafe { AtomicU32::from_ptr(self.base.as_ptr().cast::<u32>().add(index)) })
    }

    /// The bytes behind the words.
    #[inline(always)]
    pub fn bytes(&self) -> SharedBytes<'_> {
        SharedBytes(self)
    }

    /// Where the bytes begin.
    ///
    /// # Panics
    /// If fewer than `len` lie behind the words.
    #[inline(always)]
    fn start(&self, len: usize) -> *mut u8 {
        let header = HEADER_LEN as usize;
        assert!(len <= self.len - header, "{len} bytes in shared memory of {}", self.len - header);
        // SAFETY: the mapping is at least `header` bytes long, checked in `map`.
        unsafe { self.base.as_ptr().add(header) }
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

    /// Spins until the word is `value`, one pause per load. There is no bound on it.
    #[inline(always)]
    pub fn spin_until(self, value: u32) {
        while self.load() != value {
            std::hint::spin_loop();
        }
    }

    /// Sleeps in the kernel until the word is `value`: one plain FUTEX_WAIT per load, no deadline.
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
pub struct SharedBytes<'a>(&'a SharedMemory);

impl SharedBytes<'_> {
    /// Copies `from` to the start of the shared bytes with `memcpy`.
    ///
    /// # Panics
    /// If it does not fit.
    #[inline]
    pub fn copy_in(self, from: &[u8]) {
        let to = self.0.start(from.len());
        // SAFETY:
        // - `start` checked that `from.len()` bytes from `to` lie inside the mapping, which outlives `self`;
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
        let from = self.0.start(to.len());
        // SAFETY: as in `copy_in`, with the roles of the two sides exchanged.
        unsafe { memcpy(to.as_mut_ptr(), from, to.len()) };
    }
}

/// The C library's `memcpy`, called behind the compiler's back: it may then neither repeat nor invent an access, whatever the other process does to the bytes.
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

/// The C library's `memcpy`, called behind the compiler's back: through a pointer of which it does not know where it leads.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, and the two do not overlap.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn memcpy(to: *mut u8, from: *const u8, len: usize) {
    type Memcpy = unsafe extern "C" fn(*mut libc::c_void, *const libc::c_void, usize) -> *mut libc::c_void;
    let memcpy: Memcpy = std::hint::black_box(libc::memcpy);
    // SAFETY: the ranges are the caller's promise.
    unsafe { memcpy(to.cast(), from.cast(), len) };
}
