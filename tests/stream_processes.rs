//! Hostile and dying peers in processes of their own. `FLIPCALL_FULL=1` runs the long form.
//!
//! No test harness: the same program is started again as the other process.

use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use flipcall::stream::mux::{Ended, Mux, MuxConfig, Reason, Role};
use flipcall::stream::{FrameSocket, write_frame};
use flipcall::{Deadline, ErrorKind};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const SOON: Duration = Duration::from_secs(10);

/// Within which the handles of a survivor must return, and ten times that for machines under load.
const DEATH_IS_NOTICED: Duration = Duration::from_millis(100);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "child") {
        return child(&args[2]);
    }
    let tests: [(&str, fn()); 7] = [
        ("deadlines_hold_while_the_peer_toggles_flags", deadlines_hold_while_the_peer_toggles_flags),
        ("a_dripping_peer_is_cut_off", a_dripping_peer_is_cut_off),
        ("every_handle_learns_of_a_kill", every_handle_learns_of_a_kill),
        ("a_kill_at_any_system_call_is_survived", a_kill_at_any_system_call_is_survived),
        ("attachments_leak_nothing", attachments_leak_nothing),
        ("a_thousand_sockets_and_four_hostile_ones", a_thousand_sockets_and_four_hostile_ones),
        ("a_stalled_channel_holds_no_more_than_its_credit", a_stalled_channel_holds_no_more_than_its_credit),
    ];
    // `cargo test NAME` filters by name; options of the harness that is not here are passed over.
    let filter = args.get(1).filter(|arg| !arg.starts_with('-'));
    for (name, test) in tests {
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            let start = Instant::now();
            test();
            println!("{name} ok {:.2} s", start.elapsed().as_secs_f64());
        }
    }
}

fn full() -> bool {
    std::env::var_os("FLIPCALL_FULL").is_some()
}

fn skip(why: &str) {
    println!("skipped: {why}");
    assert!(std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none());
}

fn this() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// This program as the other process, our end of its standard input as the connection.
fn spawn(role: &str) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = this().args(["child", role]).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    (child, ours)
}

