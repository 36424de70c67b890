//! `flipcall mux` against a client in another language that knows only the wire format.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

struct Server {
    child: Child,
    path: PathBuf,
}

impl Server {
    fn start(name: &str, args: &[&str]) -> Self {
        let path = std::env::temp_dir().join(format!("flipcall-{name}-{}.sock", std::process::id()));
        let mut child = command(&path).args(args).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("listening {}\n", path.display()));
        Self { child, path }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(format!("{}.lock", self.path.display()));
    }
}

fn command(path: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipcall"));
    command.arg("mux").arg("--socket").arg(path).stdout(Stdio::piped());
    command
}

fn run_client(server: &Server, args: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/stream_mux_client.py");
    let status = Command::new("python3").arg(script).arg(&server.path).args(args).status();
    match status {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            println!("skipped: no python3: {error}");
            assert!(std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none());
        }
    }
}

#[test]
fn the_peer_conforms_in_credit_mode() {
    run_client(&Server::start("credit", &[]), &[]);
}

#[test]
fn the_peer_conforms_in_plain_mode() {
    run_client(&Server::start("plain", &["--plain"]), &["plain"]);
}

#[test]
fn a_signal_ends_it_cleanly_and_removes_the_socket() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start("signal", &[]);
        let second = command(&server.path).stderr(Stdio::null()).status().unwrap();
        assert!(!second.success(), "a path that somebody listens on is refused");
        let mut client = UnixStream::connect(&server.path).unwrap();
        client.read_exact(&mut [0; 14]).unwrap();
        server.signal(signal);
        let mut last = Vec::new();
        client.read_to_end(&mut last).unwrap();
        assert_eq!(last, [0, 0, 0, 0, 0, 4, 7, 0, 0, 0], "goodbye, reason 0, no text");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
        assert!(!server.path.exists());
    }
}

#[test]
fn a_stale_socket_is_replaced_and_another_ones_file_stays() {
    let mut server = Server::start("stale", &[]);
    server.signal(Signal::KILL);
    server.child.wait().unwrap();
    assert!(server.path.exists());
    let mut second = Server::start("stale", &[]);
    // Somebody replaces the file: it is not the server's to remove any more.
    std::fs::remove_file(&second.path).unwrap();
    std::fs::write(&second.path, "not a socket").unwrap();
    second.signal(Signal::TERM);
    assert_eq!(second.child.wait().unwrap().code(), Some(0));
    assert!(second.path.exists());
    let refused = command(&second.path).stderr(Stdio::null()).status().unwrap();
    assert!(!refused.success(), "a file that is no socket is refused");
}
