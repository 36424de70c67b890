//! A descriptor on its way to a child, as the environment tells it: `number:device:inode`.
//!
//! The number alone would do for the child that it is meant for. But an environment is inherited further than descriptors are: a process
//! that the child starts finds the variable, and under that number something else. So device and inode of what was handed over
//! go along, and are compared. A parent in another language may leave them out.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sys::inherit::{InheritedFds, inherit};

/// Makes every process that `command` starts inherit `fd`, under the number that is returned. In this process it stays close-on-exec.
/// The command keeps a copy open until it is dropped, and starts its processes by fork, whose time grows with the memory of this one.
///
/// # Errors
/// [`System`](crate::ErrorKind::System) if the descriptor cannot be duplicated.
pub fn pass_descriptor(command: &mut Command, fd: impl AsFd) -> Result<RawFd> {
    let (handover, copy) = Handover::new(fd)?;
    inherit(command, vec![copy]);
    Ok(handover.number)
}

/// What a child is told about a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handover {
    number: RawFd,
    /// Device and inode.
    file: Option<(u64, u64)>,
}

impl Handover {
    /// A copy of `fd` that a child is to inherit, above the standard streams.
    pub(crate) fn new(fd: impl AsFd) -> Result<(Self, Arc<OwnedFd>)> {
        // Its number is above the standard streams: the standard library duplicates to no other.
        let copy = fd.as_fd().try_clone_to_owned();
        let copy = copy.map_err(|error| Error::system("cannot duplicate a descriptor for a child", error))?;
        let handover = Self { number: copy.as_raw_fd(), file: Some(identity(&copy)?) };
        Ok((handover, Arc::new(copy)))
    }

    /// Takes the descriptor over, in the child.
    pub(crate) fn take(&self, inherited: &InheritedFds) -> Result<OwnedFd> {
        inherited.take_if(self.number, |fd| self.file.is_none_or(|file| identity(fd).is_ok_and(|found| found == file)))
    }
}

fn identity(fd: impl AsFd) -> Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| Error::system("cannot tell what a descriptor is", errno))?;
    Ok((stat.st_dev, stat.st_ino))
}

impl fmt::Display for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)?;
        self.file.map_or(Ok(()), |(device, inode)| write!(f, ":{device}:{inode}"))
    }
}

impl FromStr for Handover {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut fields = text.split(':');
        let number = fields.next().and_then(|number| number.parse().ok()).ok_or(())?;
        let mut rest = fields.map(|field| field.parse().map_err(drop));
        let file = match (rest.next(), rest.next(), rest.next()) {
            (None, ..) => None,
            (Some(device), Some(inode), None) => Some((device?, inode?)),
            _ => return Err(()),
        };
        Ok(Self { number, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for handover in [Handover { number: 7, file: None }, Handover { number: 7, file: Some((u64::MAX, 0)) }] {
            assert_eq!(handover.to_string().parse(), Ok(handover));
        }
        for bad in ["", "x", "7:", "7:1", "7:1:", "7:1:2:3", "7:-1:2", " 7", "7:1:18446744073709551616"] {
            assert_eq!(bad.parse::<Handover>(), Err(()), "{bad}");
        }
    }
}
