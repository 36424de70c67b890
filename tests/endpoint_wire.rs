//! The bytes in the window, step by step: what a peer written in another language has to expect and to do.

mod page;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use flipcall::endpoint::{Acceptor, Connector, Endpoint, Options, WaitPolicy};
use flipcall::process::{InheritedFds, pass_descriptor};
use flipcall::window::{Seals, Window};
use flipcall::{Deadline, Error, ErrorKind};
use page::{AT_ONCE, BASE, OFFER, Page, failed, waiting};

/// Bytes of the windows here.
const WINDOW: u32 = 4096;
/// How long a test waits for something that is bound to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tells a second process of this test what to do: `fd,base,delay in ms`.
const PEER: &str = "FLIPCALL_WIRE_PEER";

fn client(page: &Page, options: Options) -> Connector {
    Connector::new(page.window(), options).unwrap()
}

fn server(page: &Page, options: Options) -> Acceptor {
    Acceptor::new(page.window(), options).unwrap()
}

#[test]
fn a_fresh_window_is_zero() {
    let page = Page::new(WINDOW);
    let (_client, _server) = (client(&page, Options::new()), server(&page, Options::new()));
    assert_eq!(page.words(), [0; 4]);
    assert!(page.everything().iter().all(|&byte| byte == 0));
}

/// Takes both ends of a window through the handshake and the first two calls, looking at the window after each step.
fn step_by_step(options: fn() -> Options, offer: &[u8], answer: &[u8]) {
    let page = Page::new(WINDOW);
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();

    let ours = waiting(client(&page, options()).connect(AT_ONCE));
    assert_eq!(page.words(), [1, length(offer), 0, 0], "the client offered");
    assert_eq!(page.datagram(length(offer) + 1), [offer, b"\0"].concat());

    let theirs = waiting(server(&page, options()).recv_first(AT_ONCE));
    assert_eq!(page.words(), [0, length(answer), 0, 0], "the server accepted");
    assert_eq!(page.datagram(length(answer)), answer);

    let mut ours = ours.connect(AT_ONCE).unwrap();
    assert_eq!(page.words(), [0, length(answer), 0, 0], "the client holds control and has written nothing");

    ours.write_at(0, b"call").unwrap();
    let ours = waiting(ours.send_recv(4, AT_ONCE));
    assert_eq!(page.words(), [1, 4, 0, 0], "the client called");
    assert_eq!(page.datagram(length(offer).max(5)), [b"call".as_slice(), &vec![0; offer.len().max(5) - 4]].concat());

    let (mut theirs, 4) = theirs.recv_first(AT_ONCE).unwrap() else { panic!("another length") };
    theirs.write_at(0, b"answer").unwrap();
    let theirs = waiting(theirs.send_recv(6, AT_ONCE));
    assert_eq!((page.words(), page.datagram(7)), ([0, 6, 0, 0], b"answer\0".to_vec()), "the server answered");

    let (mut ours, 6) = ours.resume(AT_ONCE).unwrap() else { panic!("another length") };
    ours.write_at(0, &[7; WINDOW as usize - 16]).unwrap();
    drop(waiting(ours.send_recv(WINDOW - 16, Duration::ZERO)));
    assert_eq!(page.words(), [2, WINDOW - 16, 0, 0], "the client shut down, the datagram is as it was");
    assert_eq!(page.everything(), [7; WINDOW as usize - 16]);
    assert_eq!(failed(theirs.resume(AT_ONCE)).kind(), ErrorKind::PeerShutdown);
    assert_eq!(page.words(), [2, WINDOW - 16, 0, 0]);
}

#[test]
fn every_step_of_a_connection_with_extensions() {
    step_by_step(Options::new, OFFER, OFFER);
}

#[test]
fn every_step_of_a_base_connection() {
    step_by_step(|| Options::new().base_protocol(), BASE, BASE);
}

#[test]
fn a_server_without_extensions_answers_an_offer_with_the_base_object() {
    let page = Page::new(WINDOW);
    let ours = waiting(client(&page, Options::new()).connect(AT_ONCE));
    let _theirs = waiting(server(&page, Options::new().base_protocol()).recv_first(AT_ONCE));
    assert_eq!((page.words(), page.datagram(3)), ([0, 3, 0, 0], BASE.to_vec()));
    assert!(!ours.connect(AT_ONCE).unwrap().elides_wakes());
}

