//! What sockets offer.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::finding::{Finding, found};
use crate::sys::probe;

fn socket() -> Result<OwnedFd, Errno> {
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    pair.map(|(ours, _)| ours)
}

pub(super) fn credentials() -> Finding {
    found(
        socket().and_then(|socket| probe::peer_credentials(socket.as_fd())),
        "a server knows the process and the user of each client",
        "a server cannot count what a client has, and refuses it",
    )
}

pub(super) fn peer_pidfd() -> Finding {
    found(
        socket().and_then(|socket| probe::peer_pidfd(socket.as_fd())),
        "a peer's process is known and watched beside its socket",
        "a peer's process is known by its number alone; Linux 6.5 has the option",
    )
}

pub(super) fn pass_rights() -> Finding {
    found(
        socket().and_then(|socket| probe::pass_rights(socket.as_fd())),
        "descriptors that nobody asked for are refused at the sender",
        "descriptors that nobody asked for are received and closed; Linux 6.16 has the option",
    )
}

pub(super) fn unread() -> Finding {
    found(
        socket().and_then(|socket| probe::unread(socket.as_fd())),
        "a server knows when a client has taken its descriptors",
        "a server cannot open channels with windows",
    )
}
