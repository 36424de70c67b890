//! A client that knows the wire and keeps no rule: it takes descriptors when it likes, and seals nothing.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use flipcall::endpoint::{Connector, Endpoint, Options};
use flipcall::stream::FrameSocket;
use flipcall::window::{Seals, Window};

use crate::serving::PATIENCE;

const HELLO: u16 = 0xFFF1;
const OPEN: u16 = 0xFFF0;
const RESPONSE: u16 = 0xFF00;

/// A channel and the base connection that it lives on.
pub struct RawChannel {
    /// The memfd and the endpoint of its window, unless it is a socket alone.
    pub window: Option<(OwnedFd, Endpoint)>,
    pub socket: UnixStream,
    _base: FrameSocket,
}

impl RawChannel {
    /// Opens a channel with so many bytes of window at the server on `path`.
    pub fn open(path: &str, window: u32) -> Self {
        let mut base = FrameSocket::new(UnixStream::connect(path).expect("a server"));
        base.set_attachments(true).expect("descriptors can be allowed");
        // Version 1, messages of 1 MiB, no extension.
        ask(&mut base, HELLO, &[&1u32.to_be_bytes()[..], &(1u64 << 20).to_be_bytes(), &[0; 4]].concat());
        let (opened, mut fds) = ask(&mut base, OPEN, &[&[0; 8][..], &window.to_be_bytes()].concat());
        let socket = UnixStream::from(fds.pop().expect("a socket"));
        let window = fds.pop().map(|file| {
            let length = u32::from_be_bytes(*opened.last_chunk().expect("a length"));
            let copy = file.try_clone().expect("a descriptor");
            let window = Window::receive(file, 0, length, Seals::AfterMap).expect("a window");
            let endpoint =
                Connector::new(window, Options::new()).and_then(|connector| Ok(connector.connect(PATIENCE)?));
            (copy, endpoint.expect("a greeting"))
        });
        Self { window, socket, _base: base }
    }
}

fn ask(socket: &mut FrameSocket, tag: u16, payload: &[u8]) -> (Vec<u8>, Vec<OwnedFd>) {
    socket.send(tag, payload, PATIENCE).expect("room for a request");
    let mut message = socket.receive(PATIENCE).expect("an answer").expect("no end");
    assert_eq!(message.tag, RESPONSE, "{}", String::from_utf8_lossy(message.payload));
    (message.payload.to_vec(), message.attachments.take_all())
}

/// A request without a deadline, as a datagram of a window.
pub fn datagram(tag: u16) -> Vec<u8> {
    [&tag.to_ne_bytes()[..], &[0; 10]].concat()
}

/// A request without a deadline, as a frame.
pub fn frame(tag: u16) -> Vec<u8> {
    [&tag.to_be_bytes()[..], &8u32.to_be_bytes(), &[0; 8]].concat()
}