#[test]
fn a_shutdown_is_one_word_and_final() {
    for shut_down_first in [true, false] {
        let page = Page::new(WINDOW);
        let ours = client(&page, Options::new());
        let handle = ours.shutdown_handle();
        let ours = if shut_down_first { ours } else { waiting(ours.connect(AT_ONCE)) };
        let length = page.words()[1];
        handle.shut_down();
        handle.shut_down();
        assert_eq!(page.words(), [2, length, 0, 0]);
        // It was said once: what somebody writes over it later stays.
        page.set_word(0, 77);
        handle.shut_down();
        assert_eq!(page.words()[0], 77);
        page.set_word(0, 2);
        assert_eq!(failed(ours.connect(AT_ONCE)).kind(), ErrorKind::LocalShutdown);
        assert_eq!(page.words(), [2, length, 0, 0]);
    }
}

#[test]
fn a_violation_shuts_the_window_down() {
    for (word, value) in [(0, 3), (0, u32::MAX), (1, WINDOW - 15), (1, u32::MAX)] {
        let page = Page::new(WINDOW);
        page.set_word(0, 1);
        page.set_word(word, value);
        assert_eq!(failed(server(&page, Options::new()).recv_first(AT_ONCE)).kind(), ErrorKind::Violation);
        assert_eq!(page.words()[0], 2, "word {word} was {value:#x}");
    }
}

#[test]
fn a_flip_finds_out_that_somebody_else_flipped() {
    for forged in [1, 3, 0x8000_0000] {
        let page = Page::new(WINDOW);
        let mut ours = connect_to_forged_server(&page, BASE);
        page.set_word(0, forged);
        assert_eq!(failed(ours.send_recv(0, AT_ONCE)).kind(), ErrorKind::Violation);
        page.set_word(0, 0);
        assert_eq!(failed(ours.send_recv(0, AT_ONCE)).kind(), ErrorKind::Violation, "it stays poisoned");
        assert_eq!(page.words()[0], 0, "and writes nothing any more");
    }
}

#[test]
fn datagrams_and_their_bytes_are_counted() {
    let page = Page::new(WINDOW);
    let mut ours = connect_to_forged_server(&page, BASE);
    let (mut sent, mut received) = (OFFER.len() as u64, BASE.len() as u64);
    for (call, answer) in [(0, 5u32), (1, 0), (48, 48), (WINDOW - 16, 1)] {
        let pending = waiting(ours.send_recv(call, AT_ONCE));
        (sent, received) = (sent + u64::from(call), received + u64::from(answer));
        page.flip(&vec![3; answer as usize], 0);
        ours = pending.resume(AT_ONCE).unwrap().0;
    }
    let counters = ours.counters();
    assert_eq!((counters.flips, counters.receives, counters.calls()), (5, 5, 4));
    assert_eq!((counters.bytes_sent, counters.bytes_received), (sent, received));
    assert_eq!(ours.shutdown_handle().counters(), counters);
}

