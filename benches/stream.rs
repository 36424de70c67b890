//! How close frames and the mux come to a bare socket: two processes pinned to two CPUs, all contestants interleaved in every round,
//! ratios within a round, medians over the rounds. Not a criterion bench, because criterion measures one contestant after another, and
//! on a shared machine that compares two moments rather than two programs.
//!
//! `cargo bench --bench stream` runs a short form, `cargo bench --bench stream -- --full` the one whose figures may be quoted. `--only=bulk`,
//! `ping` or `channels` runs a part; with `ONE_CPU=1` in the environment both processes share a CPU.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flipcall::Deadline;
use flipcall::stream::mux::{Mux, MuxConfig, Role};
use flipcall::stream::{Access, FrameSocket, Listener};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const WAIT: Duration = Duration::from_secs(60);
/// In the environment of a child: where to connect to.
const SOCKET: &str = "FLIPCALL_BENCH_SOCKET";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("child") => {
            pin(args[5].parse().unwrap());
            child(&args[2], args[3].parse().unwrap(), args[4].parse().unwrap());
        }
        // One contestant alone, for a profiler.
        Some("bulk") => {
            pin(cpus()[0]);
            println!("{:?}", bulk(&args[2], args[3].parse().unwrap(), args[4].parse().unwrap()));
        }
        // `cargo test` runs benches too: the programs must work, figures do not matter.
        Some("--test") => run(3, 4 << 20, 200, Duration::from_millis(50)),
        _ if args.iter().any(|arg| arg == "--full") => run(21, 512 << 20, 50_000, Duration::from_secs(2)),
        _ => run(5, 128 << 20, 10_000, Duration::from_millis(500)),
    }
}

fn run(rounds: usize, bytes: usize, calls: usize, window: Duration) {
    pin(cpus()[0]);
    let only = std::env::args().find_map(|arg| arg.strip_prefix("--only=").map(str::to_owned));
    let wanted = |part: &str| only.as_ref().is_none_or(|only| only == part);
    for chunk in [64 << 10, 1 << 20].into_iter().filter(|_| wanted("bulk")) {
        let chunks = bytes / chunk;
        let rows = compare(rounds, &["bare", "framed", "framed-shared", "mux", "read-and-send", "sendfile"], |mode| {
            let elapsed = bulk(mode, chunk, chunks);
            (chunks * chunk) as f64 / elapsed.as_secs_f64() / 1e6
        });
        report(&format!("bulk, {} KiB chunks, MB/s", chunk >> 10), &rows);
    }
    if wanted("ping") {
        let rows = compare(rounds, &["bare-ping", "framed-ping", "shared-ping", "shared-ping-no-deadline"], |mode| {
            calls as f64 / ping(mode, calls).as_secs_f64()
        });
        report("round trips of 100 bytes, a second", &rows);
    }
    if wanted("channels") {
        let rows = compare(rounds, &["alone", "beside-a-stalled-channel"], |mode| neighbours(mode != "alone", window));
        report("one channel, MB/s", &rows);
        let worst: Vec<f64> = (0..rounds.min(5)).map(|_| fairness(100, window)).collect();
        println!("100 channels: slowest / mean {:.3} (median of {})", median(worst.clone()), worst.len());
    }
}

type Row = (String, f64, f64);

/// Runs all modes in every round; per mode the median, and the median of its ratio to the first mode of the same round.
fn compare(rounds: usize, modes: &[&str], mut measure: impl FnMut(&str) -> f64) -> Vec<Row> {
    let mut values = vec![Vec::new(); modes.len()];
    for round in 0..rounds {
        // Every other round backwards, so that no mode always follows the same one.
        for index in 0..modes.len() {
            let index = if round % 2 == 0 { index } else { modes.len() - 1 - index };
            values[index].push(measure(modes[index]));
        }
    }
    let ratio = |index: usize| median(values[index].iter().zip(&values[0]).map(|(a, b)| a / b).collect());
    modes
        .iter()
        .enumerate()
        .map(|(index, mode)| (mode.to_string(), median(values[index].clone()), ratio(index)))
        .collect()
}

