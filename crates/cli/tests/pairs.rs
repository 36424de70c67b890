//! `flipcall endpoint` against itself over an inherited memfd.

#[path = "../../../tests/attacker/mod.rs"]
mod attacker;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use flipcall::process::pass_descriptor;
use flipcall::window::Allocator;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use attacker::{PAGE, alone, arena, full, measured, skip};

const POLICIES: [&str; 3] = ["spin", "adaptive", "park"];
const PAYLOADS: [u32; 4] = [0, 1, 48, 4080];

/// `flipcall endpoint SIDE` on the first page of `file`, not started yet.
fn endpoint(side: &str, file: impl AsFd, arguments: &[&str]) -> Command {
    wrapped(Command::new(env!("CARGO_BIN_EXE_flipcall")), side, file, arguments)
}

/// The same, with the arguments of `command` before it.
fn wrapped(mut command: Command, side: &str, file: impl AsFd, arguments: &[&str]) -> Command {
    let number = pass_descriptor(&mut command, file).unwrap().to_string();
    command.args(["endpoint", side, "--fd", &number, "--offset", "0", "--length", &PAGE.to_string()]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child that does not outlive the test.
struct Running(Option<Child>);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(Some(command.spawn().expect("starting flipcall")))
    }

    /// Waits for the end of a process that says little.
    fn output(mut self, most: Duration) -> Output {
        let mut child = self.0.take().expect("it runs");
        let start = Instant::now();
        while child.try_wait().expect("wait").is_none() {
            if start.elapsed() > most {
                let _ = child.kill();
                panic!("flipcall still runs after {most:?}: {:?}", child.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait_with_output().expect("wait")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const MOMENT: Duration = Duration::from_secs(20);
/// A million calls on a busy machine.
const HOURGLASS: Duration = Duration::from_secs(600);

/// The numbers of the CPUs that this process may run on.
fn usable_cpus() -> Vec<String> {
    let set = rustix::thread::sched_getaffinity(None).expect("sched_getaffinity");
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).map(|cpu| cpu.to_string()).collect()
}

/// Where both sides run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cpus {
    /// The first and the last that there are: two sides that spin take 60 µs a call while they share a CPU.
    Apart,
    /// Two sides that sleep take 60 µs a call where each wake goes to an idle CPU, a tenth of it on one.
    Shared,
    /// Wherever the kernel puts them.
    Any,
}

/// Makes `calls` calls of each payload, with and without `--base`, and verifies every answer. Returns the number of calls.
fn pair(client: &str, server: &str, calls: u64, where_to: Cpus) -> u64 {
    let cpus = usable_cpus();
    let pin = |cpu: Option<&String>| cpu.map_or_else(Vec::new, |cpu| vec!["--cpu".to_string(), cpu.clone()]);
    let [pin_client, pin_server] = match where_to {
        Cpus::Apart => [pin(cpus.first()), pin(cpus.last())],
        Cpus::Shared => [pin(cpus.first()), pin(cpus.first())],
        Cpus::Any => [Vec::new(), Vec::new()],
    };
    let mut total = 0;
    for (payload, base) in PAYLOADS.into_iter().flat_map(|payload| [(payload, false), (payload, true)]) {
        let arena = arena(1);
        let base: &[&str] = if base { &["--base"] } else { &[] };
        let mut serving = endpoint("server", arena.fd(), &[&["--strict", "--policy", server], base].concat());
        serving.args(&pin_server);
        let server_process = Running::start(serving);
        let (count, size) = (calls.to_string(), payload.to_string());
        let arguments = [&["--policy", client, "--calls", &count, "--payload", &size], base].concat();
        let mut calling = endpoint("client", arena.fd(), &arguments);
        calling.args(&pin_client);
        let output = Running::start(calling).output(HOURGLASS);
        let name = format!("{client} calls {server}, {payload} bytes, {base:?}, CPUs {where_to:?}");
        assert!(output.status.success(), "{name}: {output:?}");
        let line = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = format!("calls={calls} bytes={} ns_per_call=", calls * u64::from(payload));
        assert!(line.starts_with(&expected), "{name}: {line}");
        let ended = server_process.output(MOMENT);
        assert!(ended.status.success(), "{name}: {ended:?}");
        if full() {
            println!("{name}: {}", line.trim());
        }
        total += calls;
    }
    total
}

/// A client of one policy against servers of every policy. The long form makes a million calls of each payload, with and without
/// `--base`: 24 million verified calls of one policy.
fn against_every_policy(client: &str) {
    let _alone = alone();
    let (start, mut total) = (Instant::now(), 0);
    for server in POLICIES {
        let both_sleep = client == "park" && server == "park";
        total += match (full(), both_sleep) {
            (false, _) => pair(client, server, 300, Cpus::Any),
            (true, false) => pair(client, server, 1_000_000, Cpus::Apart),
            // A few across CPUs as well, where every wake is that of an idle one.
            (true, true) => pair(client, server, 1_000_000, Cpus::Shared) + pair(client, server, 20_000, Cpus::Apart),
        };
    }
    measured(&format!("{client} calls, {total} verified calls"), format!("{:.1?}", start.elapsed()), "7 min");
}

#[test]
fn every_byte_is_verified_when_a_spinning_client_calls() {
    against_every_policy("spin");
}

#[test]
fn every_byte_is_verified_when_an_adaptive_client_calls() {
    against_every_policy("adaptive");
}

#[test]
fn every_byte_is_verified_when_a_parking_client_calls() {
    against_every_policy("park");
}

#[test]
fn one_side_that_knows_no_extension_is_enough_for_the_base_protocol() {
    let _alone = alone();
    for (client, server) in [(true, false), (false, true)] {
        let arena = arena(1);
        let option = |base: bool| if base { vec!["--base"] } else { vec![] };
        let _server = Running::start(endpoint("server", arena.fd(), &option(server)));
        let arguments =
            [vec!["--calls", "100", "--payload", "48", "--policy", "spin", "--counters"], option(client)].concat();
        let output = Running::start(endpoint("client", arena.fd(), &arguments)).output(MOMENT);
        assert!(output.status.success(), "{output:?}");
        let counters = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(counters.contains("wakes_elided: 0") && counters.contains("wakes_sent: 101"), "{counters}");
    }
}

/// gVisor's seals: no shrinking, no further seals.
fn growing_file() -> OwnedFd {
    let fd = memfd_create("growing", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, u64::from(PAGE)).unwrap();
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::SEAL).unwrap();
    fd
}

fn fails(output: &Output, kind: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains(&format!("flipcall: {kind}")), "{text}");
}

#[test]
fn strict_demands_what_compatible_does_not() {
    let _alone = alone();
    let file = growing_file();
    let _server = Running::start(endpoint("server", &file, &[]));
    let strict = Running::start(endpoint("client", &file, &["--strict"])).output(MOMENT);
    fails(&strict, "refused");
    assert!(String::from_utf8_lossy(&strict.stderr).contains("F_SEAL_GROW"), "{strict:?}");
    let compatible = Running::start(endpoint("client", &file, &["--calls", "10"])).output(MOMENT);
    assert!(compatible.status.success(), "{compatible:?}");
}

#[test]
fn a_deadline_ends_either_side() {
    let _alone = alone();
    for side in ["client", "server"] {
        let start = Instant::now();
        let output = Running::start(endpoint(side, arena(1).fd(), &["--deadline-ms", "50"])).output(MOMENT);
        fails(&output, "timeout");
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
}

#[test]
fn a_watched_descriptor_tells_of_a_death() {
    let _alone = alone();
    // A socket that hangs up.
    let file = arena(1);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipcall"));
    let watched = pass_descriptor(&mut command, theirs).unwrap().to_string();
    let client = Running::start(wrapped(command, "client", file.fd(), &["--watch-fd", &watched]));
    std::thread::sleep(Duration::from_millis(30));
    drop(ours);
    fails(&client.output(MOMENT), "peer-gone");

    // A process that is killed.
    let file = Allocator::with_size(u64::from(PAGE)).unwrap();
    let server = Running::start(endpoint("server", file.fd(), &[]));
    let process = rustix::process::Pid::from_child(server.0.as_ref().expect("it runs"));
    let pidfd = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipcall"));
    let watched = pass_descriptor(&mut command, pidfd).unwrap().to_string();
    let arguments = ["--watch-fd", &watched, "--calls", "1000000000"];
    let client = Running::start(wrapped(command, "client", file.fd(), &arguments));
    std::thread::sleep(Duration::from_millis(50));
    drop(server);
    fails(&client.output(MOMENT), "peer-gone");
}

/// What strace counted of a client of a spinning pair: its table. `None` where there is no strace.
fn traced(calls: &str, options: &[&str]) -> Option<String> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        skip("counting system calls", "strace is not installed");
        return None;
    }
    let file = arena(1);
    let serving = [&["--policy", "spin"], options].concat();
    let _server = Running::start(endpoint("server", file.fd(), &serving));
    let report = format!("{}/strace-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o", &report, env!("CARGO_BIN_EXE_flipcall")]);
    let calling = [&["--policy", "spin", "--calls", calls], options].concat();
    let output = Running::start(wrapped(strace, "client", file.fd(), &calling)).output(Duration::from_secs(60));
    assert!(output.status.success(), "{output:?}");
    let table = std::fs::read_to_string(&report).expect("a report");
    std::fs::remove_file(&report).expect("it is there");
    Some(table)
}

