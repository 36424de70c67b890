//! Frames as a hostile client writes them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

pub const OPEN: u16 = 0xFFF0;
pub const HELLO: u16 = 0xFFF1;
pub const RESPONSE: u16 = 0xFF00;
pub const ERROR: u16 = 0xFF01;

/// An OPEN without a deadline, for a window of so many bytes.
pub fn open(window: u32) -> Vec<u8> {
    frame(OPEN, &[&[0; 8], &window.to_be_bytes()[..]].concat())
}

pub fn frame(tag: u16, payload: &[u8]) -> Vec<u8> {
    [&tag.to_be_bytes()[..], &(payload.len() as u32).to_be_bytes(), payload].concat()
}

pub fn answer(mut socket: &UnixStream) -> (u16, Vec<u8>) {
    let mut header = [0; 6];
    socket.read_exact(&mut header).expect("an answer");
    let mut payload = vec![0; u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize];
    socket.read_exact(&mut payload).expect("all of an answer");
    (u16::from_be_bytes([header[0], header[1]]), payload)
}

pub fn ask(mut socket: &UnixStream, tag: u16, payload: &[u8]) -> (u16, Vec<u8>) {
    socket.write_all(&frame(tag, payload)).expect("room for a request");
    answer(socket)
}

/// A HELLO of so many empty extensions.
pub fn hello(extensions: u32) -> Vec<u8> {
    let mut hello = [&1u32.to_be_bytes()[..], &(1u64 << 20).to_be_bytes(), &extensions.to_be_bytes()].concat();
    hello.resize(hello.len() + 4 * extensions as usize, 0);
    hello
}
