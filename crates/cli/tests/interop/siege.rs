//! A victim, which is a client of either implementation, and a hostile server. The attacks are in `attack.go`.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::place::Place;
use crate::process::{Kind, Running, Side, command, pass};

/// How long a victim is watched before it counts as stuck. Nothing here needs a hundredth of it.
pub(crate) const STUCK: Duration = Duration::from_secs(2);

/// The hostile server. `None`: there is no Go here.
pub(crate) fn attacker(place: &Place, attack: &str, arguments: &[&str]) -> Option<Running> {
    let mut command = Command::new(crate::go::peer()?);
    command.args(["attack", attack]);
    Some(Running::on(place, command, arguments))
}

/// A victim in a process of its own. Ours gives each wait 300 ms; gVisor has no such thing.
pub(crate) fn victim(kind: Kind, place: &Place, arguments: &[&str]) -> Running {
    let mut client = command(kind, Side::Client).expect("the attacker is there, so Go is");
    if kind == Kind::Rust {
        client.args(["--deadline-ms", "300"]);
    }
    Running::on(place, client, arguments)
}

/// Our victim, tied to the attacker's process, and without a deadline.
pub(crate) fn watching_victim(place: &Place, attacker: &Running) -> Running {
    let mut client = command(Kind::Rust, Side::Client).expect("it is our own");
    pass(&mut client, "--watch-fd", attacker.pidfd());
    Running::on(place, client, &["--calls", "1000000000", "--payload", "48"])
}

/// The share of one CPU that a process uses during `time`.
pub(crate) fn cpu_share(process: &Running, time: Duration) -> f64 {
    let (began, before) = (Instant::now(), cpu_seconds(process));
    std::thread::sleep(time);
    (cpu_seconds(process) - before) / began.elapsed().as_secs_f64()
}

/// Seconds of CPU time that a process has used, from fields 14 and 15 of its stat file.
fn cpu_seconds(process: &Running) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it runs");
    let (_, after_name) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / rustix::param::clock_ticks_per_second() as f64
}

/// The most private memory, in KiB, that a process was seen to use until it ended.
pub(crate) fn peak_private_memory(process: &mut Running) -> u64 {
    let path = format!("/proc/{}/status", process.id());
    let mut peak = 0;
    while process.outlasts(Duration::from_millis(5)) {
        let status = std::fs::read_to_string(&path).expect("it is not reaped yet");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let size = line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().expect("a number"));
        peak = peak.max(size);
    }
    peak
}
