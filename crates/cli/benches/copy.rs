//! Copies into and out of a window, against `memcpy` on the same kind of memory: what it costs that the peer may write meanwhile.

#[expect(dead_code, reason = "the copies are all that is measured here")]
#[path = "../src/sys/shared_memory.rs"]
mod shared_memory;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flipcall::Deadline;
use flipcall::endpoint::{Acceptor, Connector, Endpoint, Interrupted, Options, Waiting};
use flipcall::window::{Allocator, HEADER_LEN, Window};
use shared_memory::SharedMemory;

/// From a cache line up to what no cache of one core holds twice.
const SIZES: [u32; 6] = [48, 256, 1024, 4096, 65_536, 1 << 20];
const DEADLINE: Deadline = Deadline::after(Duration::from_secs(10));

/// A connected client that has received a datagram of `size` bytes, and its server.
fn connected(size: u32) -> flipcall::Result<(Endpoint, Waiting)> {
    let allocator = Allocator::with_size(u64::from(size + HEADER_LEN))?;
    let descriptor = allocator.allocate(size + HEADER_LEN)?;
    let server = Acceptor::new(Window::map(&descriptor)?, Options::new())?;
    let answering = std::thread::spawn(move || -> flipcall::Result<Waiting> {
        let (mut endpoint, length) = server.recv_first(DEADLINE)?;
        // Its answer goes out, and it does not wait for more: from then on the client keeps control.
        match endpoint.send_recv(length, Duration::ZERO) {
            Err(Interrupted::TimedOut(waiting)) => Ok(waiting),
            Err(Interrupted::Failed(error)) => Err(error),
            Ok(_) => unreachable!("the client makes one call"),
        }
    });
    let mut client = Connector::new(Window::map(&descriptor)?, Options::new())?.connect(DEADLINE)?;
    client.send_recv(size, DEADLINE)?;
    Ok((client, answering.join().expect("the server does not panic")?))
}

fn copies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy");
    for size in SIZES {
        let (mut endpoint, _server) = connected(size).expect("both sides keep to the protocol");
        let allocator = Allocator::with_size(u64::from(size + HEADER_LEN)).expect("a memfd can be made");
        let descriptor = allocator.allocate(size + HEADER_LEN).expect("the file is large enough");
        let plain =
            SharedMemory::map(descriptor.fd(), descriptor.offset(), descriptor.length()).expect("it can be mapped");
        let mut bytes = vec![7; size as usize];
        group.throughput(Throughput::Bytes(u64::from(size)));
        group.bench_function(BenchmarkId::new("window-in", size), |bencher| {
            bencher.iter(|| endpoint.write_at(0, black_box(&bytes)).expect("it fits"));
        });
        group.bench_function(BenchmarkId::new("memcpy-in", size), |bencher| {
            bencher.iter(|| plain.bytes().copy_in(black_box(&bytes)));
        });
        group.bench_function(BenchmarkId::new("window-out", size), |bencher| {
            bencher.iter(|| endpoint.read_at(0, black_box(&mut bytes)).expect("it was received"));
        });
        group.bench_function(BenchmarkId::new("memcpy-out", size), |bencher| {
            bencher.iter(|| plain.bytes().copy_out(black_box(&mut bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, copies);
criterion_main!(benches);