fn child(role: &str) {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    match role {
        "toggle" => toggle(&mut socket),
        "drip" => {
            for byte in [0u8, 7, 0, 0, 0, 200].into_iter().chain([1; 150]) {
                if socket.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        "victim" => drop(victim(socket)),
        "attach" => attach(&mut socket),
        "hold" => thread::sleep(Duration::from_secs(3600)),
        _ => panic!("no child called {role}"),
    }
}

// ----- flags and drips

/// The first message carries a duplicate of the peer's own end: its flags are ours to change from now on.
fn toggle(socket: &mut UnixStream) {
    let mut buffer = [0; 1];
    let received = flipcall::stream::receive_with_fd(&*socket, &mut buffer, flipcall::stream::MissingFd::Refuse, SOON);
    let shared = UnixStream::from(received.unwrap().unwrap().fd);
    let end = Instant::now() + Duration::from_millis(600);
    while Instant::now() < end {
        for nonblocking in [false, true] {
            shared.set_nonblocking(nonblocking).unwrap();
            shared.set_read_timeout(Some(Duration::from_secs(3600))).unwrap();
        }
    }
}

fn deadlines_hold_while_the_peer_toggles_flags() {
    let (mut child, ours) = spawn("toggle");
    flipcall::stream::send_with_fd(&ours, b"x", &ours, SOON).unwrap();
    let mut socket = FrameSocket::new(ours);
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(socket.receive(Duration::from_millis(20)).unwrap_err().kind(), ErrorKind::Timeout);
    }
    // And for writing: nobody reads, the socket fills up.
    let error = loop {
        match socket.send(1, &[0; 4096], Duration::from_millis(20)) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(start.elapsed() < SOON);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_dripping_peer_is_cut_off() {
    let (mut child, ours) = spawn("drip");
    let mut socket = FrameSocket::new(ours);
    socket.set_patience(Duration::from_millis(300));
    let error = socket.receive(SOON).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Violation, "{error}");
    assert!(!socket.is_usable());
    drop(socket);
    child.wait().unwrap();
    // A mux says why before it closes; the child does not say HELLO, so the shorter deadline for that cuts it off.
    let (mut child, ours) = spawn("hold");
    let config = MuxConfig { handshake: Duration::from_millis(300), ..MuxConfig::new(Role::Initiator) };
    let mux = Mux::new(ours, &config).unwrap();
    assert_eq!(mux.open("x", SOON).unwrap_err().kind(), ErrorKind::Violation);
    child.kill().unwrap();
    child.wait().unwrap();
}

// ----- kills

/// The scripted conversation of the side that dies: accepts a channel, echoes three messages, opens one of its own, resets one.
fn victim(socket: UnixStream) -> flipcall::Result<()> {
    let mux = Mux::new(socket, &MuxConfig::new(Role::Acceptor))?;
    // Offers of other names stay without an answer.
    let mut unanswered = Vec::new();
    let mut accept = |name: &str| loop {
        let offer = mux.accept(SOON)?;
        if offer.name() == name {
            return offer.accept();
        }
        unanswered.push(offer);
    };
    let (mut echo, _silent) = (accept("echo")?, accept("silent")?);
    for _ in 0..3 {
        let Some(message) = echo.receiver.receive(SOON)? else { break };
        echo.sender.send(&message, SOON)?;
    }
    let mut own = mux.open("own", SOON)?;
    own.sender.send(&[9; 100_000][..own.sender.max_message()], SOON)?;
    own.sender.end();
    let reset = mux.open("reset", SOON)?;
    reset.sender.reset(Reason::CANCELLED);
    while own.receiver.receive(SOON)?.is_some() {}
    mux.close(Reason::CLOSING, SOON)
}

/// The survivor's part: every kind of handle is blocked when the other side goes. Returns how long the slowest took after `ended`.
fn survive(ours: UnixStream, ended: impl FnOnce()) -> Duration {
    let mux = Mux::new(ours, &MuxConfig::new(Role::Initiator)).unwrap();
    let (done, results) = mpsc::channel::<(&str, Instant)>();
    let run = |name: &'static str, work: Box<dyn FnOnce(&Mux) + Send>| {
        let (mux, done) = (mux.clone(), done.clone());
        thread::spawn(move || {
            work(&mux);
            done.send((name, Instant::now())).unwrap();
        })
    };
    let until_error = |name, work: fn(&Mux) -> flipcall::Result<()>| {
        run(name, Box::new(move |mux| drop(work(mux).expect_err("no end without an error"))))
    };
    let threads = [
        until_error("echo", |mux| {
            let mut channel = mux.open("echo", SOON)?;
            let mut silent = mux.open("silent", SOON)?;
            for size in [1, 1000, 60_000] {
                channel.sender.send(&vec![3; size], SOON)?;
                channel.receiver.receive(SOON)?;
            }
            // Blocked by credit.
            loop {
                silent.sender.send(&[0; 60_000], Deadline::NEVER)?;
            }
        }),
        until_error("accept", |mux| {
            let mut kept = Vec::new();
            loop {
                let mut channel = mux.accept(Deadline::NEVER)?.accept()?;
                kept.push(thread::spawn(move || {
                    while channel.receiver.receive(Deadline::NEVER).is_ok_and(|more| more.is_some()) {}
                }));
            }
        }),
        until_error("open", |mux| mux.open("never answered", Deadline::NEVER).map(drop)),
    ];
    ended();
    let ended = Instant::now();
    let mut slowest = Duration::ZERO;
    for _ in &threads {
        let (name, at) = results.recv_timeout(SOON).expect("a handle hangs after the other side's end");
        slowest = slowest.max(at.saturating_duration_since(ended));
        assert!(slowest < 10 * DEATH_IS_NOTICED, "{name} took {slowest:?}");
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    slowest
}

fn every_handle_learns_of_a_kill() {
    let before = resources();
    for _ in 0..10 {
        let (mut child, ours) = spawn("victim");
        survive(ours, || {
            thread::sleep(Duration::from_millis(20));
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }
    settle(before);
}

fn a_kill_at_any_system_call_is_survived() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("no strace");
    }
    let before = resources();
    let calls = [
        "sendto",
        "sendmsg",
        "recvfrom",
        "recvmsg",
        "ppoll",
        "poll",
        "futex",
        "read",
        "write",
        "clone3",
        "eventfd2",
        "setsockopt",
        "shutdown",
        "close",
        "mmap",
        "munmap",
        "mprotect",
        "madvise",
    ];
    let (mut kills, mut slowest) = (0, Duration::ZERO);
    let most = if full() { 200 } else { 12 };
    for call in calls {
        for index in 1..=most {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut traced = Command::new("strace")
                .args([
                    "-f",
                    "-qqq",
                    "-o",
                    "/dev/null",
                    "-e",
                    &format!("trace={call}"),
                    "-e",
                    &format!("inject={call}:signal=KILL:when={index}"),
                ])
                .arg(std::env::current_exe().unwrap())
                .args(["child", "victim"])
                .stdin(OwnedFd::from(theirs))
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut killed = false;
            slowest = slowest.max(survive(ours, || {
                let status = traced.wait().unwrap();
                killed = !status.success();
            }));
            if !killed {
                break; // The conversation has no call of this index any more.
            }
            kills += 1;
        }
    }
    println!("killed at {kills} system calls; the slowest handle returned {slowest:?} after the death was reaped");
    assert!(kills >= 40, "{kills}");
    settle(before);
}

/// Descriptors and threads of this process.
fn resources() -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    (count("fd"), count("task"))
}

/// Waits until nothing is left of a test. Threads of the test before it may still have been there when `before` was taken.
fn settle(before: (usize, usize)) {
    let give_up = Instant::now() + SOON;
    while resources().0 > before.0 || resources().1 > before.1 {
        assert!(Instant::now() < give_up, "descriptors and threads: {:?} instead of {before:?}", resources());
        thread::sleep(Duration::from_millis(5));
    }
}

// ----- attachments

/// Sends messages with descriptors for ever, every tenth connection's worth with a mistake; the peer says which by a byte.
fn attach(socket: &mut UnixStream) {
    let mut order = [0; 1];
    while socket.read_exact(&mut order).is_ok() {
        let (announced, fds) = match order[0] {
            0 => (3, 3),
            1 => (3, 2),
            2 => (0, 4),
            _ => (16, 253),
        };
        let mut bytes = Vec::new();
        if announced > 0 {
            write_frame(&mut bytes, 0xFFF2, &[announced]).unwrap();
        }
        write_frame(&mut bytes, 7, b"message").unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = vec![null.as_fd(); fds];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        if sendmsg(&*socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).is_err() {
            return;
        }
    }
}

fn attachments_leak_nothing() {
    let messages = if full() { 100_000 } else { 10_000 };
    let before = resources();
    let mut early = 0;
    let mut sent = 0;
    for connection in 0usize.. {
        if sent >= messages {
            break;
        }
        let (mut child, ours) = spawn("attach");
        let mut orders = ours.try_clone().unwrap();
        let mut socket = FrameSocket::new(ours);
        socket.set_attachments(true).unwrap();
        for number in 0..1000usize {
            sent += 1;
            let mistake = number == 999;
            orders.write_all(&[if mistake { 1 + (connection % 3) as u8 } else { 0 }]).unwrap();
            match socket.receive(SOON) {
                Ok(message) => {
                    let mut message = message.unwrap();
                    assert!(!mistake);
                    assert_eq!(message.attachments.len(), 3);
                    // Some are taken, some are left to the closer.
                    if number % 2 == 0 {
                        drop(message.attachments.take_first());
                    }
                }
                Err(error) => assert!(mistake && error.kind() == ErrorKind::Violation, "{error}"),
            }
        }
        drop((socket, orders));
        child.wait().unwrap();
        if connection == 1 {
            early = rss();
        }
    }
    settle(before);
    let grown = rss().saturating_sub(early);
    println!("{sent} messages with attachments: descriptors and threads as before, RSS grew by {grown} KiB");
    assert!(grown < 4096, "RSS grew by {grown} KiB");
}

/// Resident memory of this process in KiB.
fn rss() -> usize {
    rss_of("self")
}

fn rss_of(pid: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

// ----- many sockets on one thread

fn a_thousand_sockets_and_four_hostile_ones() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let path = std::env::temp_dir().join(format!("flipcall-loop-{}.sock", std::process::id()));
    let program: PathBuf =
        std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/event_loop");
    if !program.exists() {
        return skip("the example event_loop is not built");
    }
    let mut server = Command::new(program).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let connect = || UnixStream::connect(&path).unwrap();
    let pid = server.id().to_string();
    let fds = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let idle = fds();
    // The hostile ones.
    let mut dripping = connect();
    let mut lying = connect();
    lying.write_all(&[0, 1, 0xFF, 0xFF, 0xFF, 0xFF]).unwrap();
    connect().write_all(&[0, 1, 0]).unwrap();
    let flooding = connect();
    let null = std::fs::File::open("/dev/null").unwrap();
    let many = vec![null.as_fd(); 253];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
    let refused = sendmsg(&flooding, &[IoSlice::new(&[0, 1, 0, 0, 0, 0])], &mut control, SendFlags::NOSIGNAL);
    println!("253 descriptors to a socket that takes none: {refused:?}");
    // The others.
    let mut sockets: Vec<FrameSocket> = (0..996).map(|_| FrameSocket::new(connect())).collect();
    for round in 0..20u16 {
        let _ = dripping.write_all(&[0]);
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.send(round, &vec![number as u8; number], SOON).unwrap();
        }
        for (number, socket) in sockets.iter_mut().enumerate() {
            let message = socket.receive(SOON).unwrap().unwrap();
            assert_eq!((message.tag, message.payload.len()), (round, number));
        }
    }
    assert!(fds() >= idle + 996);
    drop(sockets);
    drop((lying, flooding));
    let give_up = Instant::now() + SOON;
    // The dripping one is cut off by its deadline, not by us.
    while fds() != idle {
        assert!(Instant::now() < give_up, "{} descriptors instead of {idle}", fds());
        thread::sleep(Duration::from_millis(20));
    }
    println!("996 honest sockets lost nothing; the server's RSS is {} KiB", rss_of(&pid));
    drop(dripping);
    server.kill().unwrap();
    server.wait().unwrap();
    for file in [path.clone(), path.with_extension("sock.lock")] {
        let _ = std::fs::remove_file(file);
    }
}

