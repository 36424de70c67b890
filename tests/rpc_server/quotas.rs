//! Issue 13, B14: quotas count by user as well as by process, and the one refused is told so.

use std::os::unix::process::CommandExt;
use std::path::Path;

use flipcall::ErrorKind;
use flipcall::rpc::{Client, ClientConfig, Router, ServerConfig};
use flipcall::stream::Access;

use crate::attacker::{Role, Stage, alone, command, many_descriptors, skip};
use crate::serving::{PATIENCE, Serving};

pub const ROLES: &[Role] = &[("connects often", connects_often)];

/// Connects to the path of its argument until it is refused, says how often it could, and why no more, and holds what it has.
fn connects_often(stage: Stage) {
    let mut held = Vec::new();
    let refused = loop {
        match Client::connect(Path::new(&stage.argument), ClientConfig::new(), PATIENCE) {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused:#}");
    stage.control.say(&format!("{}: {refused:#}", held.len()));
    let _ = stage.control.listen();
}

#[test]
fn a_program_that_forks_gets_half_of_a_server() {
    let _alone = alone();
    many_descriptors();
    let config = ServerConfig::new().connections(12).access(Access::Everyone);
    let serving = Serving::start(Router::new(), config);
    let path = serving.path().to_str().unwrap();
    let start = |user: Option<u32>| {
        let (mut command, control) = command("connects often", path, &[]);
        if let Some(user) = user {
            command.uid(user);
        }
        command.spawn().map(|child| (child, control))
    };
    let mut processes = Vec::new();
    for (count, why) in [
        (3, "too many connections from this process (limit 3)"),
        (3, "too many connections from this user (limit 6)"),
        (0, "too many connections from this user (limit 6)"),
    ] {
        let (child, control) = start(None).unwrap();
        let said = control.hear();
        assert!(said.starts_with(&format!("{count}: ")) && said.contains(why), "{said}");
        processes.push((child, control));
    }
    match rustix::process::getuid().is_root().then(|| start(Some(65_533))) {
        Some(Ok((child, control))) => {
            let said = control.hear();
            assert!(said.starts_with("3: "), "another user has a share of its own: {said}");
            processes.push((child, control));
        }
        _ => skip("another user's share", "only root can become another user"),
    }
    assert_eq!(serving.handle.counters().refused, processes.len() as u64);
    for (mut child, control) in processes {
        drop(control);
        let _ = child.wait();
    }
}
