//! Payloads that do not fit the window: from values that do not keep the rules of encoding, from methods that do more after their
//! answer, to a caller that does not read.

use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flipcall::rpc::codec::{Encode, Encoder, from_bytes};
use flipcall::rpc::{CallError, Client, ClientConfig, Code, Router, Server, ServerConfig, Status};
use flipcall::stream::{Access, Listener};
use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

const LARGE: usize = 3 << 20;

thread_local! {
    /// Encodings of a [`Fickle`] on this thread.
    static ENCODED: Cell<u32> = const { Cell::new(0) };
}

/// Writes other bytes the second time.
enum Fickle {
    Fewer,
    More,
    Panic,
}

impl Encode for Fickle {
    fn encode(&self, encoder: &mut Encoder<'_>) {
        let bytes = vec![1; LARGE];
        let times = ENCODED.replace(ENCODED.get() + 1);
        match (times % 2, self) {
            (0, _) => encoder.bytes(&bytes),
            (_, Self::Fewer) => encoder.bytes(&bytes[..LARGE / 2]),
            (_, Self::More) => {
                encoder.bytes(&bytes);
                encoder.bytes(&bytes);
            }
            (_, Self::Panic) => {
                encoder.bytes(&bytes[..LARGE / 2]);
                panic!("as wanted");
            }
        }
    }
}

fn fickle(kind: u8) -> Fickle {
    match kind {
        0 => Fickle::Fewer,
        1 => Fickle::More,
        _ => Fickle::Panic,
    }
}

/// Payloads that do not fit the window go through it in parts, or over the socket.
fn both_ways(test: impl Fn(&Client)) {
    for extensions in [true, false] {
        with_server(ClientConfig::new().extensions(extensions), &test);
    }
}

/// A server in this process, one client of which is handed to `test`.
fn with_server(config: ClientConfig, test: impl FnOnce(&Client)) {
    with_servers(config, ServerConfig::new(), test);
}

fn with_servers(config: ClientConfig, servers: ServerConfig, test: impl FnOnce(&Client)) {
    let mut router = Router::new();
    router.raw(1, |context, request, reply| reply.send_now(context, &from_bytes::<&[u8]>(request)?));
    router.raw(2, |context, request, reply| {
        ENCODED.set(0);
        reply.send_now(context, &fickle(from_bytes::<u8>(request)?))
    });
    let late = AtomicU32::new(0);
    router.raw(3, move |context, request, reply| {
        let _ = reply.send_now(context, &from_bytes::<&[u8]>(request)?)?;
        assert!(late.fetch_add(1, Ordering::Relaxed) > 0, "as wanted");
        Err(Status::new(Code::Io, "after the answer"))
    });
    router.raw(4, |context, request, reply| {
        ENCODED.set(0);
        reply.send(context, &fickle(from_bytes::<u8>(request)?))
    });
    router.raw(5, |context, request, reply| {
        let (fails, bytes) = from_bytes::<(bool, &[u8])>(request)?;
        let answered = reply.send(context, &bytes)?;
        if fails { Err(Status::new(Code::Io, "after the answer")) } else { Ok(answered) }
    });
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || Server::new(router, servers).serve_one(theirs));
    let client = Client::from_socket(ours, config).unwrap();
    test(&client);
    client.close();
    serving.join().unwrap().unwrap();
}

/// Calls go on as if nothing had happened.
fn is_in_order(client: &Client) {
    for size in [1, LARGE] {
        let bytes = vec![7; size];
        assert!(client.call::<_, Vec<u8>>(1, &bytes, PATIENCE).unwrap() == bytes);
    }
}

#[test]
fn a_request_that_changes_its_length_fails_alone() {
    both_ways(|client| {
        for (fickle, opened) in [(Fickle::Fewer, 2), (Fickle::More, 3)] {
            is_in_order(client);
            ENCODED.set(0);
            let error = client.call::<_, Vec<u8>>(1, &fickle, PATIENCE).unwrap_err();
            assert!(matches!(error, CallError::Failed(_)) && format!("{error:#}").contains("encoded twice"), "{error}");
            is_in_order(client);
            assert_eq!(client.counters().channels_opened, opened);
        }
    });
}

#[test]
fn an_answer_that_changes_its_length_ends_its_channel_alone() {
    both_ways(|client| {
        for kind in 0..3u8 {
            is_in_order(client);
            let error = client.call::<_, Vec<u8>>(2, &kind, PATIENCE).unwrap_err();
            assert!(matches!(error, CallError::Failed(_)) && !error.is_timeout(), "{kind}: {error}");
            is_in_order(client);
            assert_eq!(client.counters().channels_opened, u64::from(kind) + 2);
        }
    });
}

