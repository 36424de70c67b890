//! The shared-memory file that windows are cut from.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{self, page_size};
use crate::error::{Error, Result};
use crate::sys::fork::Origin;
use crate::sys::memfd;

/// Bytes of an allocator's file unless the caller says otherwise: room for 16,384 windows of a page. A peer that punches a hole
/// into the whole of it stalls a page fault for about 12 ms, which grows with the size.
const DEFAULT_SIZE: u64 = 64 << 20;

/// Cuts packet windows out of one sealed memfd.
///
/// **One allocator serves one peer.** A holder of the file can map every window in it, so the windows of two peers never share an
/// allocator.
///
/// Windows are not taken back: a window's bytes must be zero when it is handed out, and the peer may keep its mapping for ever.
/// When the windows are no longer needed, drop the allocator; each mapping keeps its pages until it is dropped as well.
#[derive(Debug)]
#[doc(alias = "PacketWindowAllocator")]
pub struct Allocator {
    file: OwnedFd,
    size: u64,
    /// Bytes handed out, a multiple of the page size.
    used: AtomicU64,
    origin: Origin,
}

/// Where a window lies: a range of a file. gVisor's `PacketWindowDescriptor`.
#[derive(Debug, Clone, Copy)]
#[doc(alias = "PacketWindowDescriptor")]
pub struct WindowDescriptor<'a> {
    fd: BorrowedFd<'a>,
    offset: u64,
    length: u32,
}

impl Allocator {
    /// An allocator with a file of 64 MiB, of which only touched pages cost memory.
    ///
    /// # Errors
    /// [`System`](crate::ErrorKind::System) if the file cannot be made: no descriptor left, or a file size limit.
    pub fn new() -> Result<Self> {
        Self::with_size(DEFAULT_SIZE)
    }

    /// An allocator whose windows take up to `size` bytes together, each of them rounded up to whole pages.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `size` is 0 or over 2^62; [`System`](crate::ErrorKind::System) if the file
    /// cannot be made.
    pub fn with_size(size: u64) -> Result<Self> {
        const LARGEST: u64 = 1 << 62;
        if size == 0 || size > LARGEST {
            return Err(Error::invalid(format!(
                "an allocator of {size} bytes: it must have at least 1 and at most 2^62"
            )));
        }
        let size = size.next_multiple_of(u64::from(page_size()));
        Ok(Self { file: memfd::create("flipcall", size)?, size, used: AtomicU64::new(0), origin: Origin::here() })
    }

    /// A new window of at least `length` bytes, rounded up to whole pages where that stays below 4 GiB. Its bytes are zero.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `length` is 0, or more than what is left of the file;
    /// [`System`](crate::ErrorKind::System) if the kernel does not overcommit and has no memory for it, or if no descriptor is left
    /// to find that out.
    pub fn allocate(&self, length: u32) -> Result<WindowDescriptor<'_>> {
        self.origin.check()?;
        if length == 0 {
            return Err(Error::invalid("a window cannot be empty"));
        }
        let pages = u64::from(length).next_multiple_of(u64::from(page_size()));
        let take = |used: u64| used.checked_add(pages).filter(|&end| end <= self.size);
        let Ok(offset) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
            let left = self.size - self.used.load(Ordering::Relaxed);
            return Err(Error::invalid(format!(
                "a window of {pages} bytes does not fit: the allocator has {left} bytes left"
            )));
        };
        if let Err(error) = memfd::reserve(self.file.as_fd(), offset, pages) {
            // The range can be had again, unless another thread has taken the next one meanwhile.
            let _ = self.used.compare_exchange(offset + pages, offset, Ordering::Relaxed, Ordering::Relaxed);
            return Err(error);
        }
        let length = u32::try_from(pages).unwrap_or(length);
        Ok(WindowDescriptor { fd: self.file.as_fd(), offset, length })
    }

    /// The file behind the windows, to be handed to the one peer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsFd for Allocator {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl AsFd for WindowDescriptor<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd
    }
}

impl<'a> WindowDescriptor<'a> {
    /// A window that takes a whole file of `length` bytes.
    pub(super) fn whole(file: &'a OwnedFd, length: u32) -> Self {
        Self { fd: file.as_fd(), offset: 0, length }
    }

    /// The file, borrowed from the allocator.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// Bytes from the start of the file to the window, a multiple of the page size.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the window, header included.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Bytes that a datagram can have.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.length - layout::HEADER_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn windows_follow_each_other_until_the_file_is_used_up() {
        let page = page_size();
        let allocator = Allocator::with_size(u64::from(page) * 4).unwrap();
        let first = allocator.allocate(1).unwrap();
        let second = allocator.allocate(page + 1).unwrap();
        assert_eq!((first.offset(), first.length()), (0, page));
        assert_eq!((second.offset(), second.length()), (u64::from(page), 2 * page));
        assert_eq!(allocator.allocate(page + 1).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(allocator.allocate(page).unwrap().offset(), u64::from(3 * page));
        assert!(allocator.allocate(1).is_err());
    }

    #[test]
    fn sizes_that_no_file_can_have_are_refused() {
        assert_eq!(Allocator::with_size(0).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(Allocator::with_size(u64::MAX).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(Allocator::new().unwrap().allocate(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn the_largest_window_has_the_largest_length() {
        let allocator = Allocator::with_size(1 << 33).unwrap();
        assert_eq!(allocator.allocate(u32::MAX).unwrap().length(), u32::MAX);
    }
}
