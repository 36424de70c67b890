//! Issue 13, B8: clients that are gone, whose sockets do not hang up.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flipcall::rpc::Server;

use crate::attacker::account::Holdings;
use crate::attacker::control::Control;
use crate::attacker::{Peer, Role, Stage, alone, many_descriptors, promised_once};
use crate::frames::{HELLO, RESPONSE, ask, frame, hello, open};
use crate::serving::{PATIENCE, Served, WAIT, eventually, router};

pub const ROLES: &[Role] = &[
    ("leaves itself behind", leaves_itself_behind),
    ("leaves its end of a pair behind", leaves_its_end_of_a_pair_behind),
];

/// Connections of one process, within its quarter.
const CROWD: usize = 100;

/// Connects often, puts its ends of each connection where nobody will find them, and ends. Its argument: a path, and what it does.
fn leaves_itself_behind(stage: Stage) {
    let (path, how) = stage.argument.rsplit_once(' ').expect("a path and a way");
    let connect = |_| {
        let base = UnixStream::connect(path).expect("a server");
        assert_eq!(ask(&base, HELLO, &hello(0)).0, RESPONSE);
        let ends = Control::new(base.try_clone().expect("dup").into());
        // What nobody reads: a base connection whose method waits, the socket of a channel with a window. One without has half a header.
        let unread = match how {
            "base" => {
                (&base).write_all(&frame(WAIT, &[0; 8])).expect("room");
                ends
            }
            _ => {
                (&base).write_all(&open(if how == "window" { 4096 } else { 0 })).expect("room");
                let (_, mut fds) = ends.listen().expect("an answer");
                Control::new(fds.pop().expect("the channel's socket"))
            }
        };
        unread.say_with("?", &[base.as_fd()]);
        unread.say_with("?", &[unread.as_fd()]);
        (base, unread)
    };
    let held: Vec<_> = (0..CROWD).map(connect).collect();
    stage.control.say("connected");
    let _ = stage.control.listen();
    drop(held);
    std::process::exit(0);
}

#[test]
fn a_client_that_left_itself_in_a_queue_is_noticed() {
    let _alone = alone();
    many_descriptors();
    let served = Served::start(PATIENCE);
    let before = Holdings::of(&served.id());
    for how in ["window", "socket", "base"] {
        let mut peer = Peer::start("leaves itself behind", &format!("{} {how}", served.path.display()), &[]);
        peer.control.expect("connected");
        eventually("all are served", || Holdings::of(&served.id()).descriptors >= before.descriptors + 2 * CROWD);
        peer.control.say("go");
        assert!(peer.child.wait().unwrap().success());
        let took = eventually(how, || {
            let now = Holdings::of(&served.id());
            // One more may be there: that of the watchdog.
            now.windows == 0 && now.descriptors <= before.descriptors + 1
        });
        promised_once(
            &format!("{CROWD} connections of a client that is gone ({how}) are free after"),
            took,
            Duration::from_secs(1),
        );
    }
}

/// Puts its ends of a connection into the queue of its own channel, and ends.
fn leaves_its_end_of_a_pair_behind(mut stage: Stage) {
    let base = UnixStream::from(stage.fds.remove(0));
    assert_eq!(ask(&base, HELLO, &hello(0)).0, RESPONSE);
    (&base).write_all(&open(4096)).expect("room");
    let (_, mut fds) = Control::new(base.try_clone().expect("dup").into()).listen().expect("an answer");
    let channel = Control::new(fds.pop().expect("the channel's socket"));
    channel.say_with("?", &[base.as_fd()]);
    channel.say_with("?", &[channel.as_fd()]);
    std::process::exit(0);
}

/// A socket pair does not name its user, so no process is watched: what lies unread on the channel is all there is to see.
#[test]
fn what_lies_unread_on_a_channel_ends_it() {
    let _alone = alone();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut peer = Peer::start("leaves its end of a pair behind", "", &[theirs.as_fd()]);
    drop(theirs);
    let serving = std::thread::spawn(move || Server::new(router(), Default::default()).serve_one(ours));
    assert!(peer.child.wait().unwrap().success());
    let took = eventually("the connection is over", || serving.is_finished());
    promised_once("a connection of a client that is gone (pair) is over after", took, Duration::from_millis(1500));
    let _ = serving.join().expect("no panic");
}
