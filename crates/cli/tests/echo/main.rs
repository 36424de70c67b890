//! Calls between two real processes: this one and `flipcall echo`.

mod crowd;
mod peer;
mod python;
mod timing;

use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::rpc::codec::Raw;
use flipcall::rpc::{CallError, Client, ClientConfig, Code};
use peer::{Echo, PATIENCE};

/// Every way to carry a call, with a name for messages.
fn transports() -> [(&'static str, ClientConfig, bool); 6] {
    [
        ("window", ClientConfig::new(), false),
        ("small window", ClientConfig::new().window(4096), false),
        ("window without extensions", ClientConfig::new().extensions(false), false),
        ("small window without extensions", ClientConfig::new().window(4096).extensions(false), false),
        ("socket channel", ClientConfig::new().window(0), false),
        ("base protocol", ClientConfig::new().base_protocol(), true),
    ]
}

fn code(error: &CallError) -> Code {
    error.status().unwrap_or_else(|| panic!("{error} is no status")).code
}

#[test]
fn a_call_is_answered_on_every_transport() {
    let echo = Echo::start(&[]);
    for (name, config, _) in transports() {
        let client = echo.client(config);
        let sum: u64 = client.call(2, &(1u64, 2u64), PATIENCE).unwrap();
        assert_eq!(sum, 3, "{name}");
        for size in [0, 1, 47, 48, 4000, 4071, 4072, 4073, 5000, 262_100, 262_144, 1 << 20, (1 << 20) + 1, 5 << 20] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let back: Vec<u8> = client.call(1, &bytes, PATIENCE).unwrap();
            assert!(back == bytes, "{name}: {size} bytes");
        }
        assert!(client.is_alive());
    }
}

#[test]
fn errors_arrive_whole_and_leave_the_channel_in_order() {
    let echo = Echo::start(&[]);
    for (name, config, _) in transports() {
        let client = echo.client(config);
        let error = client.call::<_, ()>(5, &(200u8, "what", "op", "/path"), PATIENCE).unwrap_err();
        let status = error.status().unwrap();
        assert_eq!((status.code, status.message.as_str()), (Code::Other(200), "what"), "{name}");
        assert_eq!((status.op.as_str(), status.path.as_str()), ("op", "/path"), "{name}");
        assert_eq!(code(&client.call::<_, u64>(2, &(u64::MAX, 1u64), PATIENCE).unwrap_err()), Code::InvalidArgument);
        let unknown = client.call::<_, ()>(0x0BAD, &(), PATIENCE).unwrap_err();
        assert!(unknown.status().unwrap().message.contains("0x0bad"), "{name}: {unknown}");
        assert_eq!(code(&unknown), Code::InvalidArgument);
        let panicked = client.call::<_, ()>(6, &(), PATIENCE).unwrap_err();
        assert_eq!(code(&panicked), Code::Unknown, "{name}");
        assert!(panicked.to_string().contains("0x0006"), "{name}: {panicked}");
        assert_eq!(code(&client.call::<_, ()>(2, &7u8, PATIENCE).unwrap_err()), Code::InvalidArgument, "{name}");
        assert_eq!(client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).unwrap(), 2, "{name}");
        assert!(client.counters().channels_opened <= 1, "{name}: no error costs a channel");
    }
}

#[test]
fn a_number_that_no_method_has_is_refused_before_it_is_sent() {
    let echo = Echo::start(&[]);
    for (name, config, _) in transports() {
        let client = echo.client(config);
        for tag in [0, 0xFF00, 0xFF01, 0xFFF0, 0xFFF1, 0xFFF2, 0xFFF3, 0xFFF4, 0xFFFF] {
            let error = client.call::<_, ()>(tag, &(), PATIENCE).unwrap_err();
            assert!(format!("{error:#}").contains(&format!("{tag:#06x}")), "{name}: {error}");
            assert!(matches!(error, CallError::Failed(error) if error.kind() == ErrorKind::InvalidInput), "{name}");
            assert!(client.stream(tag, &(), PATIENCE).is_err(), "{name}: {tag:#06x}");
        }
        assert_eq!(client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).unwrap(), 2, "{name}");
        assert!(client.counters().channels_opened <= 1, "{name}");
    }
}

