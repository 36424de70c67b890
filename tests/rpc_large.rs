//! Large messages take no fresh memory for each call, and their memory does not stay for good.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use flipcall::rpc::codec::from_bytes;
use flipcall::rpc::{Client, ClientConfig, Router, Server};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Over 32 MiB, up to which an allocator may keep what is freed.
const LARGE: usize = 40 << 20;
const PAGE: usize = 4096;

/// Pages that this process got without reading a file.
fn faults() -> usize {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name, in parentheses, may hold anything; the count is the eighth field behind it.
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_ascii_whitespace().nth(7).unwrap().parse().unwrap()
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * PAGE
}

#[test]
fn a_large_call_takes_no_fresh_pages_and_keeps_none_for_good() {
    let base = ClientConfig::new().base_protocol();
    let bulk = ClientConfig::new().extensions(false);
    let transports = [
        ("window", ClientConfig::new()),
        ("window without extensions", bulk),
        ("socket channel", ClientConfig::new().window(0)),
        ("base protocol", base),
    ];
    for (name, config) in transports {
        calls_take_no_fresh_pages(name, config);
    }
}

fn calls_take_no_fresh_pages(name: &str, config: ClientConfig) {
    let mut router = Router::new();
    router.raw(1, |context, request, reply| reply.send(context, &from_bytes::<&[u8]>(request)?));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || Server::new(router, Default::default()).serve_one(theirs));
    let client = Client::from_socket(ours, config).unwrap();

    let large = vec![7u8; LARGE];
    let call = |bytes: &[u8]| {
        let same = client.call_with(1, bytes, PATIENCE, |answer| Ok(from_bytes::<&[u8]>(answer)? == bytes));
        assert!(same.unwrap());
    };
    call(&large[..1]);
    let before = resident();
    (0..3).for_each(|_| call(&large));
    const CALLS: usize = 10;
    let begun = faults();
    (0..CALLS).for_each(|_| call(&large));
    let each = (faults() - begun) / CALLS;
    println!("{name}: {each} page faults for each call of {LARGE} bytes");
    assert!(each < LARGE / PAGE / 8, "{name}: {each}: a buffer was made anew");

    // Both sides let go of it when smaller calls follow.
    (0..20).for_each(|_| call(&large[..1]));
    let kept = resident().saturating_sub(before);
    println!("{name}: {kept} bytes kept after small calls");
    assert!(kept < LARGE / 2, "{name}: {kept}");

    // The server, too, when no call follows; the client keeps what it has.
    call(&large);
    let busy = resident();
    std::thread::sleep(Duration::from_millis(500));
    let given_back = busy.saturating_sub(resident());
    println!("{name}: {given_back} bytes given back by an idle server");
    assert!(given_back > LARGE, "{name}: {given_back}");
    client.close();
    serving.join().unwrap().unwrap();
}
