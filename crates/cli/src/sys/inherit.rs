//! The right to the descriptors that a command was started with.
#![allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]

use flipcall::process::InheritedFds;

/// What this process was started with, which its command line names by numbers.
pub(crate) fn inherited() -> InheritedFds {
    // SAFETY: nothing in this program clears the close-on-exec flag of a descriptor, or takes inherited ones over in another way. So what is
    // inheritable was left by the parent, and belongs to nobody.
    unsafe { InheritedFds::claim() }
}
