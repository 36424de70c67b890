//! A client whose server is late, full or gone: what is healthy stays so. The server is a second process.

mod close;
mod deadline;
mod fallback;
mod late;
mod nesting;
#[path = "../rpc/child.rs"]
mod server;

use std::process::Command;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::process::ChildProcess;
use flipcall::rpc::{CallError, Client, ClientConfig, Router};

use rustix::process::{Pid, Signal, kill_process};
use server::PATIENCE;

/// Methods of the server.
const NEXT: u16 = 1;
const SLEEP: u16 = 2;
const STREAM: u16 = 3;
const SWALLOW: u16 = 4;

/// The second process.
#[test]
#[ignore = "is started by another test"]
fn as_the_server() {
    let mut router = Router::new();
    router
        .unary(NEXT, |_, number: u64| Ok(number + 1))
        .unary(SLEEP, |_, millis: u32| {
            // Whatever its caller thinks by then.
            std::thread::sleep(Duration::from_millis(millis.into()));
            Ok(())
        })
        .streaming(STREAM, |_, _, mut chunks| {
            chunks.send(&1u64)?;
            std::thread::sleep(Duration::from_secs(3600));
            chunks.finish()
        })
        .unary(SWALLOW, |_, (bytes, millis): (Vec<u8>, u32)| {
            std::thread::sleep(Duration::from_millis(millis.into()));
            Ok(bytes.len() as u64)
        });
    server::serve(router);
}

/// A client and its server.
fn start(config: ClientConfig) -> (Client, ChildProcess) {
    server::start(config)
}

/// The configurations that differ in how a call travels on version 1.
fn ways() -> [(&'static str, ClientConfig); 2] {
    [("window", ClientConfig::new()), ("socket", ClientConfig::new().window(0))]
}

fn next(client: &Client, deadline: Duration) -> Result<u64, CallError> {
    client.call(NEXT, &1u64, deadline)
}

fn sleep(client: &Client, millis: u32, deadline: impl Into<flipcall::Deadline>) -> Result<(), CallError> {
    client.call(SLEEP, &millis, deadline)
}

fn kind(error: &CallError) -> Option<ErrorKind> {
    error.failure().map(flipcall::Error::kind)
}

/// Waits until a call is served; how long that took.
#[track_caller]
fn until_served(client: &Client) -> Duration {
    let begun = Instant::now();
    loop {
        match next(client, Duration::from_millis(500)) {
            Ok(2) => return begun.elapsed(),
            other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
        }
    }
}

fn signal(child: &ChildProcess, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

/// Stops the server, all of it.
fn stop(child: &ChildProcess) {
    signal(child, Signal::STOP);
    let runs = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let states = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        // The state is the first field behind the name, which is in brackets.
        states.filter(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" T")).count()
    };
    while runs() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Has it go on.
fn go_on(child: &ChildProcess) {
    signal(child, Signal::CONT);
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Runs an ignored test of this file alone in a process: it changes or counts what a process has.
fn alone(name: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}{err}", output.status);
}
