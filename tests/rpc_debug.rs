//! `{:?}` of a type that has seen payloads shows none of their bytes: what is logged for debugging must not leak what was called with.

#[path = "rpc/child.rs"]
mod child;

use std::fmt::Debug;

use flipcall::rpc::codec::{Decoder, Raw, from_bytes};
use flipcall::rpc::{ClientConfig, Router, Status};
use flipcall::stream::FrameSocket;

use child::PATIENCE;

/// The payload that must not show.
const MARKER: &[u8] = b"MARKER-6A09E667";
/// Methods of the second process: one that answers with its own `{:?}`, a stream of that, an echo.
const DEBUG: u16 = 1;
const DEBUG_STREAM: u16 = 2;
const ECHO: u16 = 3;

/// Whether the marker shows in `{:?}` or `{:#?}`, as text or as numbers, decimal or hexadecimal.
fn shows(value: &dyn Debug) -> bool {
    let dense = |text: String| text.replace(char::is_whitespace, "");
    let forms =
        [dense(format!("{MARKER:?}")), dense(format!("{MARKER:x?}")), format!("[{}", String::from_utf8_lossy(MARKER))];
    let parts: Vec<&str> = forms.iter().map(|form| form.trim_matches(['[', ']'])).collect();
    [format!("{value:?}"), format!("{value:#?}"), format!("{value:x?}")]
        .into_iter()
        .map(dense)
        .any(|text| parts.iter().any(|part| text.contains(part)))
}

#[track_caller]
fn hides(what: &str, value: &dyn Debug) {
    assert!(!shows(value), "{what} shows a payload: {value:?}");
}

#[test]
fn the_search_finds_a_marker() {
    let text = String::from_utf8_lossy(MARKER);
    assert!(shows(&MARKER) && shows(&text) && shows(&MARKER.to_vec()) && shows(&Raw(MARKER)));
    assert!(!shows(&&MARKER[1..]));
}

/// The second process.
#[test]
#[ignore = "is started by another test"]
fn as_the_server() {
    let mut router = Router::new();
    router
        .raw(DEBUG, |context, request, reply| {
            let mut text = format!("{context:?} {context:#?} {reply:?} {reply:#?}");
            text.push_str(if shows(context) || shows(&reply) { "it shows" } else { "" });
            assert!(request.starts_with(MARKER));
            reply.send_now(context, &text)
        })
        .streaming(DEBUG_STREAM, |context, _, mut chunks| {
            chunks.send(&Raw(MARKER))?;
            let shown = shows(&chunks) || shows(context);
            chunks.send(&Raw(MARKER))?;
            if shown { Err(Status::invalid_argument("the stream shows a payload")) } else { chunks.end(&Raw(MARKER)) }
        })
        .raw(ECHO, |context, request, reply| reply.send_now(context, &Raw(request)));
    child::serve(router);
}

#[test]
fn neither_end_of_a_call_shows_what_it_carried() {
    let transports = [
        ("window", ClientConfig::new()),
        ("small window", ClientConfig::new().window(4096)),
        ("socket", ClientConfig::new().window(0)),
        ("base protocol", ClientConfig::new().base_protocol()),
    ];
    for (name, config) in transports {
        let (client, mut child) = child::start(config);
        let long = MARKER.repeat(1000);
        for request in [MARKER, &long] {
            let text = client.call_raw(DEBUG, request, PATIENCE).unwrap();
            let text: String = from_bytes(&text).unwrap();
            assert!(text.contains("Context") && !text.contains("it shows"), "{name}: {text}");
            assert_eq!(client.call_raw(ECHO, request, PATIENCE).unwrap(), request);
            hides(name, &client);
        }
        let mut stream = client.stream(DEBUG_STREAM, &Raw(MARKER), PATIENCE).unwrap();
        assert_eq!(stream.next().unwrap().unwrap(), MARKER, "{name}");
        hides(name, &stream);
        hides(name, &client);
        assert_eq!(stream.next().unwrap().unwrap(), MARKER, "{name}");
        assert!(stream.next().is_none(), "{name}");
        hides(name, &stream);
        drop((stream, client));
        let _ = child.wait(PATIENCE);
    }
}

#[test]
fn a_socket_and_a_decoder_show_what_is_left_of_them_in_numbers_alone() {
    let (mut ours, theirs) = FrameSocket::pair().unwrap();
    let mut theirs = FrameSocket::new(theirs);
    ours.send(1, MARKER, PATIENCE).unwrap();
    ours.send(1, MARKER, PATIENCE).unwrap();
    let frame = theirs.receive(PATIENCE).unwrap().unwrap();
    assert_eq!(frame.payload, MARKER);
    hides("a sender", &ours);
    hides("a receiver", &theirs);
    hides("a decoder", &Decoder::new(MARKER));
}
