//! Closing a client is local and immediate.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use flipcall::rpc::{CallError, Client, ClientConfig, Router, Server};
use flipcall::{Blame, Deadline, ErrorKind};

use super::{NEXT, PATIENCE, STREAM, SWALLOW, kind, next, sleep, start, stop, ways};

/// Ten times what it may take.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Runs `call` in a thread, closes the client while it waits, and looks at what it brings.
#[track_caller]
fn is_ended<T: Send + std::fmt::Debug + 'static>(
    what: &str,
    client: &Client,
    call: impl FnOnce(&Client) -> Result<T, CallError> + Send + 'static,
) {
    let theirs = client.clone();
    let caller = std::thread::spawn(move || (call(&theirs), Instant::now()));
    std::thread::sleep(Duration::from_millis(150));
    assert!(!caller.is_finished(), "{what}: it does not wait");
    let begun = Instant::now();
    client.close();
    assert!(begun.elapsed() < AT_ONCE, "{what}: close took {:?}", begun.elapsed());
    let (ended, at) = caller.join().unwrap();
    let error = ended.unwrap_err();
    assert!(at - begun < AT_ONCE, "{what}: {:?}", at - begun);
    assert_eq!(kind(&error), Some(ErrorKind::LocalShutdown), "{what}: {error:?}");
    assert_eq!(kind(&error).map(ErrorKind::blame), Some(Blame::Us), "{what}");
    assert!(!client.is_alive(), "{what}");
    let later = next(client, PATIENCE).unwrap_err();
    assert_eq!(kind(&later), Some(ErrorKind::LocalShutdown), "{what}: {later:?}");
}

/// Issue 13, A3.
#[test]
fn close_ends_calls_that_wait_for_an_answer() {
    let base = ("base", ClientConfig::new().base_protocol());
    for (name, config) in ways().into_iter().chain([base]) {
        let (client, child) = start(config.clone());
        assert_eq!(next(&client, PATIENCE).unwrap(), 2);
        // The server does not even run.
        stop(&child);
        is_ended(name, &client, |client| sleep(client, 1, Deadline::NEVER));

        let (client, _child) = start(config.clone());
        is_ended(&format!("{name}, in a handler"), &client, |client| sleep(client, 3_600_000, Deadline::NEVER));

        let (client, _child) = start(config);
        is_ended(&format!("{name}, in a stream"), &client, |client| {
            let mut stream = client.stream(STREAM, &(), Deadline::NEVER)?;
            stream.next().unwrap()?;
            stream.next().unwrap().map(drop)
        });
    }
}

/// Issue 13, A3.
#[test]
fn close_ends_calls_that_have_no_channel_yet() {
    for (name, config) in ways() {
        let (client, _child) = start(config.clone().channels(1));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| sleep(&client, 3_600_000, Deadline::NEVER).unwrap_err());
            std::thread::sleep(Duration::from_millis(100));
            is_ended(&format!("{name}, waiting for a channel"), &client, |client| {
                client.call::<_, u64>(NEXT, &1u64, Deadline::NEVER)
            });
            assert_eq!(kind(&first.join().unwrap()), Some(ErrorKind::LocalShutdown), "{name}");
        });
        let (client, child) = start(config);
        stop(&child);
        is_ended(&format!("{name}, in OPEN"), &client, |client| client.call::<_, u64>(NEXT, &1u64, Deadline::NEVER));
    }
}

/// Issue 13, A3.
#[test]
fn close_ends_calls_that_send() {
    let windows = ClientConfig::new();
    let bulk = ("bulk", windows.clone().extensions(false));
    for (name, config) in ways().into_iter().chain([bulk, ("base", windows.base_protocol())]) {
        let (client, child) = start(config);
        assert_eq!(next(&client, PATIENCE).unwrap(), 2);
        stop(&child);
        is_ended(&format!("{name}, sending"), &client, |client| {
            client.call::<_, u64>(SWALLOW, &(vec![0u8; 32 << 20], 0u32), Deadline::NEVER)
        });
    }
}

/// A listener that accepts nothing, and how a call connects to it anew.
#[derive(Debug, Clone, Copy)]
enum Anew {
    /// Nobody answers HELLO.
    Greeted,
    /// The backlog is full.
    Crowded,
}

/// Issue 13, A3. The connection is gone, and the next call connects anew to a server that does not answer.
#[test]
fn close_and_is_alive_wait_for_no_reconnect() {
    for how in [Anew::Greeted, Anew::Crowded] {
        let path = std::env::temp_dir().join(format!("flipcall-close-{}-{how:?}.sock", std::process::id()));
        let server = Server::new(Router::new(), Default::default());
        let (listener, handle) = (server.bind(&path).unwrap(), server.handle());
        let serving = std::thread::spawn(move || server.serve(listener));
        let client = Client::connect(&path, ClientConfig::new().reconnect(true), PATIENCE).unwrap();
        assert!(client.is_alive() && handle.close(PATIENCE));
        serving.join().unwrap().unwrap();
        assert!(!client.is_alive());
        // From now on somebody listens that never accepts.
        let listener = UnixListener::bind(&path).unwrap();
        let mut crowd = Vec::new();
        if matches!(how, Anew::Crowded) {
            rustix::net::listen(&listener, 0).unwrap();
            while let Ok(socket) = flipcall::stream::FrameSocket::connect(&path, Duration::from_millis(50)) {
                crowd.push(socket);
            }
        }
        let theirs = client.clone();
        let watcher = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(80));
            let begun = Instant::now();
            (theirs.is_alive(), begun.elapsed())
        });
        is_ended(&format!("{how:?}"), &client, |client| client.call::<_, u64>(NEXT, &1u64, Deadline::NEVER));
        let (_, took) = watcher.join().unwrap();
        assert!(took < AT_ONCE, "{how:?}: is_alive took {took:?}");
        drop((listener, crowd));
        std::fs::remove_file(&path).unwrap();
    }
}
