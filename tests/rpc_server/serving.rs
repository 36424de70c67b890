//! Servers on socket files of their own: in this process, and in one of their own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flipcall::rpc::codec::Raw;
use flipcall::rpc::{Router, Server, ServerConfig, ServerHandle};

use crate::attacker::{Peer, Role, Stage};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const ROLES: &[Role] = &[("serves", serves)];

/// Methods of the server in a process of its own.
pub const ECHO: u16 = 1;
pub const ADD: u16 = 2;
/// Answers when its caller is gone, and not before.
pub const WAIT: u16 = 3;
/// Streams chunks without end.
pub const STREAM: u16 = 4;

/// The methods.
pub fn router() -> Router {
    let mut router = Router::new();
    router.unary(ECHO, |_, bytes: Vec<u8>| Ok(bytes));
    router.unary(ADD, |_, (a, b): (u64, u64)| Ok(a + b));
    router.unary(WAIT, |context, ()| {
        context.cancel_token().wait(Duration::MAX);
        Ok(())
    });
    router.streaming(STREAM, |_, _, mut chunks| {
        loop {
            chunks.send(&Raw(&[7; 1000]))?;
        }
    });
    router
}

/// Serves on a path with a patience in milliseconds, both in its argument, until it is killed.
fn serves(stage: Stage) {
    let (path, patience) = stage.argument.rsplit_once(' ').expect("a path and a number");
    let patience = Duration::from_millis(patience.parse().expect("a number"));
    let server = Server::new(router(), ServerConfig::new().patience(patience));
    let listener = server.bind(path).expect("a socket file");
    stage.control.say("serving");
    server.serve(listener).expect("the server accepts for ever");
}

/// A path for a socket.
pub fn fresh_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("flipcall-server-{}-{number}.sock", std::process::id()))
}

/// A server in a process of its own, killed when dropped.
pub struct Served {
    pub peer: Peer,
    pub path: PathBuf,
}

impl Served {
    pub fn start(patience: Duration) -> Self {
        let path = fresh_path();
        let peer = Peer::start("serves", &format!("{} {}", path.display(), patience.as_millis()), &[]);
        peer.control.expect("serving");
        Self { peer, path }
    }

    /// Its process id.
    pub fn id(&self) -> String {
        self.peer.child.id().to_string()
    }

    /// The most memory that it has had in use, in bytes.
    pub fn peak(&self) -> u64 {
        peak(&self.id())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(format!("{}.lock", self.path.display()));
    }
}

/// The most memory that the process `pid` (or `self`) has had in use, in bytes.
pub fn peak(pid: &str) -> u64 {
    memory(pid, "VmHWM:")
}

/// A size in the status of the process `pid` (or `self`), in bytes.
pub fn memory(pid: &str, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
    let line = status.lines().find(|line| line.starts_with(what)).expect("a size");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") * 1024
}

/// A server in this process, closed when dropped.
pub struct Serving {
    pub handle: ServerHandle,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    pub fn start(router: Router, config: ServerConfig) -> Self {
        let path = fresh_path();
        let server = Server::new(router, config);
        let (handle, listener) = (server.handle(), server.bind(&path).expect("a socket file"));
        let thread = std::thread::spawn(move || server.serve(listener).expect("the server accepts until it is closed"));
        Self { handle, path, thread: Some(thread) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the server and waits until it no longer serves.
    pub fn close(&mut self) {
        self.handle.close(Duration::ZERO);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.close();
        let _ = std::fs::remove_file(format!("{}.lock", self.path.display()));
    }
}

/// Waits until `is_so`, for as long as anything may take.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}
