//! A call to another process and back, for each wait policy and a few payloads. The benchmark starts itself as that process.
//!
//! For rows to compare with and for percentiles use `flipcall bench`; this one is for comparing a change with what was there before.

use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use flipcall::endpoint::{Endpoint, Inherited, Options, Spawned, WaitPolicy};
use flipcall::process::InheritedFds;
use flipcall::{Deadline, Error, ErrorKind};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Tells the child its policy.
const POLICY: &str = "FLIPCALL_BENCH_POLICY";
/// What every wait is bounded by.
const DEADLINE: Deadline = Deadline::after(Duration::from_secs(10));
/// Bytes of the window: the largest payload and a header, rounded up.
const WINDOW: u32 = (64 << 10) + 4096;
const POLICIES: [(&str, WaitPolicy); 3] =
    [("spin", WaitPolicy::Spin), ("adaptive", WaitPolicy::Adaptive), ("park", WaitPolicy::Park)];
const PAYLOADS: [u32; 4] = [0, 48, 4096, 65_536];

fn main() {
    if let Ok(name) = std::env::var(POLICY) {
        return serve(&name).expect("the parent keeps to the protocol");
    }
    pin(0);
    let mut criterion = Criterion::default().configure_from_args();
    for (name, policy) in POLICIES {
        round_trips(&mut criterion, name, policy).expect("the child keeps to the protocol");
    }
    criterion.final_summary();
}

/// Runs this process on the `nth` of its CPUs, or on the last where there are fewer.
fn pin(nth: usize) {
    let usable = sched_getaffinity(None).expect("the affinity of this thread can be read");
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| usable.is_set(cpu)).collect();
    let mut one = CpuSet::new();
    one.set(cpus[nth.min(cpus.len() - 1)]);
    sched_setaffinity(None, &one).expect("a usable CPU can be chosen");
}

fn round_trips(criterion: &mut Criterion, name: &str, policy: WaitPolicy) -> flipcall::Result<()> {
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.env(POLICY, name);
    let usable = sched_getaffinity(None).expect("the affinity of this thread can be read");
    // The child inherits the mask, so it is lifted for the start.
    sched_setaffinity(None, &all_cpus()).expect("every CPU may be asked for");
    let mut child = Spawned::start(command, WINDOW, Options::new().policy(policy).keep_stale_bytes())?;
    sched_setaffinity(None, &usable).expect("what was usable still is");
    let mut endpoint = child.connect(DEADLINE)?;
    let mut group = criterion.benchmark_group("round_trip");
    for payload in PAYLOADS {
        let (message, mut answer) = (vec![7; payload as usize], vec![0; payload as usize]);
        group.throughput(Throughput::Bytes(2 * u64::from(payload)));
        group.bench_function(BenchmarkId::new(name, payload), |bencher| {
            bencher.iter(|| call(&mut endpoint, black_box(&message), &mut answer).expect("the child answers"));
        });
    }
    group.finish();
    drop(endpoint);
    child.finish(Duration::from_secs(2))?;
    Ok(())
}

fn all_cpus() -> CpuSet {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    all
}

fn call(endpoint: &mut Endpoint, message: &[u8], answer: &mut [u8]) -> flipcall::Result<()> {
    let length = endpoint.write_datagram(message)?;
    endpoint.send_recv(length, DEADLINE)?;
    endpoint.read_at(0, answer)
}

fn serve(policy: &str) -> flipcall::Result<()> {
    pin(1);
    let policy = POLICIES.into_iter().find(|(name, _)| *name == policy).expect("the parent names a policy").1;
    #[allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]
    // SAFETY: what is inheritable in this process was left to it by its parent, and nothing owns it.
    let inherited = unsafe { InheritedFds::claim() };
    let server = Inherited::from_env(&inherited)?.into_acceptor(Options::new().policy(policy).keep_stale_bytes())?;
    let (mut endpoint, mut length) = server.recv_first(DEADLINE)?;
    let mut datagram = vec![0; WINDOW as usize];
    loop {
        let datagram = &mut datagram[..length as usize];
        endpoint.read_at(0, datagram)?;
        endpoint.write_datagram(datagram)?;
        length = match endpoint.send_recv(length, Deadline::NEVER).map_err(Error::from) {
            Err(error) if error.kind() == ErrorKind::PeerShutdown => return Ok(()),
            result => result?,
        };
    }
}
