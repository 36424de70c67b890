//! What gVisor's endpoint does under the attacks of the threat model that a bare endpoint can suffer, and what ours does: the same
//! hostile server against both. `docs/interop.md` has the table. Every wait is bounded, and a victim that is stuck is killed.

use std::fs::File;
use std::io::Seek;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::endpoint::{Counters, Options};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::ours::Ours;
use crate::place::Place;
use crate::process::{Kind, PATIENCE, Running, Side};
use crate::siege::{STUCK, attacker, cpu_share, peak_private_memory, victim, watching_victim};

/// So many calls that a victim never comes to the end of them.
const ENDLESS: [&str; 4] = ["--calls", "1000000000", "--payload", "48"];

/// Both victims end with an error that names what the attacker did.
#[track_caller]
fn both_fail(attack: &str, arguments: &[&str], gvisor: &str) {
    for (kind, error) in [(Kind::Go, gvisor), (Kind::Rust, "violation")] {
        let place = Place::allocate(48);
        let Some(attacker) = attacker(&place, attack, arguments) else { return };
        victim(kind, &place, &ENDLESS).finish().failed_with(error);
        drop(attacker);
    }
}

#[test]
fn unknown_states() {
    for state in ["3", "2147483648", "4294967295"] {
        both_fail("state", &["--value", state], "unexpected connection state");
    }
}

#[test]
fn a_length_over_the_capacity() {
    both_fail("length", &[], "invalid datagram length");
}

#[test]
fn a_length_that_changes_under_our_eyes() {
    both_fail("length-race", &[], "invalid datagram length");
}

#[test]
fn an_answer_that_never_comes() {
    let place = Place::allocate(48);
    let Some(silent) = attacker(&place, "silent", &[]) else { return };
    let mut gvisor = victim(Kind::Go, &place, &ENDLESS);
    silent.says("ready");
    assert!(gvisor.outlasts(STUCK), "{:?}", gvisor.finish());

    let place = Place::allocate(48);
    let Some(silent) = attacker(&place, "silent", &[]) else { return };
    let mut ours = victim(Kind::Rust, &place, &ENDLESS);
    silent.says("ready");
    assert!(!ours.outlasts(STUCK), "the deadline is 300 ms");
    ours.finish().failed_with("timeout");
}

#[test]
fn a_peer_that_dies() {
    let place = Place::allocate(48);
    let Some(mut silent) = attacker(&place, "silent", &[]) else { return };
    let mut gvisor = victim(Kind::Go, &place, &ENDLESS);
    silent.says("ready");
    silent.kill();
    assert!(gvisor.outlasts(STUCK), "{:?}", gvisor.finish());

    let place = Place::allocate(48);
    let Some(mut silent) = attacker(&place, "silent", &[]) else { return };
    let mut ours = watching_victim(&place, &silent);
    silent.says("ready");
    silent.kill();
    assert!(!ours.outlasts(Duration::from_secs(1)), "ten times the bound of 100 ms");
    ours.finish().failed_with("peer-gone");
}

/// A gVisor client that is blocked in a call, under attack, at the moment that another goroutine of it calls Shutdown.
fn gvisor_shutting_down(attack: &str) -> Option<(Running, Running)> {
    let place = Place::allocate(48);
    let attacker = attacker(&place, attack, &[])?;
    let gvisor = victim(Kind::Go, &place, &["--shutdown", "during", "--calls", "0", "--delay-ms", "3000"]);
    attacker.says("ready");
    assert_eq!(gvisor.line(Duration::ZERO), None, "the attack came too late");
    gvisor.says("shutdown=called");
    Some((attacker, gvisor))
}

