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
mod page;
mod peers;
mod roles;
mod trace;

use std::cell::Cell;

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[roles::ROLES, roles::CHILDREN]);
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

/// The parts of a role's life.
pub struct Phases {
    when: When,
    allowed: Cell<Vec<String>>,
}

impl Phases {
    /// Begins the role. The argument: when to install a filter, and what it allows.
    pub fn begin(argument: &str) -> Self {
        let (when, allowed) = argument.split_once(' ').unwrap_or((argument, ""));
        let when = match when {
            "at-once" => When::AtOnce,
            "after" => When::AfterTheFirstCall,
            _ => When::Never,
        };
        let phases = Self { when, allowed: Cell::new(allowed.split(',').map(str::to_owned).collect()) };
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
            filter::allow_only(&self.allowed.take());
        }
    }
}
