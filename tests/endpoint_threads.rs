//! Both ends in one process, each on a thread, and shutdowns from a third: what a race detector can watch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flipcall::endpoint::{Acceptor, Connector, Options, WaitPolicy};
use flipcall::window::{Allocator, Window, WindowDescriptor};
use flipcall::{Deadline, ErrorKind, Result};

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Calls of each pair of policies.
const CALLS: u32 = 300;
/// The three ways to wait.
const POLICIES: [WaitPolicy; 3] = [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Park];

fn window(descriptor: &WindowDescriptor<'_>) -> Window {
    Window::map(descriptor).unwrap()
}

/// Adds 1 to the number in each datagram, until the end.
fn serve(descriptor: &WindowDescriptor<'_>, options: Options) -> Result<()> {
    let server = Acceptor::new(window(descriptor), options)?;
    let (mut endpoint, mut length) = server.recv_first(PATIENCE)?;
    loop {
        if length == 4 {
            let mut number = [0; 4];
            endpoint.read_at(0, &mut number)?;
            endpoint.write_at(0, &(u32::from_ne_bytes(number) + 1).to_ne_bytes())?;
        }
        length = endpoint.send_recv(length, PATIENCE)?;
    }
}

fn call(descriptor: &WindowDescriptor<'_>, options: Options, calls: u32) -> Result<()> {
    let mut endpoint = Connector::new(window(descriptor), options)?.connect(PATIENCE)?;
    for number in 0..calls {
        endpoint.write_at(0, &number.to_ne_bytes())?;
        assert_eq!(endpoint.send_recv(4, Deadline::after(PATIENCE))?, 4);
        let mut answer = [0; 4];
        endpoint.read_at(0, &mut answer)?;
        assert_eq!(u32::from_ne_bytes(answer), number + 1);
    }
    Ok(())
}

#[test]
fn calls_between_threads_with_every_pair_of_policies() {
    for (ours, theirs) in POLICIES.iter().flat_map(|&ours| POLICIES.map(|theirs| (ours, theirs))) {
        for base in [false, true] {
            let options = |policy| match base {
                true => Options::new().policy(policy).base_protocol(),
                false => Options::new().policy(policy),
            };
            let allocator = Allocator::with_size(4096).unwrap();
            let descriptor = allocator.allocate(4096).unwrap();
            std::thread::scope(|scope| {
                let serving = scope.spawn(|| serve(&descriptor, options(theirs)).unwrap_err().kind());
                call(&descriptor, options(ours), CALLS).unwrap();
                assert_eq!(serving.join().unwrap(), ErrorKind::PeerShutdown);
            });
        }
    }
}

#[test]
fn a_shutdown_from_any_thread_ends_both_sides() {
    for round in 0..60u64 {
        let policy = POLICIES[round as usize % POLICIES.len()];
        let allocator = Allocator::with_size(4096).unwrap();
        let descriptor = allocator.allocate(4096).unwrap();
        let client = Connector::new(window(&descriptor), Options::new().policy(policy)).unwrap();
        let (handle, done) = (client.shutdown_handle(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| serve(&descriptor, Options::new()).unwrap_err().kind());
            let calling = scope.spawn(|| -> Result<()> {
                let mut endpoint = client.connect(PATIENCE)?;
                loop {
                    endpoint.send_recv(0, PATIENCE)?;
                }
            });
            // The counters may be read while they are counted.
            let reading = scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let flips = handle.counters().flips;
                    assert!(flips >= last);
                    last = flips;
                    std::thread::yield_now();
                }
            });
            std::thread::sleep(Duration::from_micros(50 * round));
            let another = handle.clone();
            let shutting = scope.spawn(move || another.shut_down());
            handle.shut_down();
            shutting.join().unwrap();
            assert_eq!(calling.join().unwrap().unwrap_err().kind(), ErrorKind::LocalShutdown);
            assert_eq!(serving.join().unwrap(), ErrorKind::PeerShutdown);
            done.store(true, Ordering::Relaxed);
            reading.join().unwrap();
        });
    }
}
