//! A peer sends its own end of the watched socket over that socket, and dies: the end lives on in our queue, and never hangs up.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flipcall::endpoint::{Connector, Options};
use flipcall::stream::send_with_fd;
use flipcall::{Deadline, ErrorKind};

use crate::attacker::{AGES, Peer, Role, Stage, alone, arena, next_window};

pub const ROLES: &[Role] = &[("becomes undead", become_undead)];

/// Sends its end over itself, and says how that went.
fn become_undead(stage: Stage) {
    let window = stage.window(0);
    window.shake_hands_as_server();
    stage.control.expect("now");
    let end = &stage.fds[1];
    let sent = send_with_fd(end, b"x", end, AGES);
    stage.control.say(if sent.is_ok() { "sent" } else { "refused" });
    stage.control.listen();
}

/// The kind of the error with which a call ends whose peer did that, and whether it could.
fn call_undead(allow: bool) -> (ErrorKind, String) {
    let arena = arena(1);
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let again = ours.try_clone().expect("dup");
    let connector = Connector::new(next_window(&arena), Options::new().watch_socket(ours.into())).expect("a connector");
    if allow {
        // As on a kernel that cannot forbid it.
        set_pass_rights(again.as_fd());
    }
    drop(again);
    let peer = Peer::start("becomes undead", "", &[arena.as_fd(), theirs.as_fd()]);
    drop(theirs);
    let mut endpoint = connector.connect(AGES).expect("a server");
    let said = peer.control.ask("now");
    drop(peer);
    let begun = Instant::now();
    let ended = endpoint.send_recv(0, Deadline::after(AGES)).expect_err("nobody answers");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    (flipcall::Error::from(ended).kind(), said)
}

/// Issue 13, B8.
#[test]
fn a_peer_that_sends_its_own_end_and_dies_does_not_seem_to_live() {
    let _alone = alone();
    let (kind, said) = call_undead(false);
    let expected = if said == "sent" { ErrorKind::Violation } else { ErrorKind::PeerGone };
    assert_eq!(kind, expected, "{said}");
    let (kind, said) = call_undead(true);
    assert_eq!((kind, said.as_str()), (ErrorKind::Violation, "sent"));
}

fn set_pass_rights(socket: std::os::fd::BorrowedFd<'_>) {
    let script = "import socket\ns=socket.socket(fileno=0)\ns.setsockopt(1,83,1)\ns.detach()";
    let command = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(socket.try_clone_to_owned().expect("dup"))
        .stderr(std::process::Stdio::null())
        .status();
    let _ = command.expect("python3");
}
