//! Which system calls each role of the library makes: the lists of docs/confinement.md are installed as seccomp filters, and everything
//! has to work under them.
//!
//! `FLIPCALL_TRACE=1 cargo test --test confinement -- --nocapture lists` prints what `strace` sees of each role, in the form of that page.
//!
//! System calls have other names elsewhere, so this is for the machine that the page was written on.
#![cfg(all(target_arch = "x86_64", target_env = "gnu"))]

#[path = "../attacker/mod.rs"]
mod attacker;

mod filter;
mod frames;
mod old_kernels;
mod page;
mod peers;
mod refused;
mod roles;
mod trace;

use std::cell::Cell;

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    refused::ends_by_an_error_of_the_story(|| attacker::play(&[roles::ROLES, roles::CHILDREN]));
}

/// What the threads of a role take to settle.
const SETTLED: std::time::Duration = std::time::Duration::from_millis(30);

/// What the tests themselves need: a pause.
pub const OF_THE_TESTS: &str = "clock_nanosleep";

/// When a filter is installed in a role.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Never: the process is traced, or merely runs.
    Never,
    /// Before the role begins.
    AtOnce,
    /// After its first call.
    AfterTheFirstCall,
}

/// What the filter of a role does.
#[derive(Default)]
enum Filter {
    /// Nothing: there is none.
    #[default]
    None,
    /// Kills for every other system call.
    AllowOnly(Vec<String>),
    /// Answers one system call with an error number, or only calls with a certain argument.
    Refuse(String, Option<(u32, u32, bool)>, i32),
    /// No filter: an empty directory in the place of another.
    Hide(String),
}

/// The parts of a role's life.
pub struct Phases {
    when: When,
    filter: Cell<Filter>,
}

impl Phases {
    /// Begins the role. The argument: when to install a filter, and what it allows, or the one call that it refuses and how.
    pub fn begin(argument: &str) -> Self {
        let (when, rest) = argument.split_once(' ').unwrap_or((argument, ""));
        let filter = match rest.strip_prefix("refuse ") {
            Some(rest) => refused::parse(rest),
            None => Filter::AllowOnly(rest.split(',').map(str::to_owned).collect()),
        };
        let when = match when {
            "at-once" => When::AtOnce,
            "after" => When::AfterTheFirstCall,
            _ => When::Never,
        };
        let phases = Self { when, filter: Cell::new(filter) };
        phases.enter(When::AtOnce, "begins");
        phases
    }

    /// The first call was answered.
    pub fn called(&self) {
        self.enter(When::AfterTheFirstCall, "called");
    }

    /// The last call was answered.
    pub fn ends(&self) {
        self.enter(When::Never, "ends");
    }

    fn enter(&self, when: When, mark: &str) {
        // Threads that were just started have come to where they wait.
        std::thread::sleep(SETTLED);
        if self.when == When::Never {
            // A system call that a trace shows.
            let _ = std::fs::metadata(format!("/phase/{mark}"));
        } else if self.when == when {
            match self.filter.take() {
                Filter::None => {}
                Filter::AllowOnly(names) => filter::allow_only(&names),
                Filter::Hide(path) => hide(&path),
                Filter::Refuse(name, None, errno) => filter::refuse(&name, errno),
                Filter::Refuse(name, Some(argument), errno) => filter::refuse_where(&name, argument, errno),
            }
        }
    }
}

/// Nothing is in the directory `path` any more, for this process and its children.
fn hide(path: &str) {
    let empty = std::env::temp_dir().join(format!("flipcall-empty-{}", std::process::id()));
    std::fs::create_dir(&empty).expect("a directory");
    attacker::raw::cover(path, empty.to_str().expect("a name")).expect("a mount namespace");
    std::fs::remove_dir(&empty).expect("its own directory");
    assert!(std::fs::read_dir(path).expect("a directory").next().is_none(), "{path} is not empty");
}
