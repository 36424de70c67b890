//! Payloads that do not fit the window, from values that do not keep the rules of encoding.

use std::cell::Cell;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};

use flipcall::rpc::codec::{Encode, Encoder, from_bytes};
use flipcall::rpc::{CallError, Client, ClientConfig, Code, Router, Server};

use super::peer::PATIENCE;

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

/// A server in this process, one client of which is handed to `test`.
fn with_server(config: ClientConfig, test: impl FnOnce(&Client)) {
    let mut router = Router::new();
    router.raw(1, |context, request, reply| reply.send(context, &from_bytes::<&[u8]>(request)?));
    router.raw(2, |context, request, reply| {
        ENCODED.set(0);
        match from_bytes::<u8>(request)? {
            0 => reply.send(context, &Fickle::Fewer),
            1 => reply.send(context, &Fickle::More),
            _ => reply.send(context, &Fickle::Panic),
        }
    });
    let late = AtomicU32::new(0);
    router.raw(3, move |context, request, reply| {
        reply.send(context, &from_bytes::<&[u8]>(request)?)?;
        assert!(late.fetch_add(1, Ordering::Relaxed) > 0, "as wanted");
        Err(flipcall::rpc::Status::new(Code::Io, "after the answer"))
    });
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || Server::new(router, Default::default()).serve_one(theirs));
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
    with_server(ClientConfig::new(), |client| {
        for (fickle, opened) in [(Fickle::Fewer, 2), (Fickle::More, 3)] {
            is_in_order(client);
            ENCODED.set(0);
            let error = client.call::<_, Vec<u8>>(1, &fickle, PATIENCE).unwrap_err();
            assert!(matches!(error, CallError::Failed(_)) && error.to_string().contains("encoded twice"), "{error}");
            is_in_order(client);
            assert_eq!(client.counters().channels_opened, opened);
        }
    });
}

#[test]
fn an_answer_that_changes_its_length_ends_its_channel_alone() {
    with_server(ClientConfig::new(), |client| {
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
    with_server(ClientConfig::new(), |client| {
        let bytes = vec![7; LARGE];
        for _ in 0..3 {
            assert!(client.call::<_, Vec<u8>>(3, &bytes, PATIENCE).unwrap() == bytes);
            is_in_order(client);
        }
        assert_eq!(client.counters().channels_opened, 1);
    });
}
