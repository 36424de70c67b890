//! A risky part in a process of its own: the child checks numbers and is killed by a bad one; the parent gets an error, not a crash,
//! and starts another child.
//!
//! Run it with `cargo run --release --example spawn`.

use std::process::Command;
use std::time::Duration;

use flipcall::endpoint::{Endpoint, Inherited, Options, Spawned};
use flipcall::process::InheritedFds;
use flipcall::{Deadline, ErrorKind};

/// How long an answer may take.
const PATIENCE: Deadline = Deadline::after(Duration::from_secs(5));

fn main() -> flipcall::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("child") {
        return square_numbers();
    }
    let (mut child, mut endpoint) = start()?;
    for number in [7, 13, 30] {
        match call(&mut endpoint, number) {
            Ok(square) => println!("{number} squared is {square}"),
            Err(error) if error.kind() == ErrorKind::PeerGone => {
                println!("the child died of {number}: {error:#}");
                (child, endpoint) = start()?;
            }
            Err(error) => return Err(error),
        }
    }
    drop(endpoint);
    child.finish(Duration::from_secs(2))?;
    Ok(())
}

/// A child with a window, in one call, and the connection to it.
fn start() -> flipcall::Result<(Spawned, Endpoint)> {
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.arg("child");
    let mut child = Spawned::start(command, 4096, Options::new())?;
    let endpoint = child.connect(PATIENCE)?;
    Ok((child, endpoint))
}

fn call(endpoint: &mut Endpoint, number: u64) -> flipcall::Result<u64> {
    let length = endpoint.write_datagram(&number.to_ne_bytes())?;
    endpoint.send_recv(length, PATIENCE)?;
    // An answer that is too short is an error of this read, whatever the child sent.
    let mut square = [0; 8];
    endpoint.read_at(0, &mut square)?;
    Ok(u64::from_ne_bytes(square))
}

fn square_numbers() -> flipcall::Result<()> {
    #[allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]
    // SAFETY: what is inheritable in this process was left to it by its parent, and nothing owns it.
    let inherited = unsafe { InheritedFds::claim() };
    let server = Inherited::from_env(&inherited)?.into_acceptor(Options::new())?;
    let (mut endpoint, _) = server.recv_first(PATIENCE)?;
    loop {
        let mut number = [0; 8];
        endpoint.read_at(0, &mut number)?;
        let number = u64::from_ne_bytes(number);
        if number == 13 {
            std::process::abort();
        }
        let length = endpoint.write_datagram(&number.pow(2).to_ne_bytes())?;
        match endpoint.send_recv(length, Deadline::NEVER).map_err(flipcall::Error::from) {
            Err(error) if error.kind() == ErrorKind::PeerShutdown => return Ok(()),
            result => result?,
        };
    }
}
