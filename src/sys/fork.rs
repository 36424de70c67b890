//! Tells which process made a thing: a forked child has a copy of all that its parent had, and may use none of it.
//!
//! A connection that two processes use at once belongs to neither. So each handle keeps the [`Origin`] that made it, and in any other process
//! it refuses, and its drop leaves the connection alone. A process knows its own origin by a word in a page that the kernel wipes on fork
//! (`MADV_WIPEONFORK`): a load, where `getpid` would be a system call. Where the kernel does not know that advice, the C library's `fork`
//! wipes the word; a bare `clone` then goes unnoticed.
#![allow(unsafe_code, reason = "madvise, a handler of fork, and a word in a page that is never unmapped")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use memmap2::MmapRaw;
use rustix::mm::Advice;

use crate::error::{Error, Result};

/// The process that made a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin(u32);

/// The word before it is known where the real one is. It stays 0.
static UNDECIDED: AtomicU32 = AtomicU32::new(0);
/// The word where the kernel wipes no page.
static PLAIN: AtomicU32 = AtomicU32::new(0);
/// The word that holds this process's origin; 0: it made nothing yet.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const UNDECIDED).cast_mut());
/// The next origin. A child goes on counting where its parent was, so no origin comes twice in a line of processes.
static NEXT: AtomicU32 = AtomicU32::new(1);

impl Origin {
    /// This process.
    #[inline]
    pub(crate) fn here() -> Self {
        match word().load(Ordering::Relaxed) {
            0 => Self::first(),
            here => Self(here),
        }
    }

    /// Whether this is the process that made the handle.
    #[inline(always)]
    pub(crate) fn is_here(self) -> bool {
        word().load(Ordering::Relaxed) == self.0
    }

    /// An error in any other process.
    #[inline(always)]
    pub(crate) fn check(self) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(elsewhere()) }
    }

    /// The first use in this process.
    #[cold]
    fn first() -> Self {
        if ptr::eq(word(), &raw const UNDECIDED) {
            decide();
        }
        let fresh = NEXT.fetch_add(1, Ordering::Relaxed);
        match word().compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Self(fresh),
            Err(other) => Self(other),
        }
    }
}

/// What a handle says in a process that did not make it.
#[cold]
fn elsewhere() -> Error {
    Error::invalid("this handle was made before this process was forked and belongs to its parent: make one here")
        .and_the_end()
}

#[inline(always)]
fn word() -> &'static AtomicU32 {
    // SAFETY: the pointer is that of a static, or of a page that `decide` published and nobody unmaps. Only this atomic accesses it.
    unsafe { &*WORD.load(Ordering::Acquire) }
}

/// Publishes a page that the kernel wipes on fork, or else [`PLAIN`], which the C library's `fork` wipes. Of threads that race one
/// decides for all.
#[cold]
fn decide() {
    let page = wiped_page();
    let chosen = match &page {
        Some(page) => page.as_mut_ptr().cast(),
        None => {
            // SAFETY: the handler is a function of this crate that stores to an atomic. If it cannot be registered, forks go unnoticed.
            unsafe { libc::pthread_atfork(None, None, Some(wipe)) };
            (&raw const PLAIN).cast_mut()
        }
    };
    let undecided = (&raw const UNDECIDED).cast_mut();
    if WORD.compare_exchange(undecided, chosen, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        std::mem::forget(page);
    }
}

extern "C" fn wipe() {
    PLAIN.store(0, Ordering::Relaxed);
}

fn wiped_page() -> Option<MmapRaw> {
    let page = MmapRaw::from(memmap2::MmapMut::map_anon(rustix::param::page_size()).ok()?);
    // SAFETY: the range is a whole private anonymous mapping of ours, and the advice only changes what a child sees of it.
    unsafe { rustix::mm::madvise(page.as_mut_ptr().cast(), page.len(), Advice::LinuxWipeOnFork).ok()? };
    Some(page)
}

/// A value that each process makes for itself: a forked child does not use its parent's. It lives until the process ends.
///
/// There is no lock: a lock that some thread held during the fork would stay locked in the child for ever.
pub(crate) struct PerProcess<T: Send + Sync + 'static>(AtomicPtr<Owned<T>>);

struct Owned<T> {
    origin: Origin,
    value: T,
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// This process's value, if it was made. A value of the parent counts as none.
    pub(crate) fn get(&self) -> Option<&'static T> {
        Self::ours(self.0.load(Ordering::Acquire))
    }

    fn ours(published: *const Owned<T>) -> Option<&'static T> {
        // SAFETY: what is loaded from `self.0` is null or came from `Box::into_raw` in `get_or_try_init`, published with release, and what
        // was published is never freed.
        let owned: &'static Owned<T> = unsafe { published.as_ref()? };
        owned.origin.is_here().then_some(&owned.value)
    }

    /// This process's value, made by `make` unless it is there. When two threads race, one of the two values is dropped.
    pub(crate) fn get_or_try_init(&self, make: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<&'static T> {
        let before = self.0.load(Ordering::Acquire);
        if let Some(value) = Self::ours(before) {
            return Ok(value);
        }
        let fresh = Box::into_raw(Box::new(Owned { origin: Origin::here(), value: make()? }));
        if self.0.compare_exchange(before, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `fresh` came from a box just now and was not published.
            drop(unsafe { Box::from_raw(fresh) });
        }
        self.get().ok_or_else(|| std::io::Error::other("the process forked in the middle of a call"))
    }
}
