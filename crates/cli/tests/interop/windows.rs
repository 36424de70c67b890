//! Windows that gVisor's allocator made, in our hands, and ours in gVisor's.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use flipcall::ErrorKind;
use flipcall::endpoint::Options;
use flipcall::window::{Refusal, Seals};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::ours::Ours;
use crate::place::Place;
use crate::process::{Kind, Running, Side, command, pass};

/// Starts a Go peer that makes the window, and takes the window from it.
fn from_go(side: Side, arguments: &[&str]) -> Option<(Running, Place)> {
    let mut go = command(Kind::Go, side)?;
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    // The window is not the first in its file, and the file is larger than both.
    go.args(["--allocate", "5000", "--skip", "12288"]).args(arguments);
    pass(&mut go, "--send-fd", theirs);
    Some((Running::start(go), take(&ours)))
}

/// Receives "offset length\n" and the memfd.
fn take(socket: &UnixStream) -> Place {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .expect("a message of the Go process");
    let text = std::str::from_utf8(&bytes[..received.bytes]).expect("it is text");
    let (offset, length) = text.trim_end().split_once(' ').expect("two numbers");
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd: OwnedFd = fds.next().and_then(|mut fds| fds.next()).expect("a descriptor");
    Place { fd, offset: offset.parse().expect("a number"), length: length.parse().expect("a number") }
}

#[test]
fn a_go_window_carries_calls() {
    for side in Side::BOTH {
        let Some((go, place)) = from_go(side.other(), &["--calls", "200"]) else { return };
        assert_eq!((place.offset, place.length), (12_288, 8192));
        let end = Ours::new(side, &place, Options::new()).run(200);
        match side {
            Side::Client => drop(end.expect("200 calls")),
            // Our server is in its 201st receive when the client shuts down.
            Side::Server => assert_eq!(end.expect_err("a shutdown").kind(), ErrorKind::PeerShutdown),
        }
        go.finish().succeeded();
    }
}

#[test]
fn a_go_window_is_refused_where_strict_seals_are_demanded() {
    let Some((_go, place)) = from_go(Side::Server, &[]) else { return };
    place.receive(Seals::Compatible).expect("gVisor's seals suffice for that");
    let error = place.receive(Seals::Strict).expect_err("the file can grow");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(format!("{error:#}").contains("F_SEAL_GROW"), "{error:#}");
    let source = std::error::Error::source(&error).expect("a refusal has a source");
    assert_eq!(source.downcast_ref(), Some(&Refusal::MissingSeal("F_SEAL_GROW")));
}

#[test]
fn the_endpoint_command_refuses_a_go_window_if_strict() {
    let Some((_go, place)) = from_go(Side::Server, &[]) else { return };
    let strict = command(Kind::Rust, Side::Client).expect("it is our own");
    let ended = Running::on(&place, strict, &["--strict"]).finish().failed_with("refused");
    ended.failed_with("F_SEAL_GROW");
    let lax = command(Kind::Rust, Side::Client).expect("it is our own");
    Running::on(&place, lax, &["--calls", "10"]).finish().succeeded();
}

#[test]
fn go_takes_a_window_of_ours_that_ends_inside_a_page() {
    for side in Side::BOTH {
        let Some(go) = command(Kind::Go, side.other()) else { return };
        let mut place = Place::allocate(8192 - 16);
        place.length = 5001;
        let go = Running::on(&place, go, &["--calls", "20", "--payload", "4985"]);
        let end = Ours::new(side, &place, Options::new()).run(20);
        match side {
            Side::Client => assert_eq!(end.expect("20 calls").capacity(), 4985),
            Side::Server => assert_eq!(end.expect_err("a shutdown").kind(), ErrorKind::PeerShutdown),
        }
        go.finish().succeeded();
    }
}
