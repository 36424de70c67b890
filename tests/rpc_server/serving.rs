//! A server in this process, on a socket file of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flipcall::rpc::{Router, Server, ServerConfig, ServerHandle};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs, closed when dropped.
pub struct Serving {
    pub handle: ServerHandle,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    pub fn start(router: Router, config: ServerConfig) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("flipcall-server-{}-{number}.sock", std::process::id()));
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