/// The number of system calls of one name in such a table, or their `total`.
fn counted(table: &str, name: &str) -> u64 {
    // Columns: share, seconds, microseconds per call, calls, errors if any, name.
    let calls = |line: &str| line.split_whitespace().nth(3).and_then(|calls| calls.parse::<u64>().ok()).unwrap_or(0);
    table.lines().filter(|line| line.split_whitespace().last() == Some(name)).map(calls).sum()
}

#[test]
fn strace_sees_no_system_call_of_a_busy_exchange() {
    const CALLS: &str = "20000";
    let _alone = alone();
    let Some(table) = traced(CALLS, &[]) else { return };
    let (futexes, all) = (counted(&table, "futex"), counted(&table, "total"));
    measured("spin pair: futex calls and all calls of 20,000 round trips", format!("{futexes} and {all}"), "100 futex");
    assert!(all > 0 && futexes < 100, "{futexes} futex calls");
    let Some(table) = traced(CALLS, &["--base"]) else { return };
    let futexes = counted(&table, "futex");
    assert!(futexes >= 20_000, "{futexes} futex calls: a base peer is woken by every flip");
}

#[test]
fn two_sides_that_spin_on_one_cpu_give_it_to_each_other() {
    let _alone = alone();
    let cpu = usable_cpus().swap_remove(0);
    let Some(table) = traced("200", &["--cpu", &cpu]) else { return };
    let yields = counted(&table, "sched_yield");
    assert!(yields >= 100, "{yields} yields in 200 calls: each would take a time slice\n{table}");
}
