//! Tells whether this process is a fork of the one that started something.
//!
//! Threads do not survive a fork, but everything that remembers them does. A page marked MADV_WIPEONFORK reads as zero in the child: one
//! load instead of a `getpid` on every slow wait.
#![allow(unsafe_code, reason = "madvise and one load of an anonymous page")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use memmap2::MmapRaw;
use rustix::mm::Advice;

/// A mark that a fork wipes out in the child.
#[derive(Debug)]
pub(crate) struct ForkMark {
    page: MmapRaw,
}

impl ForkMark {
    /// A mark of this process.
    pub(crate) fn new() -> std::io::Result<Self> {
        let page = MmapRaw::from(memmap2::MmapMut::map_anon(rustix::param::page_size())?);
        // SAFETY: the range is a whole private anonymous mapping of ours, and the advice only changes what a child sees of it.
        unsafe { rustix::mm::madvise(page.as_mut_ptr().cast(), page.len(), Advice::LinuxWipeOnFork)? };
        let mark = Self { page };
        mark.word().store(1, Ordering::Relaxed);
        Ok(mark)
    }

    /// Whether this process is the one that made the mark.
    pub(crate) fn is_ours(&self) -> bool {
        self.word().load(Ordering::Relaxed) == 1
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped as long as `self` lives, aligned to its size, and nothing accesses it but through this atomic.
        unsafe { AtomicU32::from_ptr(self.page.as_mut_ptr().cast()) }
    }
}

/// A value that each process makes for itself: a forked child does not use its parent's. It lives until the process ends.
///
/// There is no lock: a lock that some thread held during the fork would stay locked in the child for ever.
pub(crate) struct PerProcess<T: Send + Sync + 'static>(AtomicPtr<Owned<T>>);

struct Owned<T> {
    mark: ForkMark,
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
        owned.mark.is_ours().then_some(&owned.value)
    }

    /// This process's value, made by `make` unless it is there. When two threads race, one of the two values is dropped.
    pub(crate) fn get_or_try_init(&self, make: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<&'static T> {
        let before = self.0.load(Ordering::Acquire);
        if let Some(value) = Self::ours(before) {
            return Ok(value);
        }
        let fresh = Box::into_raw(Box::new(Owned { mark: ForkMark::new()?, value: make()? }));
        if self.0.compare_exchange(before, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `fresh` came from a box just now and was not published.
            drop(unsafe { Box::from_raw(fresh) });
        }
        self.get().ok_or_else(|| std::io::Error::other("the process forked in the middle of a call"))
    }
}
