//! What a channel that nobody reads can hold, and how an orderly end differs from a death.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use flipcall::ErrorKind;
use flipcall::stream::mux::{Ended, Mux, MuxConfig, Reason, Role};

use super::{SOON, resources, settle, spawn};

pub fn a_stalled_channel_holds_no_more_than_its_credit() {
    let before = resources();
    {
        let (mut child, ours) = spawn("victim");
        let mux = Mux::new(ours, MuxConfig::new(Role::Initiator)).unwrap();
        let _echo = mux.open("echo", SOON).unwrap();
        let mut silent = mux.open("silent", SOON).unwrap();
        let mut sent = 0;
        while silent.sender.send(&[0; 10_000], Duration::from_millis(50)).is_ok() {
            sent += 10_000 + 16;
        }
        assert!(sent <= 512 * 1024 && sent > 500 * 1024, "{sent} bytes went into a channel that nobody reads");
        child.kill().unwrap();
        child.wait().unwrap();
        let error = silent.sender.send(b"x", SOON).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PeerGone);
    }
    {
        // An orderly end is told apart from a death.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, theirs) =
            (Mux::new(ours, MuxConfig::new(Role::Initiator)), Mux::new(theirs, MuxConfig::new(Role::Acceptor)));
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        theirs.close(Reason(77), SOON).unwrap();
        let error = ours.accept(SOON).unwrap_err();
        let ended = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Ended>());
        assert_eq!(ended, Some(&Ended::Goodbye(Reason(77), String::new())));
    }
    settle(before);
}
