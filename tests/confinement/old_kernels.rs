//! What old kernels, gVisor and filters of containers lack, and this library does without: every role works to its end.
//!
//! The table is that of `flipcall doctor`: what is missing there costs what its line says, and nothing else.

use crate::attacker::{alone, full, skip};
use crate::refused::{ERRNOS, Trial, WHEN, attempt, run};
use crate::roles::ROLES;

/// Which calls fail: all of a name, or those with an argument (its place, bits of its value, whether it has no others). And with what, if not
/// with each of [`ERRNOS`].
struct Lack {
    call: &'static str,
    argument: Option<(u32, u32, bool)>,
    errno: Option<(i32, &'static str)>,
}

const fn lack(call: &'static str) -> Lack {
    Lack { call, argument: None, errno: None }
}

const fn lack_with(call: &'static str, errno: (i32, &'static str)) -> Lack {
    Lack { call, argument: None, errno: Some(errno) }
}

const fn lack_of(call: &'static str, at: u32, value: u32, errno: (i32, &'static str)) -> Lack {
    Lack { call, argument: Some((at, value, true)), errno: Some(errno) }
}

const EINVAL: (i32, &str) = (libc::EINVAL, "EINVAL");
const ENOSYS: (i32, &str) = (libc::ENOSYS, "ENOSYS");
const EPERM: (i32, &str) = (libc::EPERM, "EPERM");
const ENOPROTOOPT: (i32, &str) = (libc::ENOPROTOOPT, "ENOPROTOOPT");

const SO_PEERPIDFD: u32 = 77;
const SO_PASSRIGHTS: u32 = 83;

const LACKS: [Lack; 21] = [
    // Linux 5.16, 5.3, 2.6.36, 3.17, 4.11: what each came with.
    lack("futex_waitv"),
    lack("pidfd_open"),
    lack("prlimit64"),
    // The test's own child has hash maps, which do not stand EINVAL.
    lack_with("getrandom", ENOSYS),
    lack_with("getrandom", EPERM),
    lack_with("statx", ENOSYS),
    // gVisor knows the call and not the advice; so do kernels before 4.14.
    lack_of("madvise", 2, libc::MADV_WIPEONFORK as u32, EINVAL),
    lack("madvise"),
    // The flag is of 6.3, the seal of 5.1.
    Lack { call: "memfd_create", argument: Some((1, libc::MFD_NOEXEC_SEAL, false)), errno: Some(EINVAL) },
    lack_of("fcntl", 2, (libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL) as u32, EINVAL),
    // 6.5 and 6.16.
    lack_of("getsockopt", 2, SO_PEERPIDFD, ENOPROTOOPT),
    lack_of("getsockopt", 2, SO_PEERPIDFD, EINVAL),
    lack_of("setsockopt", 2, SO_PASSRIGHTS, ENOPROTOOPT),
    lack_of("setsockopt", 2, SO_PASSRIGHTS, EINVAL),
    lack("epoll_create1"),
    lack("epoll_pwait"),
    lack("sched_yield"),
    lack("sched_getaffinity"),
    // The name of a thread, and its signals.
    lack("prctl"),
    lack("rt_sigprocmask"),
    lack("sigaltstack"),
];

fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (role, _) in ROLES {
        for Lack { call, argument, errno } in LACKS {
            for errno in errno.map_or(ERRNOS.to_vec(), |errno| vec![errno]) {
                for when in WHEN {
                    trials.push(Trial { role: (*role).to_owned(), call: call.to_owned(), argument, when, errno });
                }
            }
        }
    }
    trials
}

/// Issue 13, C18.
#[test]
fn what_old_kernels_and_filters_lack_is_done_without() {
    let _alone = alone();
    let chosen = std::env::var("FLIPCALL_REFUSED").unwrap_or_default();
    let mut trials = trials();
    trials.retain(|trial| trial.name().contains(&chosen));
    if !full() && chosen.is_empty() {
        // A step that is prime to the sizes of the table meets each of its sides.
        trials = trials.into_iter().step_by(STEP).collect();
    }
    expect_to_work(&trials);
}

/// Issue 13, C18: a chroot or a container may have no `/proc`.
#[test]
fn every_role_works_without_proc() {
    if !rustix::process::geteuid().is_root() {
        return skip("a process without /proc", "that takes root");
    }
    let _alone = alone();
    let without = |(role, _): &crate::attacker::Role| Trial {
        role: (*role).to_owned(),
        call: "/proc".to_owned(),
        argument: None,
        when: "at-once",
        errno: (0, "is empty"),
    };
    expect_to_work(&ROLES.iter().map(without).collect::<Vec<_>>());
}

fn expect_to_work(trials: &[Trial]) {
    let works = |trial: &Trial| attempt(trial).and_then(|how| if how == "works" { Ok(how) } else { Err(how) });
    let failures = run(trials, works);
    assert!(failures.is_empty(), "{} of {} trials:\n{}", failures.len(), trials.len(), failures.join("\n"));
}

/// The short form takes one trial of so many.
const STEP: usize = 17;
