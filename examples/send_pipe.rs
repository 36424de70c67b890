//! Opening a new service endpoint over an existing connection: a socket pair is made, one end travels with a message, the other is
//! kept. Here a parent asks a child process for two consoles over one control socket.
//!
//! `cargo run --example send_pipe`

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use flipcall::stream::{MissingFd, receive_with_fd, send_pipe};

const SOON: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("child") {
        return child();
    }
    let (control, theirs) = UnixStream::pair()?;
    let mut child =
        Command::new(std::env::current_exe()?).arg("child").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    for name in ["first", "second"] {
        // On a stream socket messages are told apart by waiting for each answer.
        let mut console = send_pipe(&control, name.as_bytes(), SOON)?;
        writeln!(console, "hello from the parent")?;
        let mut answer = String::new();
        BufReader::new(console).read_line(&mut answer)?;
        print!("{answer}");
    }
    drop(control);
    child.wait()?;
    Ok(())
}

/// Serves each descriptor that comes as a console of the name that came with it.
fn child() -> Result<(), Box<dyn std::error::Error>> {
    let control = std::io::stdin();
    let mut name = [0; 64];
    while let Some(received) = receive_with_fd(control.as_fd(), &mut name, MissingFd::Refuse, SOON)? {
        let mut console = UnixStream::from(received.fd);
        let mut line = String::new();
        BufReader::new(console.try_clone()?).read_line(&mut line)?;
        writeln!(console, "console {}: {}", String::from_utf8_lossy(&name[..received.bytes]), line.trim_end())?;
    }
    Ok(())
}
