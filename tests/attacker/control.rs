//! How a test and its second process talk: whole messages over a socket, some with descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The longest silence before a test is taken to hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// One end of a control socket.
pub struct Control(OwnedFd);

impl Control {
    pub fn new(socket: OwnedFd) -> Self {
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).expect("SO_RCVTIMEO");
        Self(socket)
    }

    /// Two connected ends.
    pub fn pair() -> (Self, Self) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("socketpair");
        (Self::new(ours), Self::new(theirs))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn say(&self, text: &str) {
        self.say_with(text, &[]);
    }

    pub fn say_with(&self, text: &str, fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL).expect("sendmsg");
    }

    /// The next message; `None` once the other process is gone.
    pub fn listen(&self) -> Option<(String, Vec<OwnedFd>)> {
        let mut text = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags) {
                // A tracer stopped us.
                Err(Errno::INTR) => {}
                result => break result.expect("recvmsg"),
            }
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let text = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
        (received.bytes > 0).then_some((text, fds))
    }

    /// The next message, which must come.
    pub fn hear(&self) -> String {
        self.listen().expect("the other process is there").0
    }

    /// Waits for one particular message.
    pub fn expect(&self, text: &str) {
        assert_eq!(self.hear(), text);
    }

    /// Says something and waits for the answer.
    pub fn ask(&self, text: &str) -> String {
        self.say(text);
        self.hear()
    }
}
