//! What a peer of typed calls can send: values, requests of every kind to a server, answers of every kind to a client.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flipcall::ErrorKind;
use flipcall::rpc::codec::{Decode, DecodeError, Encode, List, from_bytes, to_bytes};
use flipcall::rpc::{CallError, Client, ClientConfig, Router, Server, ServerConfig, Status};

/// Everything is there before it is read, so nobody waits for long; a hang is what the fuzzer's own limit finds.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest input: what both directions of it take fits a socket, so that one thread can play both sides.
const MOST: usize = 4200;

/// The first byte says what the rest is.
pub fn rpc(data: &[u8]) {
    let Some((&what, rest)) = data.split_first() else { return };
    let rest = &rest[..rest.len().min(MOST)];
    match what % 6 {
        0 => values(rest),
        1 => requests(rest),
        2 => answers(rest, ClientConfig::new().base_protocol()),
        3 => answers(rest, ClientConfig::new().window(0)),
        4 => super::channels::requests(rest),
        _ => super::channels::answers(rest),
    }
}

/// The wire format has one way to write a value: what decodes is what encoding it gives.
fn value<'a, T: Decode<'a> + Encode>(bytes: &'a [u8]) {
    match from_bytes::<T>(bytes) {
        Ok(value) => assert_eq!(to_bytes(&value), bytes),
        Err(DecodeError::TooShort | DecodeError::TrailingBytes | DecodeError::NotBool | DecodeError::NotUtf8) => {}
        Err(error) => panic!("no type here has other rules: {error}"),
    }
}

fn values(data: &[u8]) {
    let Some((&what, bytes)) = data.split_first() else { return };
    match what % 12 {
        0 => value::<u8>(bytes),
        1 => value::<(u16, u32, u64)>(bytes),
        2 => value::<(i32, i64)>(bytes),
        3 => value::<bool>(bytes),
        4 => value::<&str>(bytes),
        5 => value::<(String, Vec<u8>)>(bytes),
        6 => value::<&[u8]>(bytes),
        7 => value::<Vec<String>>(bytes),
        8 => value::<Vec<&str>>(bytes),
        9 => value::<List<(u64, String, bool)>>(bytes),
        10 => value::<List<List<u8>>>(bytes),
        // A list of nothing has no length of its own to be checked against.
        _ => value::<List<()>>(bytes),
    }
    let _ = from_bytes::<Status>(bytes);
}

/// A client that wrote `bytes` and nothing more: HELLO, OPEN, calls, or none of these.
fn requests(bytes: &[u8]) {
    let mut router = Router::new();
    router.unary(1, |_, bytes: Vec<u8>| Ok(bytes));
    router.unary(2, |_, (a, b): (u64, u64)| a.checked_add(b).ok_or_else(|| Status::invalid_argument("overflow")));
    router.streaming(4, |_, request, mut chunks| {
        for _ in 0..from_bytes::<u8>(request)? % 4 {
            chunks.send(&7u8)?;
        }
        chunks.finish()
    });
    let server = Server::new(router, ServerConfig::new().max_message(4096).max_window(4096));
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    ours.write_all(bytes).expect("it fits");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    // After descriptors went out, a server waits until they were taken.
    let reader = std::thread::spawn(move || std::io::copy(&mut ours, &mut std::io::sink()));
    if let Err(error) = server.serve_one(theirs) {
        blame(&error);
    }
    // What the server hung up on shows as an error; both are the end.
    drop(reader.join().expect("reading does not panic"));
}

/// A server that wrote `bytes` and nothing more.
fn answers(bytes: &[u8], config: ClientConfig) {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    theirs.write_all(bytes).expect("it fits");
    theirs.shutdown(Shutdown::Write).expect("it is connected");
    let client = match Client::from_socket(ours, config.max_message(4096)) {
        Ok(client) => client,
        Err(error) => return blame(&error),
    };
    validate(client.call::<_, Vec<u8>>(1, &[1u8, 2, 3][..], PATIENCE));
    if let Ok(stream) = client.stream(4, &3u8, PATIENCE) {
        stream.for_each(validate);
    }
    validate(client.call::<_, u64>(2, &(1u64, 2u64), PATIENCE));
}

fn validate<T>(called: Result<T, CallError>) {
    if let Err(CallError::Failed(error)) = called {
        blame(&error);
    }
}

/// An error that a peer's bytes, or their end, may lead to.
fn blame(error: &flipcall::Error) {
    let blamed = matches!(error.kind(), ErrorKind::Violation | ErrorKind::PeerGone | ErrorKind::Refused);
    assert!(blamed, "the peer's bytes led to {error:?}");
}
