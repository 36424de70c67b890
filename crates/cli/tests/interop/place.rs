//! Where a window is, as both kinds of process are told.

use std::os::fd::OwnedFd;
use std::process::Command;

use flipcall::process::pass_descriptor;
use flipcall::window::{Allocator, Seals, Window, length_for_capacity};

/// A window in a memfd that this process holds.
pub(crate) struct Place {
    pub(crate) fd: OwnedFd,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl Place {
    /// A window for datagrams of `payload` bytes, made by our allocator. It is not the first one in its file.
    pub(crate) fn allocate(payload: u32) -> Self {
        let length = length_for_capacity(payload).expect("a small window");
        let allocator = Allocator::with_size(u64::from(length) + 4096).expect("a memfd");
        allocator.allocate(4096).expect("room for the first window");
        let window = allocator.allocate(length).expect("room for the second window");
        let fd = window.fd().try_clone_to_owned().expect("a descriptor");
        Self { fd, offset: window.offset(), length: window.length() }
    }

    /// Our mapping of it, checked as if a peer had sent it.
    pub(crate) fn receive(&self, seals: Seals) -> flipcall::Result<Window> {
        let fd = self.fd.try_clone().expect("a descriptor");
        Window::receive(fd, self.offset, self.length, seals)
    }

    /// Tells `command` where the window is.
    pub(crate) fn give_to(&self, command: &mut Command) {
        let fd = pass_descriptor(command, &self.fd).expect("a descriptor");
        command.args(["--fd", &fd.to_string(), "--offset", &self.offset.to_string()]);
        command.args(["--length", &self.length.to_string()]);
    }
}
