//! A command in a child domain, its standard input, output and error over three channels of one socket.
//!
//! `echo hello | cargo run --example mux_stdio -- tr a-z A-Z`
//!
//! The parent holds one end of a socket pair, a child process (the domain) the other. The parent opens `stdin`, `stdout` and `stderr`;
//! the domain runs the command and ties its pipes to them. A terminal that nobody reads stops by its own credit: the other two go on.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use flipcall::Deadline;
use flipcall::stream::mux::{Channel, Mux, MuxConfig, Role};

const SOON: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<ExitCode, Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "--domain") {
        return domain(&args.split_off(1));
    }
    if args.is_empty() {
        args = vec!["echo".into(), "hello from the domain".into()];
    }
    parent(&args)
}

fn parent(command: &[String]) -> Result<ExitCode, Failure> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--domain")
        .args(command)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let mux = Mux::new(ours, MuxConfig::new(Role::Initiator))?;
    let stdin = mux.open("stdin", SOON)?;
    let (stdout, stderr) = (mux.open("stdout", SOON)?, mux.open("stderr", SOON)?);
    // Nobody waits for this thread: it may be blocked in a read of our own standard input.
    thread::spawn(move || copy(io::stdin(), stdin.sender.into_writer(Deadline::NEVER)));
    let errors = thread::spawn(move || copy(stderr.receiver.into_reader(Deadline::NEVER), io::stderr()));
    copy(stdout.receiver.into_reader(Deadline::NEVER), io::stdout())?;
    errors.join().map_err(|_| "the thread for standard error panicked")??;
    let status = child.wait()?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(255)).unwrap_or(255)))
}

fn domain(command: &[String]) -> Result<ExitCode, Failure> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let mux = Mux::new(socket, MuxConfig::new(Role::Acceptor))?;
    let mut channels: Vec<Channel> = Vec::new();
    for expected in ["stdin", "stdout", "stderr"] {
        let offer = mux.accept(SOON)?;
        if offer.name() != expected {
            return Err(format!("a channel called {} instead of {expected}", offer.name()).into());
        }
        channels.push(offer.accept()?);
    }
    let [stdin, stdout, stderr] = <[Channel; 3]>::try_from(channels).map_err(|_| "three channels")?;
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = (input, output, errors) else { return Err("no pipes".into()) };
    thread::spawn(move || copy(stdin.receiver.into_reader(Deadline::NEVER), input));
    let errors = thread::spawn(move || copy(errors, stderr.sender.into_writer(Deadline::NEVER)));
    copy(output, stdout.sender.into_writer(Deadline::NEVER))?;
    errors.join().map_err(|_| "the thread for standard error panicked")??;
    let status = child.wait()?;
    mux.close(flipcall::stream::mux::Reason::CLOSING, SOON)?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(255)).unwrap_or(255)))
}

/// Copies until the end and flushes after each piece, so that a conversation goes on line by line.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
        to.flush()?;
    }
}
