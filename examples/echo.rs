//! Two processes in one file: the parent starts itself as a child, sends it a line, and prints the answer.
//!
//! Run it with `cargo run --release --example echo`.

use std::process::Command;
use std::time::Duration;

use flipcall::endpoint::{Inherited, Options, Spawned};
use flipcall::process::InheritedFds;
use flipcall::{Deadline, ErrorKind};

/// Bytes of the window: a page, 4,080 bytes of datagram.
const WINDOW: u32 = 4096;
/// How long an answer may take.
const PATIENCE: Deadline = Deadline::after(Duration::from_secs(5));

fn main() -> flipcall::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("child") => echo(),
        _ => parent(),
    }
}

fn parent() -> flipcall::Result<()> {
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.arg("child");
    let mut child = Spawned::start(command, WINDOW, Options::new())?;
    let mut endpoint = child.connect(PATIENCE)?;

    for line in ["hello", "and again"] {
        let length = endpoint.write_datagram(line.as_bytes())?;
        let length = endpoint.send_recv(length, PATIENCE)?;
        let mut answer = vec![0; length as usize];
        endpoint.read_at(0, &mut answer)?;
        println!("sent {line:?}, process {} answered {:?}", child.id(), String::from_utf8_lossy(&answer));
    }

    drop(endpoint);
    child.finish(Duration::from_secs(2))?;
    Ok(())
}

/// Sends every datagram back until the parent shuts the window down.
fn echo() -> flipcall::Result<()> {
    #[allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]
    // SAFETY: what is inheritable in this process was left to it by its parent, and nothing owns it.
    let inherited = unsafe { InheritedFds::claim() };
    let server = Inherited::from_env(&inherited)?.into_acceptor(Options::new())?;
    let (mut endpoint, mut length) = server.recv_first(PATIENCE)?;
    let mut datagram = vec![0; WINDOW as usize];
    loop {
        let datagram = &mut datagram[..length as usize];
        endpoint.read_at(0, datagram)?;
        endpoint.write_datagram(datagram)?;
        length = match endpoint.send_recv(length, Deadline::NEVER).map_err(flipcall::Error::from) {
            Err(error) if error.kind() == ErrorKind::PeerShutdown => return Ok(()),
            result => result?,
        };
    }
}
