//! Many clients: threads that share one, processes with many each.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use flipcall::rpc::{Client, ClientConfig};

use super::peer::{Echo, PATIENCE};

/// Client processes of the crowd.
const PROCESSES: usize = 4;

fn is_full() -> bool {
    std::env::var_os("FLIPCALL_FULL").is_some()
}

/// Threads that call at a time, four for each of two CPUs.
const THREADS: usize = 8;

/// What each thread of a round does.
#[derive(Clone, Copy)]
enum Round {
    Lasts(Duration),
    Calls(u64),
}

/// Threads that live from round to round, as those of a program do: what a thread and a channel know of each other is part of it.
struct Crew {
    orders: Vec<Sender<(Client, Round)>>,
    done: Receiver<u64>,
}

impl Crew {
    fn start() -> Self {
        let (tell, done) = channel();
        let order = |thread| {
            let ((order, orders), tell) = (channel(), tell.clone());
            // It ends when the crew is dropped, or with a failed assertion: then the round misses its count.
            std::thread::spawn(move || {
                for (client, round) in orders {
                    tell.send(work(thread, &client, round)).unwrap();
                }
            });
            order
        };
        Self { orders: (0..THREADS as u64).map(order).collect(), done }
    }

    /// One round; `client` says by which client each thread calls. Calls a second.
    fn round<'a>(&self, round: Round, client: impl Fn(usize) -> &'a Client) -> f64 {
        let begun = Instant::now();
        for (thread, order) in self.orders.iter().enumerate() {
            order.send((client(thread).clone(), round)).unwrap();
        }
        let calls: u64 = (0..THREADS).map(|_| self.done.recv_timeout(PATIENCE).expect("a thread failed")).sum();
        calls as f64 / begun.elapsed().as_secs_f64()
    }
}

/// Makes the calls of one thread; their number.
fn work(thread: u64, client: &Client, round: Round) -> u64 {
    /// Calls between two looks at the clock.
    const BATCH: u64 = 16;
    let (begun, mut calls) = (Instant::now(), 0);
    while match round {
        Round::Lasts(time) => begun.elapsed() < time,
        Round::Calls(count) => calls < count,
    } {
        for _ in 0..BATCH {
            let sum: u64 = client.call(2, &(thread << 32, calls), PATIENCE).unwrap();
            assert_eq!(sum, (thread << 32) + calls);
            calls += 1;
        }
    }
    calls
}

/// One client of eight threads against eight connections with a thread each, in rounds that take turns.
fn compare(name: &str, config: &ClientConfig, rounds: usize, round: Round) -> f64 {
    let (echo, crew) = (Echo::start(&[]), Crew::start());
    let shared = echo.client(config.clone());
    let alone: Vec<Client> = (0..THREADS).map(|_| echo.client(config.clone())).collect();
    let (mut ratios, mut ones, mut eights) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let one = crew.round(round, |_| &shared);
        let eight = crew.round(round, |thread| &alone[thread]);
        ratios.push(one / eight);
        ones.push(one);
        eights.push(eight);
    }
    [&mut ratios, &mut ones, &mut eights].iter_mut().for_each(|list| list.sort_by(f64::total_cmp));
    let middle = rounds / 2;
    println!(
        "{name}: one client carries {:.2} of what {THREADS} connections do (median of {rounds} rounds, {:.2} to {:.2}); \
         {:.0} and {:.0} calls a second ({:.0} to {:.0}, {:.0} to {:.0})",
        ratios[middle],
        ratios[0],
        ratios[rounds - 1],
        ones[middle],
        eights[middle],
        ones[0],
        ones[rounds - 1],
        eights[0],
        eights[rounds - 1]
    );
    assert!(shared.counters().channels_opened <= 2 * THREADS as u64, "{:?}", shared.counters());
    let calls: u64 = alone.iter().map(|client| client.counters().calls).sum();
    assert!(matches!(round, Round::Lasts(_)) || shared.counters().calls == calls);
    ratios[middle]
}

#[test]
fn one_client_carries_eight_threads_like_eight_connections() {
    let full = is_full();
    let (rounds, time) = if full { (21, Duration::from_millis(500)) } else { (3, Duration::from_millis(50)) };
    for (name, config) in [("window", ClientConfig::new()), ("socket", ClientConfig::new().window(0))] {
        let ratio = compare(name, &config, rounds, Round::Lasts(time));
        assert!(ratio > 0.1, "{name}: sharing a client serialises its threads");
        let calls = if full { 100_000 } else { 992 };
        compare(&format!("{name}, {THREADS} x {calls} calls"), &config, 3, Round::Calls(calls));
    }
}

/// A process with many clients, which waits for a line before it calls again and ends.
struct Members {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Members {
    fn start(echo: &Echo, count: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crowd::as_a_process_of_the_crowd", "--ignored", "--nocapture"])
            .env("FLIPCALL_TEST_PATH", echo.path())
            .env("FLIPCALL_TEST_COUNT", count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn wait_for(&mut self, said: &str) {
        let mut line = String::new();
        while !line.contains(said) {
            line.clear();
            assert!(
                self.output.read_line(&mut line).unwrap() > 0,
                "a process of the crowd ended before it said {said}"
            );
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn many_idle_connections_of_four_processes_cost_little_and_all_are_served() {
    let each = if is_full() { 64 } else { 16 };
    let count = PROCESSES * each;
    // A user gets half of each total: four processes fill that, with room for the warm one.
    let most = (8 * (each + 1)).to_string();
    let echo = Echo::start(&["--connections", &most, "--channels", &most, "--window-bytes", "1073741824"]);
    let warm = echo.client(ClientConfig::new().window(4096));
    assert_eq!(warm.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).unwrap(), 2);
    let before = echo.resident();
    let mut crowd: Vec<Members> = (0..PROCESSES).map(|_| Members::start(&echo, each)).collect();
    crowd.iter_mut().for_each(|members| members.wait_for("connected"));
    let cost = (echo.resident() - before) / count;
    println!("{count} idle connections of {PROCESSES} processes cost the server {} KiB each", cost / 1024);
    // The touched page of each window is in it; frames of an unoptimised build are twice as long.
    let bound = if cfg!(debug_assertions) { 128 << 10 } else { (64 << 10) + 4096 };
    assert!(cost <= bound, "{cost} bytes");
    for members in &mut crowd {
        members.child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        members.wait_for("served");
        assert!(members.child.wait().unwrap().success());
    }
}

/// A process of the test above.
#[test]
#[ignore = "is started by another test"]
fn as_a_process_of_the_crowd() {
    let (Some(path), Ok(count)) = (std::env::var_os("FLIPCALL_TEST_PATH"), std::env::var("FLIPCALL_TEST_COUNT")) else {
        return;
    };
    let connect = |_| Client::connect(&path, ClientConfig::new().window(4096), PATIENCE).unwrap();
    let clients: Vec<Client> = (0..count.parse::<u64>().unwrap()).map(connect).collect();
    let call_all = || {
        for (i, client) in clients.iter().enumerate() {
            assert_eq!(client.call::<_, u64>(2, &(i as u64, 1u64), PATIENCE).unwrap(), i as u64 + 1);
            assert_eq!((client.counters().channels_opened, client.counters().fallbacks), (1, 0));
        }
    };
    call_all();
    println!("connected");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    call_all();
    println!("served");
}
