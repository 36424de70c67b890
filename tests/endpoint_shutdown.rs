//! Who shut down, when, during what: every cell of the matrix, between two processes.
//!
//! One side of each pair is in this process, the other in a second one, and both run the same actor. Each cell names which end
//! shuts down; that end must see `LocalShutdown`, the other one `PeerShutdown`, and nobody may hang.

mod attacker;

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use attacker::{AGES, PAGE, Peer, Role, Stage, alone, arena, next_window};
use flipcall::Error;
use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options, ShutdownHandle, WaitPolicy};
use flipcall::window::{Seals, Window};

const ROLES: &[Role] = &[("acts", acts)];
/// What an end needs to see a shutdown on a crowded machine; far less than the deadline of its operation.
const PROMPT: Duration = Duration::from_secs(3);
/// How long an operation is given to block before it is shut down.
const BLOCKED: Duration = Duration::from_millis(25);

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[ROLES]);
}

/// What an end is before or after an operation.
enum Stand {
    Client(Connector),
    Server(Acceptor),
    Connected(Endpoint),
    /// It ended with this kind of error, as every later operation must.
    Ended(String),
}

/// One end of a window, whose operations run on a thread of their own.
struct Actor {
    stand: Option<Stand>,
    handle: ShutdownHandle,
    running: Option<JoinHandle<Stand>>,
}

impl Actor {
    fn new(window: Window, is_client: bool, policy: WaitPolicy) -> Self {
        let options = Options::new().policy(policy);
        let (stand, handle) = if is_client {
            let client = Connector::new(window, options).unwrap();
            let handle = client.shutdown_handle();
            (Stand::Client(client), handle)
        } else {
            let server = Acceptor::new(window, options).unwrap();
            let handle = server.shutdown_handle();
            (Stand::Server(server), handle)
        };
        Self { stand: Some(stand), handle, running: None }
    }

    /// Begins the next operation: connecting, the first receive, or a call.
    fn start(&mut self) {
        let stand = self.stand.take().expect("nothing runs");
        self.running = Some(std::thread::spawn(move || {
            let ended = |error: Error| Stand::Ended(error.kind().to_string());
            match stand {
                Stand::Client(client) => client.connect(AGES).map_or_else(|e| ended(e.into()), Stand::Connected),
                Stand::Server(server) => {
                    server.recv_first(AGES).map_or_else(|e| ended(e.into()), |(endpoint, _)| Stand::Connected(endpoint))
                }
                Stand::Connected(mut endpoint) => match endpoint.send_recv(1, AGES) {
                    Ok(_) => Stand::Connected(endpoint),
                    Err(error) => {
                        let kind = error.kind().to_string();
                        // Poisoned: once more, that kind.
                        assert_eq!(endpoint.send_recv(1, AGES).unwrap_err().kind().to_string(), kind);
                        Stand::Ended(kind)
                    }
                },
                Stand::Ended(kind) => Stand::Ended(kind),
            }
        }));
    }

    /// Waits for the operation to end: `ok` or the kind of its error.
    fn finish(&mut self) -> String {
        let stand = self.running.take().expect("something runs").join().expect("no panic");
        let outcome = if let Stand::Ended(kind) = &stand { kind.clone() } else { "ok".into() };
        self.stand = Some(stand);
        outcome
    }
}

/// Messages `open WINDOW SIDE POLICY`, `start`, `finish`, `shut down`: the actor of the second process.
fn acts(stage: Stage) {
    let mut actor: Option<Actor> = None;
    while let Some((order, _)) = stage.control.listen() {
        let answer = match order.as_str() {
            "start" => {
                actor.as_mut().expect("open").start();
                "started".into()
            }
            "finish" => actor.as_mut().expect("open").finish(),
            "shut down" => {
                actor.as_ref().expect("open").handle.shut_down();
                "shut".into()
            }
            open => {
                let fields: Vec<&str> = open.split(' ').collect();
                let offset = fields[1].parse::<u64>().expect("a number") * u64::from(PAGE);
                let fd = stage.fds[0].try_clone().expect("dup");
                let window = Window::receive(fd, offset, PAGE, Seals::Strict).expect("an honest window");
                let policy = POLICIES[fields[3].parse::<usize>().expect("a number")];
                actor = Some(Actor::new(window, fields[2] == "client", policy));
                "opened".into()
            }
        };
        stage.control.say(&answer);
    }
}

const POLICIES: [WaitPolicy; 3] = [WaitPolicy::Adaptive, WaitPolicy::Park, WaitPolicy::Spin];

/// The end in this process or the one in the other.
enum End<'a> {
    Here(Actor),
    There(&'a Peer),
}

impl End<'_> {
    fn start(&mut self) {
        match self {
            Self::Here(actor) => actor.start(),
            Self::There(peer) => assert_eq!(peer.control.ask("start"), "started"),
        }
    }

    fn finish(&mut self) -> String {
        match self {
            Self::Here(actor) => actor.finish(),
            Self::There(peer) => peer.control.ask("finish"),
        }
    }

    fn shut_down(&mut self) {
        match self {
            Self::Here(actor) => actor.handle.shut_down(),
            Self::There(peer) => assert_eq!(peer.control.ask("shut down"), "shut"),
        }
    }
}

