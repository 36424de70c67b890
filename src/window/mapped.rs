//! The window as this process has it mapped.

use std::os::fd::{AsFd, OwnedFd};

use super::allocator::WindowDescriptor;
use super::receive::{Seals, check, is_write_sealed};
use super::refusal::Refusal;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::foreign;
use crate::sys::fork::Origin;
use crate::sys::mapping::Mapping;
use crate::sys::memfd;

/// A mapped packet window. An endpoint is made from it, and it is unmapped with the endpoint.
///
/// It gives no access to its bytes: the peer can change them at any time, so they are copied in and out by the endpoint that holds
/// control.
pub struct Window {
    mapping: Mapping,
    origin: Origin,
}

impl Window {
    /// Maps a window of our own allocator.
    ///
    /// # Errors
    /// [`System`](ErrorKind::System) if the kernel refuses the mapping.
    pub fn map(descriptor: &WindowDescriptor<'_>) -> Result<Self> {
        let mapping = Mapping::new(descriptor.fd(), descriptor.offset(), descriptor.length());
        let mapping = mapping.map_err(|error| cannot_map("a window", descriptor.length(), error))?;
        Ok(Self { mapping, origin: Origin::here() })
    }

    /// Checks and maps a window that a peer sent: `length` bytes of `fd` from `offset`. The descriptor is closed in any case; the
    /// mapping does not need it. A refused one is closed on a thread of its own, because closing a peer's file may block.
    ///
    /// # Errors
    /// [`Refused`](ErrorKind::Refused), with the [`Refusal`] as its source, if a check fails; [`System`](ErrorKind::System) if the
    /// kernel refuses a check or the mapping, does not overcommit and has no memory for it, or if no descriptor is left to find that out;
    /// [`Unsupported`](ErrorKind::Unsupported) if it does not know a call that this takes.
    pub fn receive(fd: OwnedFd, offset: u64, length: u32, seals: Seals) -> Result<Self> {
        if let Err(refusal) = check(&fd, offset, length, seals) {
            foreign::close([fd]);
            return Err(match refusal {
                // The file is a memfd by then, or the kernel answers nobody: not for the peer to decide.
                Refusal::Unanswered { call, errno } => unanswered(call, errno),
                refusal => refused(refusal),
            });
        }
        // The file cannot shrink, and it reaches past the window: no access to the mapping can raise SIGBUS.
        memfd::reserve(fd.as_fd(), offset, u64::from(length))?;
        let mapping = Mapping::new(fd.as_fd(), offset, length).map_err(|error| match error.kind() {
            // The seal came after it was looked for.
            std::io::ErrorKind::PermissionDenied if is_write_sealed(&fd) => {
                refused(Refusal::WriteSealed("F_SEAL_FUTURE_WRITE"))
            }
            _ => cannot_map("a received window", length, error),
        });
        Ok(Self { mapping: mapping?, origin: Origin::here() })
    }

    /// Bytes that a datagram can have.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.mapping.capacity()
    }

    /// The process that mapped it, which is the only one that may use it.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    #[inline(always)]
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}

fn cannot_map(what: &str, length: u32, error: std::io::Error) -> Error {
    Error::system(format!("cannot map {what} of {length} bytes"), error)
}

fn unanswered(call: &str, errno: i32) -> Error {
    let what = format!("this system does not let a received window be checked: {call} failed");
    Error::system(what, std::io::Error::from_raw_os_error(errno))
}

fn refused(refusal: Refusal) -> Error {
    Error::caused(ErrorKind::Refused, "the peer's window is refused", refusal)
}

/// Its size, and no address: those of a process are no business of its logs.
impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}