/// Our client in the same position: the shutdown returns at once, and so does the call. Returns what the endpoint counted.
fn ours_shutting_down(attack: &str) -> Counters {
    let place = Place::allocate(48);
    let attacker = attacker(&place, attack, &[]).expect("gVisor's victim had one");
    let ours = Ours::new(Side::Client, &place, Options::new());
    let handle = ours.handle();
    let calling = std::thread::spawn(move || (ours.run(u64::MAX).expect_err("no answer"), Instant::now()));
    attacker.says("ready");
    let began = Instant::now();
    handle.shut_down();
    let returned = began.elapsed();
    let (error, ended) = calling.join().expect("an error, not a panic");
    assert_eq!(error.kind(), ErrorKind::LocalShutdown, "{attack}: {error}");
    // Both are a matter of microseconds; gVisor's victims are given two seconds before they count as stuck.
    assert!(returned < STUCK / 10, "{attack}: shutdown took {returned:?}");
    assert!(ended - began < STUCK / 10, "{attack}: the call took {:?} to end", ended - began);
    handle.counters()
}

#[test]
fn a_requeued_waiter() {
    let Some((_attacker, mut gvisor)) = gvisor_shutting_down("requeue") else { return };
    assert_eq!(gvisor.line(STUCK), None, "Shutdown itself hangs");
    assert!(gvisor.outlasts(Duration::from_millis(1)), "it still hangs");
    // It wakes nobody, again and again; how often depends on what else the machine does.
    println!("it keeps {:.0}% of a CPU", cpu_share(&gvisor, Duration::from_millis(500)) * 100.0);
    gvisor.kill();
    ours_shutting_down("requeue");
}

#[test]
fn a_priority_inheriting_waiter() {
    let Some((_attacker, mut gvisor)) = gvisor_shutting_down("pi") else { return };
    let line = gvisor.line(PATIENCE).expect("Shutdown returns");
    assert!(line.starts_with("shutdown=returned"), "{line}");
    assert!(gvisor.outlasts(STUCK), "the call that it was to end hangs");
    gvisor.kill();
    let counters = ours_shutting_down("pi");
    assert!(counters.wakes_failed > 0, "the lock is in the way of our wakes too: {counters:?}");
}

#[test]
fn a_thousand_waiters() {
    let Some((_attacker, gvisor)) = gvisor_shutting_down("waiters") else { return };
    let ended = gvisor.finish().succeeded();
    assert!(ended.lines[0].starts_with("shutdown=returned"), "{ended:?}");
    ours_shutting_down("waiters");
}

#[test]
fn a_storm_of_wakes() {
    let mut shares = Vec::new();
    for kind in [Kind::Go, Kind::Rust] {
        let place = Place::allocate(48);
        let Some(storm) = attacker(&place, "storm", &[]) else { return };
        let victim = match kind {
            Kind::Go => victim(kind, &place, &ENDLESS),
            Kind::Rust => watching_victim(&place, &storm),
        };
        storm.says("ready");
        shares.push(cpu_share(&victim, Duration::from_secs(1)));
    }
    println!(
        "under a storm of wakes gVisor's endpoint uses {:.0}% of a CPU, ours {:.0}%",
        shares[0] * 1e2,
        shares[1] * 1e2
    );
    // Ten times the bound of 5% leaves no room for the noise of a busy machine; half of that is still what a defence must beat.
    assert!(shares[1] < 0.25, "{shares:?}");
}

#[test]
fn holes_in_the_window() {
    for kind in [Kind::Go, Kind::Rust] {
        let place = Place::allocate(65_520);
        let Some(punch) = attacker(&place, "punch", &["--payload", "65520"]) else { return };
        let punched = victim(kind, &place, &["--calls", "300", "--payload", "65520"]);
        punched.finish().succeeded();
        punch.says("ready");
        assert_eq!(punch.line(Duration::ZERO), None, "every hole was punched");
    }
}

#[test]
fn a_sealed_file_keeps_its_length() {
    for kind in [Kind::Go, Kind::Rust] {
        let place = Place::allocate(48);
        let Some(truncate) = attacker(&place, "truncate", &["--payload", "48"]) else { return };
        victim(kind, &place, &["--calls", "1", "--payload", "48"]).finish().succeeded();
        assert_eq!(truncate.line(PATIENCE).as_deref(), Some("truncate: operation not permitted"));
    }
}

