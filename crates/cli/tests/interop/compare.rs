//! The two implementations side by side: each round runs every pairing once, so that whatever else the machine does hits all alike.

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::place::Place;
use crate::process::{Kind, Running, Side, command};

/// Interleaved rounds; the table shows medians over them.
const ROUNDS: usize = 15;

/// Calls of each pairing in each round.
const CALLS: &str = "20000";

/// Bytes of each call: what shares a cache line with the header.
const PAYLOAD: &str = "48";

/// A row of the table: client, server, and the wait policy of what is ours.
type Pairing = (Kind, Kind, &'static str);

const PAIRINGS: [Pairing; 6] = [
    (Kind::Go, Kind::Go, "–"),
    (Kind::Rust, Kind::Go, "adaptive"),
    (Kind::Go, Kind::Rust, "adaptive"),
    (Kind::Rust, Kind::Rust, "adaptive"),
    (Kind::Rust, Kind::Rust, "spin"),
    (Kind::Rust, Kind::Rust, "park"),
];

/// Nanoseconds per call of one pairing, the server on the first CPU and the client on the second.
fn measure((client, server, policy): Pairing, cpus: [usize; 2]) -> Option<f64> {
    let place = Place::allocate(48);
    let start = |kind: Kind, side, cpu: usize, calls: &[&str]| -> Option<Running> {
        let mut process = command(kind, side)?;
        process.args(["--cpu", &cpu.to_string()]);
        if kind == Kind::Rust {
            process.args(["--policy", policy]);
        }
        Some(Running::on(&place, process, calls))
    };
    let server = start(server, Side::Server, cpus[0], &[])?;
    let client = start(client, Side::Client, cpus[1], &["--calls", CALLS, "--payload", PAYLOAD])?;
    let time = client.finish().succeeded().ns_per_call();
    server.finish().succeeded();
    Some(time)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Runs the rounds on two CPUs, or twice the same one, and prints the rows. Returns how far Rust↔Rust (adaptive) is ahead of Go↔Go.
fn table(name: &str, cpus: [usize; 2]) -> Option<f64> {
    let mut times = vec![Vec::new(); PAIRINGS.len()];
    for _ in 0..ROUNDS {
        for (row, pairing) in times.iter_mut().zip(PAIRINGS) {
            row.push(measure(pairing, cpus)?);
        }
    }
    let mut ahead = 0.0;
    for (row, (client, server, policy)) in times.iter().zip(PAIRINGS) {
        let ratio = median(times[0].iter().zip(row).map(|(baseline, time)| baseline / time).collect());
        println!("| {name} | {client:?} → {server:?} | {policy} | {:.0} | {ratio:.2} |", median(row.clone()));
        if (client, server, policy) == (Kind::Rust, Kind::Rust, "adaptive") {
            ahead = ratio;
        }
    }
    Some(ahead)
}

#[test]
#[ignore = "takes minutes, and means something in a release build on a quiet machine only: ci/interop.sh --full"]
fn go_against_rust() {
    if cfg!(debug_assertions) {
        panic!("a comparison of a debug build says nothing: use ci/interop.sh --full");
    }
    let mask = sched_getaffinity(None).expect("our own mask");
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| mask.is_set(cpu)).collect();
    // The harness has begun a line of its own.
    println!("\n| CPUs | client → server | our policy | ns per call (median) | times Go ↔ Go (median of rounds) |");
    println!("|---|---|---|---:|---:|");
    // The bounds are a tenth of what is expected, or less: this is a check of the order of magnitude on a noisy machine.
    if let [first, second, ..] = cpus[..] {
        let Some(ahead) = table("two", [first, second]) else { return };
        assert!(ahead > 2.0, "{ahead} times across CPUs");
    }
    let Some(ahead) = table("one", [cpus[0], cpus[0]]) else { return };
    assert!(ahead > 0.1, "{ahead} times on one CPU");
}
