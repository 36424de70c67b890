//! A deadline is resolved once, when the call begins.

use std::time::{Duration, Instant};

use flipcall::Deadline;
use flipcall::rpc::ClientConfig;

use super::{PATIENCE, kind, sleep, start, ways};

/// Issue 13, A2. What waiting for a channel takes is not there for the call.
#[test]
fn waiting_for_a_channel_and_calling_share_one_deadline() {
    let bases = ("base", ClientConfig::new().base_protocol());
    for (name, config) in ways().into_iter().chain([bases]) {
        let (client, _child) = start(config.channels(1));
        for is_relative in [true, false] {
            std::thread::scope(|scope| {
                scope.spawn(|| sleep(&client, 700, PATIENCE).unwrap());
                std::thread::sleep(Duration::from_millis(100));
                let (begun, second) = (Instant::now(), Duration::from_secs(1));
                let deadline = if is_relative { Deadline::after(second) } else { Deadline::at(begun + second) };
                let ended = sleep(&client, 800, deadline);
                let took = begun.elapsed();
                assert_eq!(kind(&ended.unwrap_err()), Some(flipcall::ErrorKind::Timeout), "{name} {deadline:?}");
                assert!(took < Duration::from_millis(1350), "{name} {deadline:?}: {took:?}");
            });
            // Until the late answer has come.
            while super::next(&client, PATIENCE).is_err() {}
        }
    }
}

/// Issue 13, A2. Sending and receiving share it as well: a server that takes a long request slowly does not get the time twice.
#[test]
fn sending_and_receiving_share_one_deadline() {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;

    let path = std::env::temp_dir().join(format!("flipcall-slow-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let reader = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        // Half of the time passes before anything is read; then all of it is, and nothing is answered.
        std::thread::sleep(Duration::from_millis(600));
        let mut bytes = vec![0; 1 << 20];
        while socket.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    let client = flipcall::rpc::Client::connect(&path, ClientConfig::new().base_protocol(), PATIENCE).unwrap();
    let begun = Instant::now();
    let ended = client.call::<_, u64>(super::SWALLOW, &vec![0u8; 4 << 20], Duration::from_secs(1));
    let took = begun.elapsed();
    assert!(ended.unwrap_err().is_timeout());
    assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1500), "{took:?}");
    drop(client);
    reader.join().unwrap();
    std::fs::remove_file(&path).unwrap();
}
