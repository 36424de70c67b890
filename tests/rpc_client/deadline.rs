//! A deadline is resolved once, when the call begins.

use std::time::{Duration, Instant};

use flipcall::Deadline;
use flipcall::rpc::ClientConfig;

use super::{PATIENCE, SWALLOW, go_on, kind, next, sleep, start, stop, ways};

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
            while next(&client, PATIENCE).is_err() {}
        }
    }
}

/// Issue 13, A2. Sending and receiving share it as well: a server that takes a long request slowly does not get the time twice.
#[test]
fn sending_and_receiving_share_one_deadline() {
    let bulk = ("bulk", ClientConfig::new().extensions(false));
    for (name, config) in ways().into_iter().chain([bulk, ("base", ClientConfig::new().base_protocol())]) {
        let (client, child) = start(config);
        assert_eq!(next(&client, PATIENCE).unwrap(), 2);
        stop(&child);
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let ended = std::thread::scope(|scope| {
            // More than half of the time passes before anything is read, and as much before it is answered.
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(600));
                go_on(&child);
            });
            // On the channel that this thread has called on before.
            client.call::<_, u64>(SWALLOW, &(vec![0u8; 4 << 20], 600u32), second)
        });
        let took = begun.elapsed();
        let error = ended.unwrap_err();
        assert_eq!(kind(&error), Some(flipcall::ErrorKind::Timeout), "{name}: {error:?}");
        assert!(took >= second && took < Duration::from_millis(1500), "{name}: {took:?}");
    }
}
