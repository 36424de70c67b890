//! What a peer can make a mux hold: answers that nobody reads, and data that no program takes. The side that holds it is a process of
//! its own, so that its memory is that of the mux.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flipcall::stream::FrameViolation;
use flipcall::stream::mux::{Mux, MuxConfig, Role};
use flipcall::stream::write_frame;
use flipcall::{Deadline, ErrorKind};

use super::{SOON, resources, rss_of, settle, spawn};

/// Refuses every channel until the peer is cut off for not reading the answers.
pub fn refuse(socket: UnixStream) {
    let mux = Mux::new(socket, MuxConfig::new(Role::Initiator).max_channels(0)).unwrap();
    let error = mux.accept(SOON).unwrap_err();
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<FrameViolation>());
    assert_eq!((error.kind(), source), (ErrorKind::Violation, Some(&FrameViolation::WriteTooSlow)));
    // Alive until the test has looked at its memory.
    std::thread::sleep(Duration::from_secs(3600));
}

/// Each OPEN is answered by REFUSE. What the kernel does not take of that is bounded, and past the bound the peer is cut off. It cannot
/// be told why: a GOODBYE would stand behind what it does not read.
pub fn a_flood_of_opens_is_cut_off_in_little_memory() {
    let before = resources();
    {
        let (mut child, mut ours) = spawn("refuse");
        let pid = child.id().to_string();
        write_frame(&mut ours, 0, &[0, 1, 0, 1, 0, 0, 0, 16]).unwrap();
        ours.read_exact(&mut [0; 14]).unwrap();
        let (early, mut most, mut sent) = (rss_of(&pid), 0, 0);
        let mut opens = Vec::new();
        (0..1000).for_each(|_| write_frame(&mut opens, 0, b"\x01\0\x02\0\x10\0\0\0\x01x").unwrap());
        let start = Instant::now();
        while ours.write_all(&opens).is_ok() {
            assert!(start.elapsed() < SOON, "a flood of unread answers was tolerated");
            (sent, most) = (sent + opens.len(), most.max(rss_of(&pid)));
        }
        let grown = most.max(rss_of(&pid)).saturating_sub(early);
        println!("a flood of opens: cut off after {sent} bytes, RSS grew by {grown} KiB");
        assert!(grown < 2048, "RSS grew by {grown} KiB");
        assert!(child.try_wait().unwrap().is_none(), "the other side has failed");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    settle(before);
}

const STALLED: u16 = 8;
const CREDIT: u32 = 512 * 1024;

/// Accepts every channel and reads none.
pub fn stall(socket: UnixStream) {
    let config = MuxConfig::new(Role::Acceptor).max_channels(STALLED + 1).credit(CREDIT);
    let mux = Mux::new(socket, config).unwrap();
    let mut stalled = Vec::new();
    while let Ok(offer) = mux.accept(Deadline::NEVER) {
        stalled.push(offer.accept().unwrap());
    }
}

pub fn stalled_channels_hold_no_more_than_the_budget() {
    let before = resources();
    for length in [50_000, 2000, 1000, 100, 15, 1, 0] {
        let (mut child, ours) = spawn("stall");
        let mux = Mux::new(ours, MuxConfig::new(Role::Initiator)).unwrap();
        let first = mux.open("first", SOON).unwrap();
        let mut channels: Vec<_> = (0..STALLED).map(|_| mux.open("stalled", SOON).unwrap()).collect();
        let pid = child.id().to_string();
        let early = rss_of(&pid);
        let message = vec![7; length];
        // As many as the credit allows, however long the other process takes to grant it; not one more.
        let each = CREDIT as usize / (length + 16);
        for channel in &mut channels {
            (0..each).for_each(|_| channel.sender.send(&message, SOON).unwrap());
            let one_more = channel.sender.send(&message, Duration::from_millis(20));
            assert_eq!(one_more.map_err(|error| error.kind()), Err(ErrorKind::Timeout));
        }
        let (budget, sent) = (usize::from(STALLED) * CREDIT as usize, channels.len() * each * (length + 16));
        // What was sent before this answer has been received.
        drop(first);
        assert_eq!(mux.open("last", SOON).err().map(|error| error.kind()), Some(ErrorKind::PeerShutdown));
        let (grown, budget) = (rss_of(&pid).saturating_sub(early), budget / 1024);
        println!("{STALLED} channels of messages of {length} bytes: {grown} KiB for a credit of {budget} KiB");
        // The bytes, and two for the length of a short one.
        let least = sent / (length + 16) * (length + 2) / 1024;
        assert!(grown + 512 > least, "{grown} KiB: not everything is there");
        // The rest is what the other process needed besides, which is not counted.
        assert!(grown < budget + budget / 16 + 768, "{grown} KiB for a credit of {budget} KiB");
        drop((channels, mux));
        child.wait().unwrap();
    }
    settle(before);
}
