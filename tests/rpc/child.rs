//! A server in a child of the test process, started from the test's own executable.

use std::process::{Command, Stdio};
use std::time::Duration;

use flipcall::process::{ChildProcess, InheritedFds};
use flipcall::rpc::{Client, ClientConfig, Router, Server, inherited_socket};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Serves in the child. Each test file has an ignored test `as_the_server` that calls it.
pub fn serve(router: Router) {
    #[allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]
    // SAFETY: what is inheritable in this process was left to it by its parent, and nothing owns it.
    let inherited = unsafe { InheritedFds::claim() };
    let Ok(socket) = inherited_socket(&inherited) else { return };
    let _ = Server::new(router, Default::default()).serve_one(socket);
}

/// Starts the child.
pub fn start(config: ClientConfig) -> (Client, ChildProcess) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_the_server", "--ignored"]).stdout(Stdio::null());
    Client::spawn(command, config, PATIENCE).unwrap()
}
