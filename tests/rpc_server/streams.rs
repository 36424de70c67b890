//! Issue 13, C21: a reader of a stream that is too slow gets an error that says so, and how long a server waits is configured.

use std::time::{Duration, Instant};

use flipcall::rpc::{CallError, Client, ClientConfig, Code};

use crate::attacker::alone;
use crate::serving::{ADD, PATIENCE, STREAM, Served};

#[test]
fn a_reader_that_was_stopped_for_too_long_is_told_so() {
    let _alone = alone();
    let served = Served::start(Duration::from_millis(200));
    for (name, config, said) in [
        ("window", ClientConfig::new(), "did not ask for the next chunk of the stream within 200.0ms"),
        ("socket", ClientConfig::new().window(0), "the server ended the stream before its end"),
        ("base", ClientConfig::new().base_protocol(), "the server ended the stream before its end"),
    ] {
        let client = Client::connect(&served.path, config, PATIENCE).unwrap();
        let mut stream = client.stream(STREAM, &(), PATIENCE).unwrap();
        for _ in 0..3 {
            assert_eq!(stream.next().expect("a chunk").unwrap().len(), 1000, "{name}");
        }
        std::thread::sleep(Duration::from_secs(2));
        // What was on its way over a socket is still there.
        let error = stream.by_ref().take(100_000).find_map(Result::err).expect("the stream has no end");
        assert!(error.to_string().contains(said), "{name}: {error}");
        if name == "window" {
            assert!(matches!(&error, CallError::Status(status) if status.code == Code::Cancelled), "{error}");
        }
        if name != "base" {
            assert_eq!(client.call::<_, u64>(ADD, &(40u64, 2u64), PATIENCE).unwrap(), 42, "{name}: another channel");
        }
    }
}

/// A reader with pauses within the patience is served as long as it likes.
#[test]
fn a_reader_within_the_patience_is_served() {
    let _alone = alone();
    let served = Served::start(Duration::from_secs(20));
    let client = Client::connect(&served.path, ClientConfig::new(), PATIENCE).unwrap();
    let begun = Instant::now();
    let mut stream = client.stream(STREAM, &(), PATIENCE).unwrap();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(stream.next().expect("a chunk").unwrap().len(), 1000);
        std::thread::sleep(Duration::from_millis(400));
    }
}