/// Bytes of a datagram that takes some milliseconds to look at, so that a truncation falls into that time.
const LONG: &str = "16000000";

/// A window in a file that nothing keeps from shrinking.
fn unsealed() -> Place {
    const LENGTH: u32 = 16 << 20;
    let fd = memfd_create("unsealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&fd, u64::from(LENGTH)).expect("room for the window");
    Place { fd, offset: 0, length: LENGTH }
}

#[test]
fn an_unsealed_file_is_cut_under_our_feet() {
    // An attacker that is not scheduled in time misses its victim, and tries again.
    for attempt in 1.. {
        let place = unsealed();
        let Some(_truncate) = attacker(&place, "truncate", &["--payload", LONG]) else { return };
        let mut gvisor = victim(Kind::Go, &place, &["--calls", "2", "--payload", LONG]);
        if gvisor.outlasts(STUCK) && attempt < 5 {
            continue;
        }
        let ended = gvisor.finish();
        assert_eq!(ended.status.code(), Some(2), "the Go runtime gives up: {ended:?}");
        assert!(ended.errors.contains("SIGBUS"), "{ended:?}");
        break;
    }
    victim(Kind::Rust, &unsealed(), &ENDLESS).finish().failed_with("F_SEAL_SHRINK");
}

#[test]
fn a_file_on_a_disk_serves_gvisor_as_a_window() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("window-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).expect("a file");
    std::fs::remove_file(&path).expect("it is ours");
    file.set_len(4096).expect("room for a page");
    file.rewind().expect("a seekable file");
    let place = Place { fd: file.into(), offset: 0, length: 4096 };
    let Some(_attacker) = attacker(&place, "silent", &[]) else { return };
    victim(Kind::Go, &place, &["--calls", "0"]).finish().succeeded();
    victim(Kind::Rust, &place, &["--calls", "0"]).finish().failed_with("refused");
}

#[test]
fn handshakes_that_are_not_what_they_should_be() {
    for (hello, gvisor_accepts) in
        [("hello-garbage", false), ("hello-trailing", true), ("hello-newline", true), ("hello-deep", true)]
    {
        let place = Place::allocate(4080);
        let Some(_attacker) = attacker(&place, hello, &[]) else { return };
        let gvisor = victim(Kind::Go, &place, &["--calls", "0"]).finish();
        match gvisor_accepts {
            true => gvisor.succeeded(),
            false => gvisor.failed_with("error reading connection response"),
        };
        let place = Place::allocate(4080);
        let Some(_attacker) = attacker(&place, hello, &[]) else { return };
        victim(Kind::Rust, &place, &["--calls", "0"]).finish().failed_with("violation");
    }
}

#[test]
fn a_handshake_of_64_mebibytes() {
    const SIZE: u32 = 64 << 20;
    let mut peaks = Vec::new();
    for kind in [Kind::Go, Kind::Rust] {
        let place = Place::allocate(SIZE - 16);
        let Some(attacker) = attacker(&place, "hello-huge", &[]) else { return };
        let mut client = match kind {
            Kind::Go => victim(kind, &place, &["--calls", "0"]),
            Kind::Rust => watching_victim(&place, &attacker),
        };
        peaks.push(peak_private_memory(&mut client));
        match kind {
            Kind::Go => client.finish().succeeded(),
            Kind::Rust => client.finish().failed_with("violation"),
        };
    }
    println!("a handshake of 64 MiB costs gVisor {} KiB of private memory, us {} KiB", peaks[0], peaks[1]);
    assert!(peaks[0] > u64::from(SIZE / 1024), "gVisor decodes it whole: {peaks:?} KiB");
    assert!(peaks[1] < 16 * 1024, "we refuse it by its length: {peaks:?} KiB");
}
