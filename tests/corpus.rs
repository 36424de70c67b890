//! Replays the committed corpora of the fuzzers: what they found once stays fixed.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Panics on any thread: those of a server's channels reach nobody.
static PANICS: AtomicU32 = AtomicU32::new(0);

fn count_panics() {
    static COUNTING: Once = Once::new();
    COUNTING.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            report(panic);
        }));
    });
}

/// Runs every file of a target's corpus.
fn replay(target: &str, run: fn(&[u8])) {
    count_panics();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("every target has a corpus") {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "a thread panicked");
        count += 1;
    }
    assert!(count > 0, "{target} has an empty corpus");
    run(b"");
}

#[test]
fn header() {
    replay("header", targets::header);
}

#[test]
fn handshake() {
    replay("handshake", targets::handshake);
}

#[test]
fn state() {
    replay("state", targets::state);
}

#[test]
fn cursors() {
    replay("cursors", targets::cursors);
}

#[test]
fn message() {
    replay("message", targets::message);
}

#[test]
fn rpc() {
    replay("rpc", targets::rpc);
}
