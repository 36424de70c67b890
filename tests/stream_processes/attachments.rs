//! Descriptors beside messages, with mistakes among them: nothing may leak.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use flipcall::ErrorKind;
use flipcall::stream::{FrameSocket, write_frame};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{SOON, full, resources, rss_of, settle, spawn};

/// Sends messages with descriptors for ever, every tenth connection's worth with a mistake; the peer says which by a byte.
pub fn attach(socket: &mut UnixStream) {
    let mut order = [0; 1];
    while socket.read_exact(&mut order).is_ok() {
        let (announced, fds) = match order[0] {
            0 => (3, 3),
            1 => (3, 2),
            2 => (0, 4),
            _ => (16, 253),
        };
        let mut bytes = Vec::new();
        if announced > 0 {
            write_frame(&mut bytes, 0xFFF2, &[announced]).unwrap();
        }
        write_frame(&mut bytes, 7, b"message").unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = vec![null.as_fd(); fds];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        if sendmsg(&*socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).is_err() {
            return;
        }
    }
}

pub fn attachments_leak_nothing() {
    let messages = if full() { 100_000 } else { 10_000 };
    let before = resources();
    let mut early = 0;
    let mut sent = 0;
    for connection in 0usize.. {
        if sent >= messages {
            break;
        }
        let (mut child, ours) = spawn("attach");
        let mut orders = ours.try_clone().unwrap();
        let mut socket = FrameSocket::new(ours);
        socket.set_attachments(true).unwrap();
        for number in 0..1000usize {
            sent += 1;
            let mistake = number == 999;
            orders.write_all(&[if mistake { 1 + (connection % 3) as u8 } else { 0 }]).unwrap();
            match socket.receive(SOON) {
                Ok(message) => {
                    let mut message = message.unwrap();
                    assert!(!mistake);
                    assert_eq!(message.attachments.len(), 3);
                    // Some are taken, some are left to the closer.
                    if number % 2 == 0 {
                        drop(message.attachments.take_first());
                    }
                }
                Err(error) => assert!(mistake && error.kind() == ErrorKind::Violation, "{error}"),
            }
        }
        drop((socket, orders));
        child.wait().unwrap();
        if connection == 1 {
            early = rss_of("self");
        }
    }
    settle(before);
    let grown = rss_of("self").saturating_sub(early);
    println!("{sent} messages with attachments: descriptors and threads as before, RSS grew by {grown} KiB");
    assert!(grown < 4096, "RSS grew by {grown} KiB");
}
