//! What kind of socket a descriptor is.
//!
//! Nothing is asked of the file behind the descriptor: one that is no socket fails before its own code could run. So this is no risk with a
//! descriptor that a peer sent.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use crate::error::{Error, ErrorKind, Result};

/// An error unless `socket` is a stream socket, of whatever family. Where the kernel does not say, it is taken for one.
pub(crate) fn check_stream(socket: BorrowedFd<'_>) -> Result<()> {
    lenient(is_stream(socket))
}

/// An error unless `socket` is a unix stream socket: one that shows the end of its peer, and that descriptors can be sent over. Where the
/// kernel does not say, it is taken for one.
pub(crate) fn check_unix_stream(socket: BorrowedFd<'_>) -> Result<()> {
    lenient(is_unix_stream(socket))
}

/// As [`check_unix_stream`] for a socket that a peer sent, which has to be one for certain.
///
/// # Errors
/// [`ErrorKind::Refused`] if it is another kind, [`ErrorKind::System`] where the kernel does not say.
pub(crate) fn check_received(socket: BorrowedFd<'_>) -> Result<()> {
    is_unix_stream(socket).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => {
            Error::caused(ErrorKind::Refused, "the peer sent something else than a socket", error)
        }
        _ => error,
    })
}

/// An error unless `fd` is a unix stream socket or a pipe, which shows the end of its peer as well.
pub(crate) fn check_hangs_up(fd: BorrowedFd<'_>) -> Result<()> {
    // No file system is asked: anything but a pipe fails at once.
    if rustix::pipe::fcntl_getpipe_size(fd).is_ok() { Ok(()) } else { check_unix_stream(fd) }
}

fn is_stream(socket: BorrowedFd<'_>) -> Result<()> {
    match socket_type(socket) {
        Ok(SocketType::STREAM) => Ok(()),
        Ok(other) => Err(wrong(&format!("a {} socket", type_name(other)))),
        Err(errno) => Err(unanswered(errno)),
    }
}

fn is_unix_stream(socket: BorrowedFd<'_>) -> Result<()> {
    is_stream(socket)?;
    match socket_domain(socket) {
        Ok(AddressFamily::UNIX) => Ok(()),
        Ok(family) => Err(Error::invalid(format!(
            "a connected unix stream socket is needed, and this is a stream socket of address family {}{}",
            family.as_raw(),
            if [AddressFamily::INET, AddressFamily::INET6].contains(&family) { " (TCP)" } else { "" },
        ))),
        Err(errno) => Err(unanswered(errno)),
    }
}

/// What a system call filter keeps us from asking is no fault of the socket.
fn lenient(checked: Result<()>) -> Result<()> {
    checked.or_else(|error| if error.kind() == ErrorKind::System { Ok(()) } else { Err(error) })
}

#[cold]
fn wrong(found: &str) -> Error {
    Error::invalid(format!("a connected stream socket is needed, and this is {found}"))
}

#[cold]
fn unanswered(errno: Errno) -> Error {
    match errno {
        Errno::NOTSOCK => wrong("no socket"),
        errno => Error::system("cannot ask (getsockopt) what kind of socket a descriptor is", errno),
    }
}

fn type_name(kind: SocketType) -> String {
    match kind {
        SocketType::DGRAM => "SOCK_DGRAM".to_owned(),
        SocketType::SEQPACKET => "SOCK_SEQPACKET".to_owned(),
        SocketType::RAW => "SOCK_RAW".to_owned(),
        other => format!("type {}", other.as_raw()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn each_kind_is_named() {
        let (unix, tcp) = (UnixStream::pair().unwrap().0, TcpListener::bind("127.0.0.1:0").unwrap());
        let datagram = UnixDatagram::unbound().unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(check_stream(unix.as_fd()).is_ok() && check_unix_stream(unix.as_fd()).is_ok());
        assert!(check_stream(tcp.as_fd()).is_ok());
        let cases = [(tcp.as_fd(), "(TCP)"), (datagram.as_fd(), "SOCK_DGRAM"), (file.as_fd(), "no socket")];
        for (fd, name) in cases {
            let error = check_unix_stream(fd).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
