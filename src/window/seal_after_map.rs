//! Windows in a file of their own, sealed further once both sides have mapped them.
//!
//! A file that serves one window for its whole life needs no second mapping: the seal FUTURE_WRITE then forbids new writable mappings
//! and, with them, punching holes, which would stall a page fault of ours. It cannot be there before the receiver has mapped the
//! window, so both sides add it afterwards.

use std::os::fd::{AsFd, OwnedFd};

use super::allocator::WindowDescriptor;
use super::layout::page_size;
use super::mapped::Window;
use super::receive::Seals;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{foreign, memfd};

impl Window {
    /// A window of `length` bytes, rounded up to whole pages, in a file of its own: the mapped window, the file to share, and the
    /// length it got.
    pub(crate) fn create(length: u32) -> Result<(Self, OwnedFd, u32)> {
        let page = page_size();
        let length = length.max(1).checked_next_multiple_of(page);
        let length = length.ok_or_else(|| Error::invalid("a window must be shorter than 4 GiB"))?;
        let file = memfd::create_open("flipcall", u64::from(length))?;
        memfd::reserve(file.as_fd(), 0, u64::from(length))?;
        let window = Self::map(&WindowDescriptor::whole(&file, length))?;
        Ok((window, file, length))
    }

    /// As [`receive`](Self::receive), for a file that a peer made with [`create`](Self::create): seals it right after mapping.
    pub(crate) fn receive_and_seal(fd: OwnedFd, offset: u64, length: u32) -> Result<Self> {
        // The copy is of a descriptor that `receive` refuses unless it is a memfd; nothing but dup touches it before.
        let copy = match fd.try_clone() {
            Ok(copy) => copy,
            Err(error) => {
                foreign::close([fd]);
                return Err(Error::system("cannot duplicate the descriptor of a received window", error));
            }
        };
        match Self::receive(fd, offset, length, Seals::AfterMap) {
            Ok(window) => seal(&copy).map(|()| window),
            Err(error) => {
                foreign::close([copy]);
                Err(error)
            }
        }
    }
}

/// Adds the seals that follow the mapping, unless the peer did.
pub(crate) fn seal(file: &OwnedFd) -> Result<()> {
    if memfd::seal_after_map(file)? {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        "the peer sealed a window's file without F_SEAL_FUTURE_WRITE: holes can still be punched into it",
    ))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{FallocateFlags, SealFlags};

    use super::*;

    #[test]
    fn no_hole_can_be_punched_once_either_side_has_sealed() {
        let (ours, file, length) = Window::create(5000).unwrap();
        assert_eq!(ours.capacity(), length - super::super::HEADER_LEN);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert!(rustix::fs::fallocate(&file, hole, 0, 4096).is_ok());
        let theirs = Window::receive_and_seal(file.try_clone().unwrap(), 0, length).unwrap();
        assert_eq!(theirs.capacity(), ours.capacity());
        assert!(rustix::fs::fallocate(&file, hole, 0, 4096).is_err());
        seal(&file).unwrap();
    }

    #[test]
    fn a_file_that_can_grow_is_refused() {
        let file = rustix::fs::memfd_create("grows", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&file, u64::from(page_size())).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        let received = || Window::receive_and_seal(file.try_clone().unwrap(), 0, page_size());
        assert!(format!("{:#}", received().unwrap_err()).contains("F_SEAL_GROW"));
        assert_eq!(rustix::fs::fcntl_get_seals(&file).unwrap(), SealFlags::SHRINK, "a refused file is left as it is");
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        received().unwrap();
    }

    #[test]
    fn a_file_sealed_without_that_is_refused() {
        let (_window, file, _) = Window::create(1).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL).unwrap();
        assert_eq!(seal(&file).unwrap_err().kind(), ErrorKind::Refused);
    }
}
