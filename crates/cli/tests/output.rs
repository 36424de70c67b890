//! Where the output of a command goes: into a pipe that nobody reads any more, onto a full device, nowhere at all.
//!
//! Issue 13, C22, and C16 for the streams that are closed at the start.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// No step of any test here takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn flipcall(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipcall"));
    command.args(arguments);
    command
}

/// The writing end of a pipe that nobody reads any more.
fn broken() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    OwnedFd::from(writer).into()
}

fn full() -> Stdio {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("flipcall-output-{}-{name}", std::process::id()))
}

/// Commands that end by themselves once they have said something.
const SHORT: [&[&str]; 7] = [
    &["doctor"],
    &["--help"],
    &["--version"],
    &["help", "endpoint"],
    &["bench", "--help"],
    &["echo", "--help"],
    &["bench", "--rounds", "1", "--payload", "0", "--calls", "3", "--cpus", "0,0", "--transports", "pipe"],
];

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// As `flipcall doctor | head -n 0`: the one who reads has enough, which is no error.
#[test]
fn a_pipe_that_nobody_reads_ends_a_command_quietly() {
    for arguments in SHORT {
        let output = flipcall(arguments).stdout(broken()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert_eq!(errors(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_full_device_is_an_error_of_one_line() {
    for arguments in SHORT {
        let output = flipcall(arguments).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let text = errors(&output);
        assert!(text.starts_with("flipcall: cannot write to the standard output: No space left"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

/// An error that cannot be said is still one.
#[test]
fn a_standard_error_that_takes_nothing_changes_no_exit_status() {
    let wrong: [(&[&str], i32); 4] = [
        (&["doctor", "--no-such-option"], 2),
        (&[], 2),
        (&["endpoint", "server", "--fd", "999", "--offset", "0", "--length", "4096"], 1),
        (&["bench", "--transports", "pigeon"], 2),
    ];
    for (arguments, code) in wrong {
        for stderr in [full, broken] {
            let status = flipcall(arguments).stdout(Stdio::null()).stderr(stderr()).status().unwrap();
            assert_eq!(status.code(), Some(code), "{arguments:?}");
        }
        let output = flipcall(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!output.stderr.is_empty() && !errors(&output).contains("panicked"), "{output:?}");
    }
}

/// The files of a benchmark are written although nobody reads its table.
#[test]
fn a_benchmark_writes_its_files_whoever_reads_its_table() {
    let path = scratch("rows.json");
    let json = path.to_str().unwrap();
    let mut command = flipcall(&[SHORT[6], &["--json", json]].concat());
    assert_eq!(command.stdout(broken()).status().unwrap().code(), Some(0));
    let text = std::fs::read_to_string(&path).unwrap();
    let _ = std::fs::remove_file(&path);
    assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["rows"].is_array());
}

/// A command without any of the three standard streams.
fn without_streams(arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh", env!("CARGO_BIN_EXE_flipcall")]).args(arguments);
    command
}

#[test]
fn a_command_without_standard_streams_works() {
    for arguments in SHORT {
        assert_eq!(without_streams(arguments).status().unwrap().code(), Some(0), "{arguments:?}");
    }
    let path = scratch("closed.json");
    let json = path.to_str().unwrap();
    assert!(without_streams(&[SHORT[6], &["--json", json]].concat()).status().unwrap().success());
    let text = std::fs::read_to_string(&path).unwrap();
    let _ = std::fs::remove_file(&path);
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "something else was written into it: {text}");
}

/// A server that cannot say that it listens: without a reader it serves, since nobody has to read that; onto a full device it fails, and
/// leaves no file.
#[test]
fn a_server_says_that_it_listens_to_whoever_reads() {
    for kind in ["echo", "mux"] {
        let path = scratch(kind);
        let arguments = [kind, "--socket", path.to_str().unwrap()];
        for mut command in [with(&arguments, Stdio::null), with(&arguments, broken), without_streams(&arguments)] {
            let mut server = Server(command.spawn().unwrap());
            let give_up = Instant::now() + PATIENCE;
            while std::os::unix::net::UnixStream::connect(&path).is_err() {
                assert!(Instant::now() < give_up, "{kind} does not listen: {:?}", server.0.try_wait());
                std::thread::sleep(Duration::from_millis(5));
            }
            kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
            assert_eq!(server.0.wait().unwrap().code(), Some(0), "{kind}");
            assert!(!path.exists());
        }
        let output = with(&arguments, full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(errors(&output).contains("standard output: No space left"), "{output:?}");
        assert!(!path.exists());
        let _ =
            std::fs::remove_file(path.with_file_name(format!("{}.lock", path.file_name().unwrap().to_str().unwrap())));
    }
}

fn with(arguments: &[&str], stdout: fn() -> Stdio) -> Command {
    let mut command = flipcall(arguments);
    command.stdout(stdout());
    command
}

/// A server that a failed test does not leave behind.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}
