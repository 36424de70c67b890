//! A server leaves its process's limit of open descriptors alone, and fits its own limits to it.

use std::process::{Command, ExitStatus};

use flipcall::rpc::{Router, Server, ServerConfig, raise_descriptor_limit};
use rustix::process::{Resource, getrlimit};

/// The soft limit that the child is started with: far below what the defaults of a server need.
const SOFT: u64 = 300;

/// Runs a test of this file in a process that was started with a low soft limit.
fn run_with_low_limit(test: &str) -> ExitStatus {
    let script = format!("ulimit -S -n {SOFT} && exec \"$@\"");
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").arg(program).args(["--exact", test, "--ignored"]);
    command.status().unwrap()
}

fn soft_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The soft limit that a program finds which this process starts.
fn limit_of_a_child() -> String {
    let output = Command::new("sh").args(["-c", "ulimit -S -n"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_server_raises_no_limit_unless_asked() {
    assert!(run_with_low_limit("as_the_child").success());
}

#[test]
#[ignore = "the child of another test"]
fn as_the_child() {
    assert_eq!(soft_limit(), Some(SOFT));
    let wanted = ServerConfig::new();
    let server = Server::new(Router::new(), wanted.clone());
    assert_eq!(soft_limit(), Some(SOFT), "a server changed the limit of its process");
    assert_eq!(limit_of_a_child(), SOFT.to_string(), "a child inherits another limit");
    let fitted = server.config();
    let descriptors = 2 * u64::from(fitted.get_connections()) + 2 * u64::from(fitted.get_channels_total());
    assert!(descriptors < SOFT, "{fitted:?} needs {descriptors} descriptors");
    assert!(fitted.get_connections() > 0 && fitted.get_channels_total() > 0, "{fitted:?}");
    let only_lowered = fitted.clone().connections(wanted.get_connections()).channels_total(wanted.get_channels_total());
    assert_eq!(only_lowered, wanted, "other choices changed as well");

    let hard = getrlimit(Resource::Nofile).maximum;
    let raised = raise_descriptor_limit().unwrap();
    assert_eq!(raised, hard.unwrap_or(u64::MAX));
    assert_eq!(soft_limit(), hard);
    assert_eq!(raise_descriptor_limit().unwrap(), raised, "asking twice changes nothing");
    let roomy = Server::new(Router::new(), wanted.clone());
    assert!(roomy.config().get_connections() > server.config().get_connections(), "{:?}", roomy.config());
}
