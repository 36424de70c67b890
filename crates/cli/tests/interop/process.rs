//! A process under test: given a window, bounded in time, never left behind.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flipcall::process::pass_descriptor;
use rustix::process::{Pid, PidfdFlags};

use crate::place::Place;

/// How long anything may take that has no bound of its own. Only a hang takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whose code a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Go,
    Rust,
}

/// Which end of the window a process takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The command that plays one side. `None`: it needs Go, which is not here.
pub(crate) fn command(kind: Kind, side: Side) -> Option<Command> {
    let mut command = match kind {
        Kind::Go => Command::new(crate::go::peer()?),
        Kind::Rust => {
            let mut command = Command::new(env!("CARGO_BIN_EXE_flipcall"));
            command.arg("endpoint");
            command
        }
    };
    command.arg(side.name());
    Some(command)
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<String>,
    pub(crate) errors: String,
}

/// A child process. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts a process on the window.
    pub(crate) fn on(place: &Place, mut command: Command, arguments: &[&str]) -> Self {
        place.give_to(&mut command);
        command.args(arguments);
        Self::start(command)
    }

    /// Starts a process whose command line is complete.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut output = child.stderr.take().expect("it is piped");
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            // Whatever came before a broken end is what there is to say.
            let _ = output.read_to_string(&mut text);
            text
        });
        Self { child, lines, errors: Some(errors) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A descriptor that becomes readable when the process is gone.
    pub(crate) fn pidfd(&self) -> OwnedFd {
        rustix::process::pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("it is not reaped yet")
    }

    /// The next line of its standard output, or `None` if it does not come `within` that time.
    pub(crate) fn line(&self, within: Duration) -> Option<String> {
        self.lines.recv_timeout(within).ok()
    }

    /// Waits until it has printed `line`.
    pub(crate) fn says(&self, line: &str) {
        let mut before = Vec::new();
        loop {
            match self.line(PATIENCE) {
                Some(next) if next == line => return,
                Some(other) => before.push(other),
                None => panic!("\"{line}\" did not come; before it: {before:?}"),
            }
        }
    }

    /// Whether it still runs after that time.
    pub(crate) fn outlasts(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
    }

    /// What it said, once it ended. One that does not end is killed, and the test fails.
    pub(crate) fn finish(mut self) -> Ended {
        if self.outlasts(PATIENCE) {
            self.kill();
            panic!("still running after {PATIENCE:?}: {:?}", self.collect());
        }
        self.collect()
    }

    fn collect(&mut self) -> Ended {
        let status = self.child.wait().expect("it is our child");
        let errors = self.errors.take().expect("collected once").join().expect("the reader does not panic");
        Ended { status, lines: self.lines.iter().collect(), errors }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that was reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Asserts that the process did what it was asked.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.status.code(), Some(0), "{self:?}");
        self
    }

    /// Asserts that the process ended with status 1 and an error that contains `text`.
    #[track_caller]
    pub(crate) fn failed_with(self, text: &str) -> Self {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        assert!(self.errors.contains(text), "no \"{text}\" in {self:?}");
        self
    }

    /// Nanoseconds per call, from the line that a client prints.
    #[track_caller]
    pub(crate) fn ns_per_call(&self) -> f64 {
        let line = self.lines.last().expect("a client prints a line");
        let number = line.split_once("ns_per_call=").expect("the line has the field").1;
        number.parse().expect("it is a number")
    }
}

/// Adds an option that names an inherited descriptor.
pub(crate) fn pass(command: &mut Command, option: &str, fd: impl AsFd) {
    let number = pass_descriptor(command, fd).expect("a descriptor");
    command.arg(option).arg(number.to_string());
}
