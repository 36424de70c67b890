//! The resource limits of this process.
//!
//! Not by the library's own call for it: that one takes the question for one that cannot fail, and under a filter of system calls it can.
#![allow(unsafe_code, reason = "the safe wrapper panics where the kernel refuses")]

use std::io;

use rustix::process::{Resource, Rlimit};

/// The limits of `resource`.
pub(crate) fn get(resource: Resource) -> io::Result<Rlimit> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live variable of the right type, and the kernel writes nothing else.
    let result = unsafe { libc::getrlimit64(resource as _, &mut limit) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let number = |value| (value != libc::RLIM64_INFINITY).then_some(value);
    Ok(Rlimit { current: number(limit.rlim_cur), maximum: number(limit.rlim_max) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_that_others_read() {
        for resource in [Resource::Nofile, Resource::Fsize, Resource::Stack] {
            let (ours, theirs) = (get(resource).unwrap(), rustix::process::getrlimit(resource));
            assert_eq!((ours.current, ours.maximum), (theirs.current, theirs.maximum), "{resource:?}");
        }
    }
}
