//! Every pairing answers every call, byte for byte.

use crate::place::Place;
use crate::process::{Kind, Running, Side, command};

/// Payloads in bytes: none, one, what shares the header's cache line, what fills a page, sixteen of them, and a mebibyte.
const PAYLOADS: [u32; 6] = [0, 1, 48, 4080, 65_520, (1 << 20) - 16];

/// The largest payload that makes as many calls as asked for.
const SMALL: u32 = 4080;

/// Bytes that the calls of a larger payload carry together.
const LARGE_TOTAL: u32 = 16 << 20;

/// Calls of each pairing with a small payload, unless the environment says otherwise.
const CALLS: u32 = 2000;

fn calls(payload: u32) -> u32 {
    if payload > SMALL {
        return LARGE_TOTAL / payload;
    }
    match std::env::var("FLIPCALL_INTEROP_CALLS") {
        Ok(number) => number.parse().expect("FLIPCALL_INTEROP_CALLS is a number"),
        Err(_) => CALLS,
    }
}

/// Runs one pairing to its end with every payload; the client checks the bytes.
fn pair(client: Kind, server: Kind, policy: &str) {
    for payload in PAYLOADS {
        let (Some(serving), Some(calling)) = (command(server, Side::Server), command(client, Side::Client)) else {
            return;
        };
        let place = Place::allocate(payload);
        let of = |kind| if kind == Kind::Rust { vec!["--policy", policy] } else { Vec::new() };
        let serving = Running::on(&place, serving, &of(server));
        let (count, size) = (calls(payload).to_string(), payload.to_string());
        let mut arguments = of(client);
        arguments.extend(["--calls", &count, "--payload", &size]);
        let calling = Running::on(&place, calling, &arguments).finish().succeeded();
        let bytes = u64::from(calls(payload)) * u64::from(payload);
        let expected = format!("calls={count} bytes={bytes} ns_per_call=");
        assert!(calling.lines[0].starts_with(&expected), "{policy} {payload}: {calling:?}");
        serving.finish().succeeded();
    }
}

#[test]
fn rust_calls_go_spinning() {
    pair(Kind::Rust, Kind::Go, "spin");
}

#[test]
fn rust_calls_go_adaptively() {
    pair(Kind::Rust, Kind::Go, "adaptive");
}

#[test]
fn rust_calls_go_parking() {
    pair(Kind::Rust, Kind::Go, "park");
}

#[test]
fn go_calls_rust_spinning() {
    pair(Kind::Go, Kind::Rust, "spin");
}

#[test]
fn go_calls_rust_adaptively() {
    pair(Kind::Go, Kind::Rust, "adaptive");
}

#[test]
fn go_calls_rust_parking() {
    pair(Kind::Go, Kind::Rust, "park");
}

#[test]
fn go_calls_go() {
    pair(Kind::Go, Kind::Go, "");
}
