//! Hostile and dying peers in processes of their own. `FLIPCALL_FULL=1` runs the long form.
//!
//! No test harness: the same program is started again as the other process.

mod attachments;
mod credit;
mod crowd;
mod deadlines;
mod kills;
mod memory;
mod unshared;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "child") {
        return child(&args[2]);
    }
    let tests: [(&str, fn()); 16] = [
        ("deadlines_hold_while_the_peer_toggles_flags", deadlines::deadlines_hold_while_the_peer_toggles_flags),
        (
            "a_wait_without_a_deadline_survives_toggled_flags",
            deadlines::a_wait_without_a_deadline_survives_toggled_flags,
        ),
        ("deadlines_hold_on_sockets_of_our_own", unshared::deadlines_hold_on_sockets_of_our_own),
        ("a_shutdown_ends_a_wait_without_a_deadline", unshared::a_shutdown_ends_a_wait_without_a_deadline),
        ("a_deadline_holds_under_signals", unshared::a_deadline_holds_under_signals),
        ("the_deadline_of_a_file_holds", unshared::the_deadline_of_a_file_holds),
        ("half_a_frame_is_cut_off_whatever_the_peer_sets", deadlines::half_a_frame_is_cut_off_whatever_the_peer_sets),
        ("a_dripping_peer_is_cut_off", deadlines::a_dripping_peer_is_cut_off),
        ("a_relative_deadline_counts_once", deadlines::a_relative_deadline_counts_once),
        ("every_handle_learns_of_a_kill", kills::every_handle_learns_of_a_kill),
        ("a_kill_at_any_system_call_is_survived", kills::a_kill_at_any_system_call_is_survived),
        ("attachments_leak_nothing", attachments::attachments_leak_nothing),
        ("a_thousand_sockets_and_four_hostile_ones", crowd::a_thousand_sockets_and_four_hostile_ones),
        ("a_stalled_channel_holds_no_more_than_its_credit", credit::a_stalled_channel_holds_no_more_than_its_credit),
        ("a_flood_of_opens_is_cut_off_in_little_memory", memory::a_flood_of_opens_is_cut_off_in_little_memory),
        ("stalled_channels_hold_no_more_than_the_budget", memory::stalled_channels_hold_no_more_than_the_budget),
    ];
    // `cargo test NAME` filters by name; options of the harness that is not here are passed over.
    let filter = args.get(1).filter(|arg| !arg.starts_with('-'));
    for (name, test) in tests {
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            let start = Instant::now();
            test();
            println!("{name} ok {:.2} s", start.elapsed().as_secs_f64());
        }
    }
}

fn full() -> bool {
    std::env::var_os("FLIPCALL_FULL").is_some()
}

fn skip(why: &str) {
    println!("skipped: {why}");
    assert!(std::env::var_os("FLIPCALL_REQUIRE_ALL").is_none());
}

fn this() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// This program as the other process, our end of its standard input as the connection.
fn spawn(role: &str) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = this().args(["child", role]).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    (child, ours)
}

fn child(role: &str) {
    match role {
        "connect" => return unshared::connect(),
        "listen" => return unshared::listen(),
        "signals" => return unshared::wait_through_signals(),
        _ => {}
    }
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    match role {
        "toggle" => deadlines::toggle(&mut socket),
        "drip" => {
            for byte in [0u8, 7, 0, 0, 0, 200].into_iter().chain([1; 150]) {
                if socket.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        // Half a frame, and nothing else until the other side hangs up.
        "half" => {
            socket.write_all(&[0, 7, 0, 0, 0, 200, 1]).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            let _ = std::io::Read::read(&mut socket, &mut [0]);
        }
        "silent" => unshared::hold(&socket),
        "sip" => unshared::sip(&mut socket),
        "hoard" => deadlines::hoard(&mut socket),
        "victim" => drop(kills::victim(socket)),
        "attach" => attachments::attach(&mut socket),
        "refuse" => memory::refuse(socket),
        "stall" => memory::stall(socket),
        "hold" => thread::sleep(Duration::from_secs(3600)),
        _ => panic!("no child called {role}"),
    }
}

/// Descriptors and threads of this process.
fn resources() -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    (count("fd"), count("task"))
}

/// Waits until nothing is left of a test. Threads of the test before it may still have been there when `before` was taken.
fn settle(before: (usize, usize)) {
    let give_up = Instant::now() + SOON;
    while resources().0 > before.0 || resources().1 > before.1 {
        assert!(Instant::now() < give_up, "descriptors and threads: {:?} instead of {before:?}", resources());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Resident memory of a process in KiB.
fn rss_of(pid: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