#[test]
fn streams_arrive_in_order_and_may_be_dropped() {
    let echo = Echo::start(&[]);
    for (name, config, is_base) in transports() {
        let client = echo.client(config);
        let mut stream = client.stream(4, &(300u32, 1000u32), PATIENCE).unwrap();
        let mut index = 0;
        for chunk in &mut stream {
            assert_eq!(chunk.unwrap(), vec![index as u8; 1000], "{name}");
            index += 1;
        }
        assert_eq!(index, 300, "{name}");
        stream.end::<()>().unwrap();
        let refused = client.stream(4, &(0u32, u32::MAX), PATIENCE).unwrap().next().unwrap().unwrap_err();
        assert!(is_base || code(&refused) == Code::TooLarge, "{name}: {refused}");
        if is_base {
            continue; // there a dropped stream is the end of the connection
        }
        let mut dropped = client.stream(4, &(1000u32, 1000u32), PATIENCE).unwrap();
        dropped.next().unwrap().unwrap();
        drop(dropped);
        assert_eq!(client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).unwrap(), 2, "{name}");
    }
}

#[test]
fn descriptors_travel_both_ways() {
    let echo = Echo::start(&[]);
    let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&file, 12_345).unwrap();
    for (name, config, is_base) in transports() {
        let client = echo.client(config);
        if is_base {
            let error = client.call_with_fds::<_, u64>(8, &(), &[file.as_fd()], PATIENCE).unwrap_err();
            assert!(matches!(&error, CallError::Failed(error) if error.kind() == ErrorKind::InvalidInput), "{error}");
            continue;
        }
        for _ in 0..50 {
            let (size, fds) = client.call_with_fds::<_, u64>(8, &(), &[file.as_fd()], PATIENCE).unwrap();
            assert_eq!((size, fds.len()), (12_345, 1), "{name}");
            let mut text = String::new();
            std::fs::File::from(fds.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
            assert_eq!(text, "flipcall\n", "{name}");
        }
        let none = client.call_with_fds::<_, u64>(8, &(), &[], PATIENCE).unwrap_err();
        assert_eq!(code(&none), Code::InvalidArgument, "{name}");
        let unwanted = client.call_with_fds::<_, u64>(2, &(1u64, 1u64), &[file.as_fd()], PATIENCE).unwrap_err();
        assert_eq!(code(&unwanted), Code::InvalidArgument, "{name}");
        assert_eq!(client.counters().channels_opened, 1, "{name}");
    }
    assert!(echo.open_files() < 40, "descriptors leak: {}", echo.open_files());
}

#[test]
fn a_deadline_is_kept_and_its_late_answer_seen_by_nobody() {
    let echo = Echo::start(&[]);
    for (name, config, _) in transports() {
        let client = echo.client(config);
        assert_eq!(client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).unwrap(), 2);
        let begun = Instant::now();
        let error = client.call::<_, ()>(3, &300u32, Duration::from_millis(50)).unwrap_err();
        let took = begun.elapsed();
        assert!(error.is_timeout(), "{name}: {error}");
        assert!(took >= Duration::from_millis(50) && took < Duration::from_millis(600), "{name}: {took:?}");
        for i in 0..20u64 {
            assert_eq!(client.call::<_, u64>(2, &(i, 1u64), PATIENCE).unwrap(), i + 1, "{name}");
        }
        let expired = client.call::<_, ()>(3, &0u32, Duration::ZERO).unwrap_err();
        assert!(expired.is_timeout(), "{name}: {expired}");
    }
}

