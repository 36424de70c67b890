//! Issue 13, B8: clients that are gone, whose sockets do not hang up.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::attacker::account::Holdings;
use crate::attacker::control::Control;
use crate::attacker::{Peer, Role, Stage, alone, promised_once};
use crate::frames::{HELLO, RESPONSE, ask, frame, hello, open};
use crate::serving::{PATIENCE, Served, WAIT, eventually};

pub const ROLES: &[Role] = &[("leaves itself behind", leaves_itself_behind)];

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
