//! A umask for one thread: that of the process belongs to the program, and changes the files of all its threads.
#![allow(unsafe_code, reason = "unshare and umask have no safe wrapper that suits")]

use std::io;

/// Gives this thread a umask of its own, with its own working directory and root directory, and sets it. Only for a thread that ends soon
/// and runs nothing of the program.
///
/// # Errors
/// A filter of system calls may refuse it. The umask is that of before then.
pub(crate) fn set_for_this_thread(mask: u32) -> io::Result<()> {
    // SAFETY: CLONE_FS alone takes this thread out of what it shares with the others: working directory, root directory and umask. No memory
    // and no descriptor is concerned.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mask = mask as libc::mode_t;
    // SAFETY: the call takes a number, and returns the one of before.
    unsafe { libc::umask(mask) };
    // SAFETY: as above.
    let is_set = unsafe { libc::umask(mask) } == mask;
    if is_set { Ok(()) } else { Err(io::Error::other("a filter of system calls refuses to set the umask")) }
}
