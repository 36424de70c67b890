//! Feature `tracing`: what happens to connections and channels is told, and nothing is told by a call where nothing happens.
//!
//! One test in a process of its own: events of all its threads go to one subscriber.

use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::time::Duration;

use flipcall::rpc::{Client, ClientConfig, Router, Server, inherited_socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the events of this crate as lines.
struct Lines;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The events since the last look.
fn told() -> Vec<String> {
    std::mem::take(&mut *LINES.lock().unwrap())
}

fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.contains(what)).count()
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("flipcall")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        LINES.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The second process.
#[test]
#[ignore = "is started by another test"]
fn as_the_server() {
    let Ok(socket) = inherited_socket() else { return };
    let mut router = Router::new();
    router.unary(1, |_, number: u64| Ok(number + 1));
    router.unary(2, |_, millis: u32| {
        std::thread::sleep(Duration::from_millis(millis.into()));
        Ok(())
    });
    let _ = Server::new(router, Default::default()).serve_one(socket);
}

fn start() -> (Client, std::process::Child) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_the_server", "--ignored"]).stdout(std::process::Stdio::null());
    Client::spawn(command, ClientConfig::new()).unwrap()
}

#[test]
fn what_happens_is_told_and_a_call_is_not() {
    tracing::subscriber::set_global_default(Lines).unwrap();
    let (client, mut child) = start();
    let lines = told();
    assert_eq!((lines.len(), count(&lines, "INFO message=connected version=1")), (1, 1), "{lines:?}");

    assert_eq!(client.call::<_, u64>(1, &1u64, PATIENCE).unwrap(), 2);
    let lines = told();
    assert_eq!((lines.len(), count(&lines, "DEBUG message=channel opened window=262144")), (1, 1), "{lines:?}");

    for number in 0..1000u64 {
        assert_eq!(client.call::<_, u64>(1, &number, PATIENCE).unwrap(), number + 1);
    }
    assert_eq!(told(), [""; 0], "a call tells nothing");

    assert!(client.call::<_, ()>(2, &200u32, Duration::from_millis(20)).unwrap_err().is_timeout());
    let lines = told();
    assert_eq!((lines.len(), count(&lines, "WARN message=a call missed its deadline tag=2")), (1, 1), "{lines:?}");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(client.call::<_, u64>(1, &1u64, PATIENCE).unwrap(), 2);
    assert_eq!(told(), [""; 0], "the late answer came, and the channel is as before");

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(client.call::<_, u64>(1, &1u64, PATIENCE).is_err());
    let lines = told();
    assert!(count(&lines, "message=a channel ended") >= 1, "{lines:?}");
    drop(client);

    a_client_without_room_for_a_window();
}

/// A channel with a window brings two descriptors; where there is room for one, the channel is a socket alone.
fn a_client_without_room_for_a_window() {
    let (client, mut child) = start();
    drop(told());
    let limit = getrlimit(Resource::Nofile);
    let next = u64::from(std::os::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap()).unsigned_abs());
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + 1), maximum: limit.maximum }).unwrap();
    let answer = client.call::<_, u64>(1, &1u64, PATIENCE);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(answer.unwrap(), 2);
    let lines = told();
    assert_eq!(count(&lines, "WARN message=no window to be had"), 1, "{lines:?}");
    assert_eq!(count(&lines, "message=channel opened window=0"), 1, "{lines:?}");
    assert_eq!(client.counters().fallbacks, 1);
    drop(client);
    assert!(child.wait().unwrap().success());
}