#[test]
fn an_answer_that_is_out_stands_whatever_its_method_does_after_it() {
    both_ways(|client| {
        let bytes = vec![7; LARGE];
        for _ in 0..3 {
            assert!(client.call::<_, Vec<u8>>(3, &bytes, PATIENCE).unwrap() == bytes);
            is_in_order(client);
        }
        assert_eq!(client.counters().channels_opened, 1);
    });
}

#[test]
fn an_answer_that_waits_for_its_method_is_taken_back_if_that_fails() {
    both_ways(|client| {
        let bytes = vec![7; LARGE];
        for _ in 0..3 {
            let error = client.call::<_, Vec<u8>>(5, &(true, &bytes[..]), PATIENCE).unwrap_err();
            assert_eq!(error.status().unwrap().code, Code::Io);
            for kind in 0..3u8 {
                let error = client.call::<_, Vec<u8>>(4, &kind, PATIENCE).unwrap_err();
                assert_eq!(error.status().unwrap().code, Code::Unknown, "{kind}: {error}");
            }
            assert!(client.call::<_, Vec<u8>>(5, &(false, &bytes[..]), PATIENCE).unwrap() == bytes);
            is_in_order(client);
        }
        assert_eq!(client.counters().channels_opened, 1);
    });
}

#[test]
fn a_large_request_too_many_is_thrown_away_and_may_be_repeated() {
    let socket = ClientConfig::new().window(0);
    for config in [ClientConfig::new(), ClientConfig::new().extensions(false), socket] {
        // A quarter is for one process.
        let servers = ServerConfig::new().large_request_bytes_total(4 * LARGE as u64 - 1);
        with_servers(config, servers, |client| {
            for _ in 0..3 {
                let error = client.call::<_, Vec<u8>>(1, &vec![7; LARGE], PATIENCE).unwrap_err();
                let status = error.status().unwrap();
                assert_eq!(status.code, Code::NoResource, "{status}");
                let said =
                    ["large requests", "from this process", &format!("limit {} bytes", LARGE - 1), "retry later"];
                assert!(said.iter().all(|words| status.message.contains(words)), "{status}");
                let bytes = vec![7; LARGE - 100];
                assert!(client.call::<_, Vec<u8>>(1, &bytes, PATIENCE).unwrap() == bytes);
            }
            assert_eq!(client.counters().channels_opened, 1);
        });
    }
}

#[test]
fn the_next_answer_goes_its_own_way_whatever_became_of_the_last() {
    // Through such a window 6 KiB go in parts, and 1 MiB over the socket.
    with_server(ClientConfig::new().window(4096), |client| {
        for (taken_back, sent) in [(6 << 10, 1 << 20), (1 << 20, 6 << 10)] {
            let bytes = vec![7; taken_back];
            let error = client.call::<_, Vec<u8>>(5, &(true, &bytes[..]), PATIENCE).unwrap_err();
            assert_eq!(error.status().unwrap().code, Code::Io);
            let bytes = vec![8; sent];
            assert!(client.call::<_, Vec<u8>>(5, &(false, &bytes[..]), PATIENCE).unwrap() == bytes);
        }
        assert_eq!(client.counters().channels_opened, 1);
    });
}

/// Where the child below finds its server.
const VARIABLE: &str = "FLIPCALL_TEST_SERVER";

#[test]
#[ignore = "a child of the test below"]
fn as_a_caller_of_long_answers() {
    let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let client = Client::connect(path, ClientConfig::new(), PATIENCE).unwrap();
    while client.call::<_, Vec<u8>>(1, &(), PATIENCE).is_ok() {}
}

#[test]
fn a_method_that_answers_under_a_lock_is_not_held_up_by_a_caller_that_does_not_read() {
    let table = Arc::new(Mutex::new(vec![1u8; 32 << 20]));
    let same = Arc::clone(&table);
    let mut router = Router::new();
    router.raw(1, move |context, _, reply| reply.send(context, &*same.lock().unwrap()));
    router.unary(2, move |_, (): ()| Ok(table.lock().unwrap().len() as u64));
    let path = std::env::temp_dir().join(format!("flipcall-lock-{}.sock", std::process::id()));
    let listener = Listener::bind(&path, Access::Owner).unwrap();
    let server = Arc::new(Server::new(router, Default::default()));
    let (handle, serving) = (server.handle(), std::thread::spawn(move || server.serve(listener)));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bulk::as_a_caller_of_long_answers", "--ignored"])
        .env(VARIABLE, &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let neighbour = Client::connect(&path, ClientConfig::new(), PATIENCE).unwrap();
    for round in 0..6 {
        // Most of its time the caller is inside an answer.
        std::thread::sleep(Duration::from_millis(100 + 7 * round));
        kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        let length = neighbour.call::<_, u64>(2, &(), Duration::from_secs(5));
        kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
        assert_eq!(length.unwrap(), 32 << 20, "round {round}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    handle.close(Duration::from_secs(1));
    let _ = serving.join().unwrap();
}