fn report(title: &str, rows: &[Row]) {
    println!("{title}");
    for (mode, value, ratio) in rows {
        println!("  {mode:<26} {value:>10.0}   {ratio:.3}x");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The CPUs of the two processes: the first two that this one may use, looked up before it is pinned, because then it sees only one.
fn cpus() -> [usize; 2] {
    static CPUS: OnceLock<[usize; 2]> = OnceLock::new();
    *CPUS.get_or_init(|| {
        let allowed = sched_getaffinity(None).unwrap();
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let first = cpus.next().unwrap();
        // `ONE_CPU` puts both on one, where what a hand-over between threads costs is seen best.
        let second = cpus.next().filter(|_| std::env::var_os("ONE_CPU").is_none());
        [first, second.unwrap_or(first)]
    })
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    // Where pinning is not allowed the figures are noisier, and the benchmark says nothing else.
    let _ = sched_setaffinity(None, &set);
}

fn command(mode: &str, chunk: usize, count: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child", mode, &chunk.to_string(), &count.to_string(), &cpus()[1].to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A child of this program at the other end of a socket that both have made themselves, by `accept` and `connect`.
fn spawn_framed(mode: &str, chunk: usize, count: usize) -> (Child, FrameSocket) {
    if mode.contains("shared") {
        let (child, socket) = spawn(mode, chunk, count);
        return (child, FrameSocket::new(socket));
    }
    let path = std::env::temp_dir().join(format!("flipcall-bench-{}.sock", std::process::id()));
    let listener = Listener::bind(&path, Access::Owner).unwrap();
    let child = command(mode, chunk, count).env(SOCKET, &path).spawn().unwrap();
    let mut socket = listener.accept_frames(WAIT).unwrap();
    // The child sends a frame when it is ready.
    socket.receive(WAIT).unwrap().unwrap();
    drop(listener);
    let _ = std::fs::remove_file(path.with_extension("sock.lock"));
    (child, socket)
}

/// A child of this program that inherits the other end of a socket pair.
fn spawn(mode: &str, chunk: usize, count: usize) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = command(mode, chunk, count).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    // The child writes a byte when it is ready.
    let mut ready = [0];
    (&ours).read_exact(&mut ready).unwrap();
    (child, ours)
}

fn bulk(mode: &str, chunk: usize, count: usize) -> Duration {
    let data = vec![7u8; chunk];
    match mode {
        "bare" => {
            let (mut child, mut socket) = spawn(mode, chunk, count);
            let start = Instant::now();
            (0..count).for_each(|_| socket.write_all(&data).unwrap());
            socket.read_exact(&mut [0]).unwrap();
            let elapsed = start.elapsed();
            child.wait().unwrap();
            elapsed
        }
        "mux" => bulk_over_mux(&data, count),
        _ => bulk_in_frames(mode, &data, count),
    }
}

fn bulk_over_mux(data: &[u8], count: usize) -> Duration {
    let (mut child, socket) = spawn("mux", data.len(), count);
    let mux = Mux::new(socket, MuxConfig::new(Role::Initiator)).unwrap();
    let mut channel = mux.open("bulk", WAIT).unwrap();
    let start = Instant::now();
    for _ in 0..count {
        for piece in data.chunks(channel.sender.max_message()) {
            channel.sender.send(piece, WAIT).unwrap();
        }
    }
    channel.receiver.receive(WAIT).unwrap();
    let elapsed = start.elapsed();
    drop((channel, mux));
    child.wait().unwrap();
    elapsed
}

fn bulk_in_frames(mode: &str, data: &[u8], count: usize) -> Duration {
    let (mut child, mut framed) = spawn_framed(mode, data.len(), count);
    let file = (!mode.starts_with("framed")).then(|| file_of(data));
    if mode == "read-and-send" {
        framed.assume_shared();
    }
    let start = Instant::now();
    for _ in 0..count {
        match &file {
            Some(file) => framed.send_file(7, file.as_fd(), 0, data.len() as u32, WAIT).unwrap(),
            None => framed.send(7, data, WAIT).unwrap(),
        }
    }
    framed.receive(WAIT).unwrap();
    let elapsed = start.elapsed();
    child.wait().unwrap();
    elapsed
}

fn file_of(data: &[u8]) -> std::fs::File {
    let fd = rustix::fs::memfd_create("bench", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(fd);
    file.write_all(data).unwrap();
    file
}

fn ping(mode: &str, calls: usize) -> Duration {
    let mut buffer = [7u8; 106];
    if mode == "bare-ping" {
        let (mut child, mut socket) = spawn(mode, 100, calls);
        let start = Instant::now();
        for _ in 0..calls {
            socket.write_all(&buffer).unwrap();
            socket.read_exact(&mut buffer).unwrap();
        }
        let elapsed = start.elapsed();
        child.wait().unwrap();
        return elapsed;
    }
    let (mut child, mut framed) = spawn_framed(mode, 100, calls);
    let deadline = deadline_of(mode);
    let start = Instant::now();
    for _ in 0..calls {
        framed.send(7, &buffer[..100], deadline).unwrap();
        assert_eq!(framed.receive(deadline).unwrap().unwrap().payload.len(), 100);
    }
    let elapsed = start.elapsed();
    child.wait().unwrap();
    elapsed
}

fn deadline_of(mode: &str) -> Deadline {
    if mode.ends_with("no-deadline") { Deadline::NEVER } else { WAIT.into() }
}

/// MB/s of one channel, possibly beside one that its reader has forgotten.
fn neighbours(stalled: bool, window: Duration) -> f64 {
    let (mut child, socket) = spawn("channels", 0, 0);
    let mux = Mux::new(socket, MuxConfig::new(Role::Initiator)).unwrap();
    let data = vec![7u8; 64 << 10];
    let forgotten = stalled.then(|| {
        let mut channel = mux.open("stall", WAIT).unwrap();
        while channel.sender.send(&data, Duration::from_millis(20)).is_ok() {}
        channel
    });
    let sent = send_for(&mut mux.open("sink", WAIT).unwrap(), &data, window);
    drop((forgotten, mux));
    child.wait().unwrap();
    sent as f64 / window.as_secs_f64() / 1e6
}

/// What the slowest of `count` channels got, as a share of the mean.
fn fairness(count: usize, window: Duration) -> f64 {
    let (mut child, socket) = spawn("channels", 0, 0);
    let mux = Mux::new(socket, MuxConfig::new(Role::Initiator)).unwrap();
    let channels: Vec<_> = (0..count).map(|_| mux.open("sink", WAIT).unwrap()).collect();
    let data = vec![7u8; 64 << 10];
    let sent: Vec<f64> = std::thread::scope(|scope| {
        let send = |channel| scope.spawn(|| send_for(&mut { channel }, &data, window) as f64);
        let threads: Vec<_> = channels.into_iter().map(send).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    drop(mux);
    child.wait().unwrap();
    let mean = sent.iter().sum::<f64>() / count as f64;
    sent.iter().copied().fold(f64::INFINITY, f64::min) / mean
}

fn send_for(channel: &mut flipcall::stream::mux::Channel, data: &[u8], window: Duration) -> usize {
    let end = Instant::now() + window;
    let mut sent = 0;
    while Instant::now() < end {
        channel.sender.send(data, WAIT).unwrap();
        sent += data.len();
    }
    sent
}

fn child(mode: &str, chunk: usize, count: usize) {
    if let Some(path) = std::env::var_os(SOCKET) {
        let mut framed = FrameSocket::connect(path, WAIT).unwrap();
        framed.send(0, &[], WAIT).unwrap();
        return framed_child(mode, framed, chunk, count);
    }
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    socket.write_all(&[1]).unwrap();
    let mut buffer = vec![0; chunk];
    match mode {
        "bare" => {
            (0..count).for_each(|_| socket.read_exact(&mut buffer).unwrap());
            socket.write_all(&[1]).unwrap();
        }
        "bare-ping" => {
            let mut buffer = [0; 106];
            for _ in 0..count {
                socket.read_exact(&mut buffer).unwrap();
                socket.write_all(&buffer).unwrap();
            }
        }
        "mux" => {
            let mux = Mux::new(socket, MuxConfig::new(Role::Acceptor)).unwrap();
            let mut channel = mux.accept(WAIT).unwrap().accept().unwrap();
            let mut left = chunk * count;
            while left > 0 {
                assert!(channel.receiver.receive_into(&mut buffer, WAIT).unwrap());
                left -= buffer.len();
            }
            channel.sender.send(b"done", WAIT).unwrap();
            channel.receiver.wait_end(Deadline::NEVER).unwrap();
        }
        "channels" => channels(socket),
        _ => framed_child(mode, FrameSocket::new(socket), chunk, count),
    }
}

fn framed_child(mode: &str, mut framed: FrameSocket, chunk: usize, count: usize) {
    let (answer, deadline) = (vec![7; chunk], deadline_of(mode));
    for _ in 0..count {
        assert_eq!(framed.receive(deadline).unwrap().unwrap().payload.len(), chunk);
        if mode.contains("ping") {
            framed.send(7, &answer, deadline).unwrap();
        }
    }
    if !mode.contains("ping") {
        framed.send(7, &[1], deadline).unwrap();
    }
}

/// Serves channels called `sink`, and forgets ones called `stall`.
fn channels(socket: UnixStream) {
    let mux = Mux::new(socket, MuxConfig::new(Role::Acceptor)).unwrap();
    let mut forgotten = Vec::new();
    while let Ok(offer) = mux.accept(Deadline::NEVER) {
        let stall = offer.name() == "stall";
        let mut channel = offer.accept().unwrap();
        if stall {
            forgotten.push(channel);
            continue;
        }
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while channel.receiver.receive_into(&mut message, Deadline::NEVER).is_ok_and(|more| more) {}
        });
    }
}