#[test]
fn a_signal_ends_the_server_cleanly_and_a_running_call_is_answered() {
    let mut echo = Echo::start(&[]);
    let clients: Vec<Client> = transports().into_iter().map(|(_, config, _)| echo.client(config)).collect();
    let calls: Vec<_> = clients
        .iter()
        .cloned()
        .map(|client| std::thread::spawn(move || client.call::<_, ()>(3, &400u32, PATIENCE)))
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    echo.terminate();
    for call in calls {
        call.join().unwrap().unwrap();
    }
    assert!(echo.wait().success());
    assert!(!echo.path().exists(), "the socket file is left behind");
    assert!(clients.iter().all(|client| client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).is_err()));
}

#[test]
fn eight_threads_share_a_client() {
    let calls: u64 = if std::env::var_os("FLIPCALL_FULL").is_some() { 100_000 } else { 2_000 };
    let echo = Echo::start(&[]);
    for config in [ClientConfig::new(), ClientConfig::new().window(0), ClientConfig::new().channels(3)] {
        let client = echo.client(config);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let client = &client;
                scope.spawn(move || {
                    for i in 0..calls {
                        let sum: u64 = client.call(2, &(thread << 32, i), PATIENCE).unwrap();
                        assert_eq!(sum, (thread << 32) + i);
                    }
                });
            }
        });
        // A look of another thread may make a home slot seem taken for an instant.
        assert!(client.counters().channels_opened <= 16, "{:?}", client.counters());
        assert_eq!(client.counters().calls, 8 * calls);
    }
}

#[test]
fn both_sides_know_each_other_and_a_quota_is_waited_for() {
    let echo = Echo::start(&["--channels", "4"]);
    let clients = [echo.client(ClientConfig::new()), echo.client(ClientConfig::new())];
    let check = |client: &Client| {
        let (pid, uid, _gid): (u32, u32, u32) = client.call(7, &(), PATIENCE).unwrap();
        assert_eq!((pid, uid), (std::process::id(), rustix::process::getuid().as_raw()));
        let server = client.peer().unwrap();
        assert_eq!((server.pid, server.uid), (echo.id(), uid));
        let raw = client.call_raw(1, &[0, 0, 0, 1, 9], PATIENCE).unwrap();
        assert_eq!(raw, [0, 0, 0, 1, 9]);
        let with = client.call_with(1, &Raw(&[0, 0, 0, 2, 7, 8]), PATIENCE, |answer| Ok(answer.len())).unwrap();
        assert_eq!(with, 6);
    };
    let [first, second] = &clients;
    check(first);
    let error = second.call_raw(1, &[0, 0, 0, 0], Duration::from_millis(100)).unwrap_err();
    let kind = error.failure().unwrap().kind();
    assert_eq!(kind, ErrorKind::NoResource, "one process gets a quarter of four channels: {error}");
    std::thread::scope(|scope| {
        scope.spawn(|| check(second));
        std::thread::sleep(Duration::from_millis(100));
        first.close();
    });
    assert!(clients.iter().all(|client| client.counters().channels_opened == 1 && client.counters().fallbacks == 0));
}

#[test]
fn a_message_over_the_maximum_fails_alone() {
    let echo = Echo::start(&["--max-message", "100000"]);
    for (name, config, is_base) in transports() {
        if is_base {
            continue; // a base peer does not say its maximum
        }
        let client = echo.client(config);
        let error = client.call::<_, Vec<u8>>(1, &vec![0u8; 200_000], PATIENCE).unwrap_err();
        assert!(
            matches!(&error, CallError::Failed(error) if error.kind() == ErrorKind::InvalidInput),
            "{name}: {error}"
        );
        assert!(error.to_string().contains("limit 100000 bytes"), "{name}: {error}");
        assert_eq!(client.call::<_, u64>(2, &(1u64, 1u64), PATIENCE).unwrap(), 2, "{name}");
    }
    let small = echo.client(ClientConfig::new().max_message(4096));
    let error = small.call::<_, Vec<u8>>(1, &vec![0u8; 5000], PATIENCE).unwrap_err();
    assert_eq!(code(&error), Code::TooLarge);
    assert!(error.to_string().contains("limit 4096 bytes"), "{error}");
}