/// What the end under observation is at when the shutdown comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum During {
    Connect,
    FirstReceive,
    /// The first receive, after the handshake.
    FirstCall,
    SendReceive,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Before,
    During,
    After,
}

/// Brings both ends to where the operation under observation can begin. `seen` is the observed end.
fn approach(during: During, seen_is_client: bool, seen: &mut End<'_>, other: &mut End<'_>) {
    match (during, seen_is_client) {
        (During::Connect | During::FirstReceive, _) => {}
        (During::FirstCall, _) => other.start(),
        (During::SendReceive, true) => connect(seen, other),
        (During::SendReceive, false) => connect(other, seen),
    }
}

/// A connected pair. The client's first call is out and taken if the server is to be observed holding control.
fn connect(client: &mut End<'_>, server: &mut End<'_>) {
    server.start();
    client.start();
    assert_eq!(client.finish(), "ok");
}

/// One cell: returns what the observed end and the other one see.
fn cell(
    phase: Phase,
    during: During,
    seen_is_client: bool,
    it_shuts: bool,
    seen: &mut End<'_>,
    other: &mut End<'_>,
) -> [String; 2] {
    approach(during, seen_is_client, seen, other);
    let mut other_runs =
        matches!(during, During::FirstCall | During::SendReceive) && (seen_is_client || during == During::FirstCall);
    if during == During::FirstCall && phase != Phase::Before {
        seen.start();
        assert_eq!(other.finish(), "ok");
        other_runs = false;
    }
    if during == During::SendReceive && !seen_is_client {
        // The first call: the server takes it and has control.
        other.start();
        other_runs = true;
        assert_eq!(seen.finish(), "ok");
    }
    let started = during == During::FirstCall && phase != Phase::Before;
    match phase {
        Phase::Before => {}
        Phase::During => {
            if !started {
                seen.start();
            }
            if during == During::SendReceive {
                // The call is taken, and never answered.
                assert_eq!(other.finish(), "ok");
                other_runs = false;
            }
            std::thread::sleep(BLOCKED);
        }
        Phase::After => {
            other_runs = complete(during, started, other_runs, seen, other);
        }
    }
    if it_shuts {
        seen.shut_down()
    } else {
        other.shut_down()
    }
    let start = Instant::now();
    if phase != Phase::During {
        seen.start();
    }
    if !other_runs {
        other.start();
    }
    let outcomes = [seen.finish(), other.finish()];
    assert!(start.elapsed() < PROMPT, "{phase:?} {during:?}: {:?}", start.elapsed());
    outcomes
}

/// Lets the observed operation succeed. Whether the other end has an operation running after it.
fn complete(during: During, started: bool, other_runs: bool, seen: &mut End<'_>, other: &mut End<'_>) -> bool {
    if !started {
        seen.start();
    }
    match during {
        // The server goes on to wait for the first call.
        During::Connect => other.start(),
        // The client connects and calls.
        During::FirstReceive => {
            other.start();
            assert_eq!(other.finish(), "ok");
            other.start();
        }
        During::FirstCall => other.start(),
        // The other end takes the call and answers it, by which it waits again.
        During::SendReceive => {
            assert!(other_runs);
            assert_eq!(other.finish(), "ok");
            other.start();
        }
    }
    assert_eq!(seen.finish(), "ok");
    true
}

#[test]
fn every_cell_ends_promptly_with_the_right_kind_on_both_sides() {
    let _alone = alone();
    let arena = arena(512);
    let peer = Peer::start("acts", "", &[arena.fd()]);
    let rows = [
        (During::Connect, true),
        (During::FirstReceive, false),
        (During::FirstCall, false),
        (During::SendReceive, true),
        (During::SendReceive, false),
    ];
    let mut index = 0;
    for (during, seen_is_client) in rows {
        for phase in [Phase::Before, Phase::During, Phase::After] {
            for (it_shuts, seen_is_here) in [(true, true), (true, false), (false, true), (false, false)] {
                for (number, &policy) in POLICIES.iter().enumerate() {
                    let here_is_client = seen_is_client == seen_is_here;
                    let side = if here_is_client { "server" } else { "client" };
                    assert_eq!(peer.control.ask(&format!("open {index} {side} {number}")), "opened");
                    let mut here = End::Here(Actor::new(next_window(&arena), here_is_client, policy));
                    let mut there = End::There(&peer);
                    let (seen, other) = if seen_is_here { (&mut here, &mut there) } else { (&mut there, &mut here) };
                    let [seen, other] = cell(phase, during, seen_is_client, it_shuts, seen, other);
                    let expected = if it_shuts {
                        ["local-shutdown", "peer-shutdown"]
                    } else {
                        ["peer-shutdown", "local-shutdown"]
                    };
                    let name = format!(
                        "{phase:?} {during:?}, client seen: {seen_is_client}, here: {seen_is_here}, {policy:?}"
                    );
                    assert_eq!([&*seen, &*other], expected, "{name}");
                    index += 1;
                }
            }
        }
    }
    assert_eq!(index, 180, "five operations, three phases, four shutdowns, three policies");
}