/// Of several things that are true at once a wait reports our own shutdown first, then control, the peer's shutdown, a violation, and the
/// peer's death last.
#[test]
fn of_several_ends_the_one_that_counts_most_is_told() {
    for (state, shut_down, dead, expected) in [
        (0, true, true, Some(ErrorKind::LocalShutdown)),
        (1, true, true, Some(ErrorKind::LocalShutdown)),
        (2, true, true, Some(ErrorKind::LocalShutdown)),
        (7, true, true, Some(ErrorKind::LocalShutdown)),
        (0, false, true, None),
        (2, false, true, Some(ErrorKind::PeerShutdown)),
        (7, false, true, Some(ErrorKind::Violation)),
        (1, false, true, Some(ErrorKind::PeerGone)),
        (1, false, false, Some(ErrorKind::Timeout)),
    ] {
        for policy in [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Park] {
            let page = Page::new(WINDOW);
            let (watched, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let options = Options::new().policy(policy).watch_socket(watched.into());
            let connecting = waiting(client(&page, options).connect(AT_ONCE));
            page.flip(BASE, 0);
            let pending = waiting(connecting.connect(AT_ONCE).unwrap().send_recv(0, AT_ONCE));
            if shut_down {
                pending.shutdown_handle().shut_down();
            }
            page.set_word(0, 1);
            let _alive = (!dead).then_some(theirs);
            if dead {
                deaths_are_known();
            }
            page.set_word(0, state);
            let outcome = pending.resume(AT_ONCE).map(drop).map_err(|interrupted| interrupted.kind());
            assert_eq!(outcome.err(), expected, "state {state}, shut down: {shut_down}, dead: {dead}, {policy:?}");
        }
    }
}

/// Returns once the thread that watches has told of every death that came before: it takes them in turn.
fn deaths_are_known() {
    let page = Page::new(WINDOW);
    let (watched, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let last = client(&page, Options::new().watch_socket(watched.into()));
    drop(theirs);
    assert_eq!(failed(last.connect(PATIENCE)).kind(), ErrorKind::PeerGone);
}

/// A client whose server is this test.
fn connect_to_forged_server(page: &Page, answer: &[u8]) -> Endpoint {
    let ours = waiting(client(page, Options::new()).connect(AT_ONCE));
    page.flip(answer, 0);
    ours.connect(AT_ONCE).unwrap()
}

/// A second process that answers every datagram with itself, after a while.
struct Peer(Child);

impl Peer {
    fn serve(page: &Page, base: bool, delay: Duration) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "the_peer_process", "--nocapture"]).stdout(std::process::Stdio::null());
        let fd = pass_descriptor(&mut command, page.allocator.fd()).unwrap();
        command.env(PEER, format!("{fd},{},{}", u8::from(base), delay.as_millis()));
        Self(command.spawn().unwrap())
    }

    /// It ends by itself once the window is shut down.
    fn ends_well(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Already reaped unless the test failed.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// What [`Peer`] runs; nothing when it is run as a test.
#[test]
fn the_peer_process() {
    let Ok(value) = std::env::var(PEER) else { return };
    let fields: Vec<u32> = value.split(',').map(|field| field.parse().unwrap()).collect();
    #[allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]
    // SAFETY: what is inheritable in this process was left to it by its parent, and nothing owns it.
    let inherited = unsafe { InheritedFds::claim() };
    let window = Window::receive(inherited.take(fields[0] as i32).unwrap(), 0, WINDOW, Seals::Strict).unwrap();
    let options = Options::new().policy(WaitPolicy::Park);
    let options = if fields[1] == 1 { options.base_protocol() } else { options };
    let delay = Duration::from_millis(u64::from(fields[2]));
    let serve = || -> Result<(), Error> {
        let (mut endpoint, mut length) = Acceptor::new(window, options)?.recv_first(PATIENCE)?;
        loop {
            std::thread::sleep(delay);
            length = endpoint.send_recv(length, PATIENCE)?;
        }
    };
    assert_eq!(serve().unwrap_err().kind(), ErrorKind::PeerShutdown);
}

/// Waits until the park words are as wanted while the state is `state`.
#[track_caller]
fn sleeps(page: &Page, state: u32, parked: [u32; 2]) {
    let start = Instant::now();
    loop {
        let words = page.words();
        if words[0] == state && words[2..] == parked {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{words:?} instead of state {state} and {parked:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn each_side_says_in_its_own_word_that_it_sleeps() {
    let page = Page::new(WINDOW);
    let peer = Peer::serve(&page, false, Duration::from_millis(1500));
    let ours = client(&page, Options::new().policy(WaitPolicy::Park));
    let mut ours = ours.connect(PATIENCE).unwrap();
    // The server sleeps, and has nothing to say in the client's word.
    sleeps(&page, 0, [0, 1]);
    ours.write_at(0, b"ping").unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| ours.send_recv(4, PATIENCE).unwrap());
        sleeps(&page, 1, [1, 0]);
        assert_eq!(call.join().unwrap(), 4);
    });
    sleeps(&page, 0, [0, 1]);
    drop(ours);
    peer.ends_well();
    assert_eq!(page.words(), [2, 4, 0, 0], "nobody sleeps any more");
}

#[test]
fn the_base_protocol_leaves_the_park_words_alone() {
    for (we_are_base, they_are_base) in [(true, true), (true, false), (false, true)] {
        let page = Page::new(WINDOW);
        let garbage = [0xDEAD_BEEF, 0x1234_5678];
        page.set_word(2, garbage[0]);
        page.set_word(3, garbage[1]);
        let peer = Peer::serve(&page, they_are_base, Duration::ZERO);
        let options = Options::new().policy(WaitPolicy::Park);
        let ours = client(&page, if we_are_base { options.base_protocol() } else { options });
        let mut ours = ours.connect(PATIENCE).unwrap();
        for _ in 0..50 {
            assert_eq!(ours.send_recv(9, Deadline::after(PATIENCE)).unwrap(), 9);
            assert_eq!(page.words()[2..], garbage);
        }
        let counters = ours.counters();
        assert_eq!((counters.wakes_sent, counters.wakes_elided), (51, 0), "every flip woke the peer");
        drop(ours);
        peer.ends_well();
        assert_eq!(page.words(), [2, 9, garbage[0], garbage[1]]);
    }
}
