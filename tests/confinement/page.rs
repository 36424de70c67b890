//! The lists of docs/confinement.md, tried.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::attacker::{self, alone, command, command_under, skip};
use crate::peers::Peer;
use crate::roles::ROLES;
use crate::{OF_THE_TESTS, trace};

/// A row of the page: the role, and the lists of its phases.
pub struct Row {
    pub role: String,
    pub phases: [Vec<String>; 3],
}

pub fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/confinement.md")).expect("the page")
}

/// The cells of a row of a table.
fn cells(line: &str) -> Vec<&str> {
    let line = line.trim();
    let inside = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inside.map(|inside| inside.split('|').map(str::trim).collect()).unwrap_or_default()
}

fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The groups of system calls that the page gives names to.
pub fn groups(page: &str) -> BTreeMap<String, Vec<String>> {
    let rows = page.lines().map(cells).filter(|cells| cells.len() == 3);
    rows.filter_map(|cells| Some((names(cells[0]).first()?.clone(), names(cells[1])))).collect()
}

/// The rows of the page's tables whose first cell is the name of a role, groups written out.
pub fn rows(page: &str) -> Vec<Row> {
    let groups = groups(page);
    let always = groups.get("runtime").expect("what every process does").iter();
    let lists = |cell: &str| {
        let listed = names(cell);
        let written_out =
            listed.iter().flat_map(|name| groups.get(name).cloned().unwrap_or_else(|| vec![name.clone()]));
        written_out.chain(always.clone().cloned()).collect()
    };
    page.lines()
        .filter_map(|line| {
            let [role, before, after, end] = cells(line)[..] else { return None };
            let role = names(role).first()?.clone();
            let known = ROLES.iter().any(|(name, _)| *name == role);
            known.then(|| Row { role, phases: [lists(before), lists(after), lists(end)] })
        })
        .collect()
}

/// What a phase does, in the words of the page: a group where what tells it by is there.
fn in_groups(calls: &BTreeSet<String>, groups: &BTreeMap<String, Vec<String>>) -> String {
    let mut left = calls.clone();
    let mut found = Vec::new();
    for (group, members) in groups {
        let shown = TOLD_BY.iter().any(|(name, call)| name == group && calls.contains(*call));
        if shown || group == "runtime" {
            left.retain(|call| !members.contains(call));
            found.extend(shown.then(|| group.clone()));
        }
    }
    found.extend(left);
    found.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
}

/// Groups, and the system call that tells that all of it is meant.
const TOLD_BY: [(&str, &str); 4] =
    [("channel", "memfd_create"), ("thread", "clone3"), ("watch", "epoll_create1"), ("window", "fstatfs")];

/// Plays a role under a filter: how its process ended.
fn play(role: &str, argument: &str) -> ExitStatus {
    run(role, |fds| command(role, argument, fds))
}

type Fds<'a> = &'a [std::os::fd::BorrowedFd<'a>];

fn run(role: &str, make: impl FnOnce(Fds<'_>) -> (Command, attacker::control::Control)) -> ExitStatus {
    let mut peer = Peer::of(role);
    let fds = std::mem::take(&mut peer.fds);
    let (mut command, control) = make(&fds.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    let mut child = command.spawn().expect("starting the second process");
    drop((command, fds));
    let said = if crate::roles::says_its_path(role) { control.hear() } else { String::new() };
    let part = peer.start(said.clone());
    let status = child.wait().expect("it ends");
    crate::roles::forget_path(Path::new(&said));
    part.join().expect("the peer does not panic");
    status
}

#[test]
fn every_role_works_with_the_calls_that_the_page_lists() {
    let _alone = alone();
    let rows = rows(&page());
    let missing: Vec<_> = ROLES.iter().filter(|(role, _)| rows.iter().all(|row| row.role != *role)).collect();
    assert!(missing.is_empty(), "no row for {:?}", missing.iter().map(|(role, _)| role).collect::<Vec<_>>());
    for Row { role, phases: [before, after, end] } in rows {
        let later = [after, end].concat();
        let all = [before, later.clone()].concat();
        // A filter that is there when a child is started is the child's, too.
        let at_once = (!role.starts_with("spawner")).then_some(("at-once", all));
        for (when, allowed) in at_once.into_iter().chain([("after", later)]) {
            let status =
                play(&role, &format!("{when} {}", [allowed, vec![OF_THE_TESTS.to_owned()]].concat().join(",")));
            assert!(status.success(), "{role}, filter {when}: {status}");
        }
    }
}

#[test]
fn a_call_that_is_not_listed_kills() {
    let _alone = alone();
    let status = play("window client, park", "at-once exit_group");
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
}

#[test]
fn lists() {
    if std::env::var_os("FLIPCALL_TRACE").is_none() {
        return;
    }
    let _alone = alone();
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("the lists", "there is no strace");
    }
    let groups = groups(&page());
    for (role, _) in ROLES {
        // Threads meet at other moments in each run.
        let mut all = trace::Calls::default();
        for _ in 0..RUNS {
            let file = std::env::temp_dir().join(format!("flipcall-trace-{}", std::process::id()));
            let tracer = ["strace", "-f", "-o", file.to_str().expect("a path")];
            let status = run(role, |fds| command_under(&tracer, role, "never", fds));
            assert!(status.success(), "{role}: {status}");
            all.iter_mut().zip(trace::read(&file)).for_each(|(all, calls)| all.extend(calls));
            std::fs::remove_file(&file).expect("its own file");
        }
        println!("| `{role}` | {} |", all.map(|calls| in_groups(&calls, &groups)).join(" | "));
    }
}

/// Runs of each role under strace.
const RUNS: usize = 3;
