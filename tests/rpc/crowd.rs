//! Many clients: threads that share one, processes with many each.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use flipcall::rpc::{Client, ClientConfig};

use super::peer::{Echo, PATIENCE};

/// Client processes of the crowd.
const PROCESSES: usize = 4;

fn is_full() -> bool {
    std::env::var_os("FLIPCALL_FULL").is_some()
}

/// Eight threads make `calls` calls each; `client` says by which client.
fn hammer<'a>(calls: u64, client: impl Fn(usize) -> &'a Client) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = client(thread);
            scope.spawn(move || {
                for i in 0..calls {
                    let sum: u64 = client.call(2, &((thread as u64) << 32, i), PATIENCE).unwrap();
                    assert_eq!(sum, ((thread as u64) << 32) + i);
                }
            });
        }
    });
    begun.elapsed()
}

#[test]
fn one_client_carries_eight_threads_like_eight_connections() {
    const ROUNDS: u64 = 5;
    let calls = if is_full() { 100_000 } else { 1_000 };
    let echo = Echo::start(&[]);
    let shared = echo.client(ClientConfig::new());
    let alone: Vec<Client> = (0..8).map(|_| echo.client(ClientConfig::new())).collect();
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let one = hammer(calls / ROUNDS, |_| &shared);
            let eight = hammer(calls / ROUNDS, |thread| &alone[thread]);
            eight.as_secs_f64() / one.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "8 threads x {calls} calls: one client carries {:.2} of what 8 connections do (median of {ROUNDS}, {:.2} to {:.2})",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
    assert_eq!(shared.counters().calls, 8 * calls);
    assert!(shared.counters().channels_opened <= 16, "{:?}", shared.counters());
    assert!(ratios[ratios.len() / 2] > 0.1, "sharing a client serialises its threads");
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
    // A process gets a quarter of each total: four of them fill it, with room for the warm one.
    let most = (4 * (each + 1)).to_string();
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
