//! Shutdown before, during and after calls, by either side, with either side as the client; and death instead of shutdown.

use std::time::{Duration, Instant};

use flipcall::endpoint::Options;
use flipcall::{Error, ErrorKind};

use crate::ours::{Ours, answer, await_flips, call};
use crate::place::Place;
use crate::process::{Kind, Running, Side, command, pass};

/// How gVisor says that the connection was shut down, by whichever side.
const GO_SHUTDOWN: &str = "flipcall connection shutdown";

/// Calls that come before a shutdown "after" them, and at least before one "during" them.
const CALLS: u64 = 50;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Before,
    During,
    After,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Before, Self::During, Self::After];

    fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

/// Plays our side until an error ends it.
fn until_error(ours: Ours) -> Error {
    ours.run(u64::MAX).expect_err("nobody makes so many calls")
}

#[test]
fn go_shuts_down() {
    for (side, phase) in Side::BOTH.iter().flat_map(|&side| Phase::ALL.map(|phase| (side, phase))) {
        let Some(go) = command(Kind::Go, side.other()) else { return };
        let place = Place::allocate(48);
        let go = Running::on(&place, go, &["--shutdown", phase.name(), "--calls", &CALLS.to_string()]);
        let error = until_error(Ours::new(side, &place, Options::new()));
        assert_eq!(error.kind(), ErrorKind::PeerShutdown, "we are the {side:?}, {phase:?}: {error}");
        let ended = go.finish().succeeded();
        let line = ended.lines.last().expect("it says how it went");
        assert!(line.starts_with(&format!("shutdown={} ", phase.name())), "{ended:?}");
        assert!(line.ends_with(&format!("error=\"{GO_SHUTDOWN}\"")), "{ended:?}");
    }
}

/// Plays our side, shuts it down in that phase, and returns the error of the next thing that it does.
fn shut_down(side: Side, phase: Phase, ours: Ours) -> Error {
    let handle = ours.handle();
    match phase {
        Phase::Before => {
            handle.shut_down();
            until_error(ours)
        }
        Phase::During => {
            let interrupter = std::thread::spawn(move || {
                await_flips(&handle, CALLS);
                handle.shut_down();
            });
            let error = until_error(ours);
            interrupter.join().expect("the other thread only shuts down");
            error
        }
        Phase::After => {
            let mut endpoint = ours.run(CALLS).expect("calls before the shutdown");
            handle.shut_down();
            let next = match side {
                Side::Client => call(&mut endpoint, 0),
                Side::Server => answer(&mut endpoint, 48).map(drop),
            };
            next.expect_err("it is shut down")
        }
    }
}

#[test]
fn rust_shuts_down() {
    for (side, phase) in Side::BOTH.iter().flat_map(|&side| Phase::ALL.map(|phase| (side, phase))) {
        let Some(go) = command(Kind::Go, side.other()) else { return };
        let place = Place::allocate(48);
        let go = Running::on(&place, go, &["--calls", "1000000000"]);
        let error = shut_down(side, phase, Ours::new(side, &place, Options::new()));
        assert_eq!(error.kind(), ErrorKind::LocalShutdown, "we are the {side:?}, {phase:?}: {error}");
        match side {
            // A server ends well when its client shuts down; a client has calls left to make.
            Side::Client => go.finish().succeeded(),
            Side::Server => go.finish().failed_with(GO_SHUTDOWN),
        };
    }
}

/// Ten times the bound within which a death must show.
const DEATH_SHOWS: Duration = Duration::from_secs(1);

#[test]
fn a_killed_go_peer_is_gone() {
    for side in Side::BOTH {
        let Some(go) = command(Kind::Go, side.other()) else { return };
        let place = Place::allocate(48);
        let mut go = Running::on(&place, go, &["--calls", "1000000000"]);
        let ours = Ours::new(side, &place, Options::new().watch_process(go.pidfd()));
        let handle = ours.handle();
        let playing = std::thread::spawn(move || (until_error(ours), Instant::now()));
        await_flips(&handle, CALLS);
        let killed = Instant::now();
        go.kill();
        let (error, noticed) = playing.join().expect("an error, not a panic");
        assert_eq!(error.kind(), ErrorKind::PeerGone, "we are the {side:?}: {error}");
        assert!(noticed - killed < DEATH_SHOWS, "we are the {side:?}: noticed after {:?}", noticed - killed);
    }
}

#[test]
fn the_endpoint_command_notices_a_killed_go_peer() {
    for side in Side::BOTH {
        let (Some(go), Some(mut ours)) = (command(Kind::Go, side.other()), command(Kind::Rust, side)) else { return };
        let place = Place::allocate(48);
        let mut go = Running::on(&place, go, &["--calls", "1000000000"]);
        pass(&mut ours, "--watch-fd", go.pidfd());
        let mut ours = Running::on(&place, ours, &["--calls", "1000000000", "--payload", "48"]);
        assert!(ours.outlasts(Duration::from_millis(200)), "{:?}", ours.finish());
        go.kill();
        assert!(!ours.outlasts(DEATH_SHOWS), "we are the {side:?}");
        ours.finish().failed_with("peer-gone");
    }
}