// ----- credit

fn a_stalled_channel_holds_no_more_than_its_credit() {
    let before = resources();
    {
        let (mut child, ours) = spawn("victim");
        let mux = Mux::new(ours, &MuxConfig::new(Role::Initiator)).unwrap();
        let _echo = mux.open("echo", SOON).unwrap();
        let mut silent = mux.open("silent", SOON).unwrap();
        let mut sent = 0;
        while silent.sender.send(&[0; 10_000], Duration::from_millis(50)).is_ok() {
            sent += 10_000 + 16;
        }
        assert!(sent <= 512 * 1024 && sent > 500 * 1024, "{sent} bytes went into a channel that nobody reads");
        child.kill().unwrap();
        child.wait().unwrap();
        let error = silent.sender.send(b"x", SOON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerGone);
    }
    {
        // An orderly end is told apart from a death.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, theirs) =
            (Mux::new(ours, &MuxConfig::new(Role::Initiator)), Mux::new(theirs, &MuxConfig::new(Role::Acceptor)));
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        theirs.close(Reason(77), SOON).unwrap();
        let error = ours.accept(SOON).unwrap_err();
        let ended = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Ended>());
        assert_eq!(ended, Some(&Ended::Goodbye(Reason(77), String::new())));
    }
    settle(before);
}
