//! Replays the committed corpora of the fuzzers: what they found once stays fixed.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::Path;

/// Runs every file of a target's corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("every target has a corpus") {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
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
fn rpc() {
    replay("rpc", targets::rpc);
}
