//! What can happen to a client, step by step, and what its calls bring: the same with feature `tracing` and without.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::rpc::{CallError, ClientConfig, ClientCounters, Router};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::child::{PATIENCE, serve, start};

/// What has just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Connected,
    Called,
    CalledOften,
    Late,
    CalledAfterLate,
    ServerKilled,
    ConnectedAgain,
    FellBack,
}

/// The second process.
pub fn serve_the_story() {
    let mut router = Router::new();
    router.unary(1, |_, number: u64| Ok(number + 1));
    router.unary(2, |_, millis: u32| {
        std::thread::sleep(Duration::from_millis(millis.into()));
        Ok(())
    });
    serve(router);
}

/// Lives through the story; `after` is called after each step.
pub fn tell(mut after: impl FnMut(Step)) {
    let (client, mut child) = start(ClientConfig::new());
    after(Step::Connected);

    let next = |number: u64| client.call::<_, u64>(1, &number, PATIENCE);
    assert_eq!(next(1).unwrap(), 2);
    after(Step::Called);

    (0..1000).for_each(|number| assert_eq!(next(number).unwrap(), number + 1));
    after(Step::CalledOften);

    assert!(client.call::<_, ()>(2, &200u32, Duration::from_millis(20)).unwrap_err().is_timeout());
    after(Step::Late);

    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(next(1).unwrap(), 2);
    let ClientCounters { calls, channels_opened, fallbacks, reconnects, .. } = client.counters();
    assert_eq!((calls, channels_opened, fallbacks, reconnects), (1003, 1, 0, 0), "the late answer came to nobody");
    after(Step::CalledAfterLate);

    child.kill().unwrap();
    child.wait(PATIENCE).unwrap();
    let error = next(1).unwrap_err();
    assert!(matches!(&error, CallError::Failed(error) if error.kind() == ErrorKind::PeerGone), "{error}");
    assert!(!client.is_alive());
    after(Step::ServerKilled);
    drop((client, child));

    without_room_for_a_window(after);
}

/// Threads that stay for the life of the process: one watches for ends, one reaps.
const STAY: [&str; 2] = ["flipcall-watch", "flipcall-reap"];

/// Waits until no other thread of ours is left, since each may yet close a descriptor, and those that stay have closed theirs.
fn await_quiet() {
    let begun = Instant::now();
    while transient_threads().is_none_or(|names| !names.is_empty()) {
        assert!(begun.elapsed() < PATIENCE, "threads that do not end: {:?}", transient_threads());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut looks, mut open) = (0, 0);
    while looks < 40 {
        let now = std::fs::read_dir("/proc/self/fd").expect("procfs").count();
        looks = if now == open { looks + 1 } else { 0 };
        open = now;
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The names of those threads; `None` if one ended while we looked.
fn transient_threads() -> Option<Vec<String>> {
    let mut names = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").expect("procfs") {
        names.push(std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?);
    }
    names.retain(|name| name.starts_with("flipcall-") && !STAY.contains(&name.trim_end()));
    Some(names)
}

/// A channel with a window brings two descriptors; where there is room for one, the channel is a socket alone.
fn without_room_for_a_window(mut after: impl FnMut(Step)) {
    await_quiet();
    let (client, mut child) = start(ClientConfig::new());
    after(Step::ConnectedAgain);
    let limit = getrlimit(Resource::Nofile);
    let next = u64::from(std::fs::File::open("/dev/null").unwrap().as_raw_fd().unsigned_abs());
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + 1), maximum: limit.maximum }).unwrap();
    let answer = client.call::<_, u64>(1, &1u64, PATIENCE);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(answer.unwrap(), 2);
    assert_eq!(client.counters().fallbacks, 1);
    after(Step::FellBack);
    drop(client);
    assert!(child.wait(PATIENCE).unwrap().success());
}
