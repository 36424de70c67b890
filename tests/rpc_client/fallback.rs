//! Calls over a socket for want of a window: for now, and counted.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::rpc::ClientConfig;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{PATIENCE, alone, kind, next, start};

/// Leaves this process room for `more` descriptors while it runs `during`.
fn with_room_for<T>(more: u64, during: impl FnOnce() -> T) -> T {
    let limit = getrlimit(Resource::Nofile);
    let next = u64::from(File::open("/dev/null").unwrap().as_raw_fd().unsigned_abs());
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + more), maximum: limit.maximum }).unwrap();
    let result = during();
    setrlimit(Resource::Nofile, limit).unwrap();
    result
}

#[test]
fn a_moment_without_descriptors_heals() {
    alone("fallback::without_descriptors_for_a_moment");
}

/// Issue 13, A4.
#[test]
#[ignore = "a_moment_without_descriptors_heals runs it"]
fn without_descriptors_for_a_moment() {
    let (client, _child) = start(ClientConfig::new());
    // One is enough for a channel without a window.
    assert_eq!(with_room_for(1, || next(&client, PATIENCE)).unwrap(), 2);
    assert_eq!((client.counters().fallbacks, client.counters().channels_opened), (1, 1));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(next(&client, PATIENCE).unwrap(), 2);
    let counters = client.counters();
    assert_eq!((counters.fallbacks, counters.channels_opened), (1, 2), "a channel with a window took its place");
    (0..100).for_each(|_| assert_eq!(next(&client, PATIENCE).unwrap(), 2));
    assert_eq!(client.counters().channels_opened, 2, "and stays");
    // Its place is that of the first: there is still one for every call.
    let (client, _child) = start(ClientConfig::new().channels(1));
    assert_eq!(with_room_for(1, || next(&client, PATIENCE)).unwrap(), 2);
    std::thread::sleep(Duration::from_millis(300));
    (0..3).for_each(|_| assert_eq!(next(&client, PATIENCE).unwrap(), 2));
    assert_eq!(client.counters().channels_opened, 2);

    // None is enough for nothing: the call waits, and says what lacks.
    let (client, _child) = start(ClientConfig::new());
    let (error, took) = with_room_for(0, || {
        let begun = Instant::now();
        (next(&client, Duration::from_millis(200)).unwrap_err(), begun.elapsed())
    });
    assert_eq!(kind(&error), Some(ErrorKind::NoResource), "{error:?}");
    assert!(format!("{:#}", error.failure().unwrap()).contains("descriptors"), "{error:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let waiting = client.clone();
    let waiting = with_room_for(0, || {
        let waiting = std::thread::spawn(move || next(&waiting, PATIENCE));
        std::thread::sleep(Duration::from_millis(300));
        waiting
    });
    assert_eq!(waiting.join().unwrap().unwrap(), 2, "it waited for them");
    assert_eq!(client.counters().fallbacks, 0, "and has a window");
}
