//! A side that is killed at any point: the other one's handles all return, and nothing is left behind.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use flipcall::Deadline;
use flipcall::stream::mux::{Mux, MuxConfig, Reason, Role};

use super::{SOON, full, resources, settle, skip, spawn};

/// Within which the handles of a survivor must return, and ten times that for machines under load.
const DEATH_IS_NOTICED: Duration = Duration::from_millis(100);

/// The scripted conversation of the side that dies: accepts a channel, echoes three messages, opens one of its own, resets one.
pub fn victim(socket: UnixStream) -> flipcall::Result<()> {
    let mux = Mux::new(socket, MuxConfig::new(Role::Acceptor))?;
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
    let mux = Mux::new(ours, MuxConfig::new(Role::Initiator)).unwrap();
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

pub fn every_handle_learns_of_a_kill() {
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

pub fn a_kill_at_any_system_call_is_survived() {
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
