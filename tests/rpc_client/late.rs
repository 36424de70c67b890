//! Late calls cost their own channels, and those come back.

use std::time::{Duration, Instant};

use flipcall::ErrorKind;
use flipcall::rpc::ClientConfig;

use super::{PATIENCE, alone, go_on, kind, next, sleep, start, stop, threads, until_served, ways};

/// Issue 13, A1. More calls are late than the server serves at a time, and the client lives on.
#[test]
fn a_late_call_costs_its_own_channel_only() {
    const HANDLER: u32 = 3000;
    for (name, config) in ways() {
        let (client, _child) = start(config);
        assert_eq!(next(&client, PATIENCE).unwrap(), 2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_millis(2500) {
                        let error = sleep(&client, HANDLER, Duration::from_millis(50)).unwrap_err();
                        let kind = kind(&error);
                        assert!(matches!(kind, Some(ErrorKind::Timeout | ErrorKind::NoResource)), "{name}: {error:?}");
                    }
                });
            }
        });
        assert!(client.is_alive(), "{name}");
        // The last of the server's sleeps ends 3 s after it began, then it is well.
        let well = until_served(&client);
        assert!(well < 10 * (Duration::from_millis(HANDLER.into()) + Duration::from_secs(1)), "{name}: {well:?}");
        assert!(client.is_alive() && client.counters().lost == 0, "{name}: {:?}", client.counters());
        println!("{name}: {:?}, well after {well:?}", client.counters());
    }
}

/// Issue 13, A1. The default limits: 65 slow calls with short deadlines are one more than there are channels.
#[test]
fn more_slow_calls_than_channels_leave_the_client_alive() {
    let (client, _child) = start(ClientConfig::new());
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| sleep(&client, 2500, Duration::from_millis(200)).unwrap_err());
        }
    });
    sleep(&client, 2500, Duration::from_millis(200)).unwrap_err();
    std::thread::sleep(Duration::from_millis(1300));
    assert!(client.is_alive(), "no late call took the connection with it");
    until_served(&client);
    assert!(client.is_alive() && client.counters().lost == 0, "{:?}", client.counters());
}

/// Issue 13, A1. Without a channel there is an error of this side, by the deadline, which names the limit.
#[test]
fn with_no_channel_to_be_had_a_call_fails_by_its_deadline() {
    const DEADLINE: Duration = Duration::from_millis(100);
    for (name, config) in ways() {
        let (client, _child) = start(config.channels(2));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| sleep(&client, 1000, PATIENCE).unwrap());
            }
            std::thread::sleep(Duration::from_millis(300));
            let begun = Instant::now();
            let error = next(&client, DEADLINE).unwrap_err();
            let took = begun.elapsed();
            assert!(took >= DEADLINE && took < 10 * DEADLINE, "{name}: {took:?}");
            assert_eq!(kind(&error), Some(ErrorKind::NoResource), "{name}: {error}");
            assert_eq!(kind(&error).map(ErrorKind::blame), Some(flipcall::Blame::Us));
            let text = error.to_string();
            assert!(text.contains("no resource left") && text.contains("all 2 channels"), "{name}: {text}");
            assert_eq!(next(&client, PATIENCE).unwrap(), 2, "{name}: who waits long enough gets one");
        });
        assert_eq!(client.counters().channels_opened, 2, "{name}");
    }
}

/// Issue 13, A1. A channel that is set aside is one of the client's.
#[test]
fn what_is_set_aside_counts_against_the_limit() {
    for (name, config) in ways() {
        let (client, _child) = start(config.channels(2));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| sleep(&client, 700, Duration::from_millis(100)).unwrap_err());
            }
        });
        let error = next(&client, Duration::from_millis(100)).unwrap_err();
        assert_eq!(kind(&error), Some(ErrorKind::NoResource), "{name}: {error}");
        assert_eq!(next(&client, PATIENCE).unwrap(), 2, "{name}");
        assert_eq!(client.counters().channels_opened, 2, "{name}: they came back");
    }
}

/// Issue 13, A1. What never answers does not keep its place for ever.
#[test]
fn a_channel_whose_answer_never_comes_makes_room() {
    for (name, config) in ways() {
        let (client, _child) = start(config.channels(1));
        sleep(&client, 3_600_000, Duration::from_millis(50)).unwrap_err();
        let begun = Instant::now();
        assert_eq!(next(&client, PATIENCE).unwrap(), 2, "{name}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
        assert_eq!(client.counters().channels_opened, 2, "{name}");
    }
}

/// Issue 13, A1. A server that is stopped answers nothing at all: what is set aside stays within the limit, and costs one thread.
#[test]
fn what_is_set_aside_counts_and_costs_one_thread() {
    alone("late::set_aside_by_a_silent_server");
}

#[test]
#[ignore = "what_is_set_aside_counts_and_costs_one_thread runs it"]
fn set_aside_by_a_silent_server() {
    const CALLERS: usize = 8;
    // 64 channels with two descriptors each, and as many at the server.
    flipcall::rpc::raise_descriptor_limit().unwrap();
    for (name, config) in ways() {
        let (client, child) = start(config);
        std::thread::scope(|scope| {
            // All channels are open before the server falls silent.
            for _ in 0..64 {
                scope.spawn(|| sleep(&client, 500, PATIENCE).unwrap());
            }
        });
        assert_eq!(client.counters().channels_opened, 64, "{name}");
        let before = threads();
        stop(&child);
        let until = Instant::now() + Duration::from_millis(1800);
        let most = std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    while Instant::now() < until {
                        next(&client, Duration::from_millis(5)).unwrap_err();
                    }
                });
            }
            let mut most = 0;
            while Instant::now() < until {
                most = most.max(threads());
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        assert!(most <= before + CALLERS + 2, "{name}: {most} threads, {before} before");
        go_on(&child);
        assert!(client.is_alive(), "{name}");
        let well = until_served(&client);
        assert!(well < Duration::from_secs(10), "{name}: {well:?}");
        println!("{name}: {most} threads at most, {before} before; well after {well:?}");
    }
}

/// Issue 13, A1. A server of the base protocol has one connection by definition; a late call does not end it either.
#[test]
fn the_base_protocol_outlives_a_late_call() {
    let (client, _child) = start(ClientConfig::new().base_protocol());
    assert_eq!(kind(&sleep(&client, 2000, Duration::from_millis(50)).unwrap_err()), Some(ErrorKind::Timeout));
    let error = next(&client, Duration::from_millis(50)).unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::NoResource), "{error}");
    std::thread::sleep(Duration::from_millis(1500));
    until_served(&client);
}

/// The thread of the quarantine ends when there is nothing more to look after, and a dropped client leaves nothing in it.
#[test]
fn nothing_stays_in_quarantine() {
    alone("late::the_quarantine_ends");
}

#[test]
#[ignore = "nothing_stays_in_quarantine runs it"]
fn the_quarantine_ends() {
    let is_there = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim() == "flipcall-aside").count()
    };
    for (name, config) in ways() {
        let (client, _child) = start(config);
        sleep(&client, 3_600_000, Duration::from_millis(20)).unwrap_err();
        let begun = Instant::now();
        while is_there() == 0 {
            // It gives itself its name.
            assert!(begun.elapsed() < Duration::from_millis(900), "{name}");
        }
        assert_eq!(is_there(), 1, "{name}");
        drop(client);
        while is_there() > 0 {
            std::thread::sleep(Duration::from_millis(1));
            assert!(begun.elapsed() < PATIENCE, "{name}");
        }
        assert!(begun.elapsed() < Duration::from_millis(900), "{name}: nobody waits for it any more");
    }
}
