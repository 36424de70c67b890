//! Our extended handshake against gVisor's decoder: accepted, and without effect.

use flipcall::endpoint::Greeting;
use flipcall::endpoint::{Counters, Options};
use flipcall::window::HEADER_LEN;
use rustix::io::pread;

use crate::ours::{Ours, await_flips};
use crate::place::Place;
use crate::process::{Kind, Running, Side, command};

/// Asserts that every flip made a system call, whatever the peer said about itself.
fn woke_every_time(counters: Counters, flips: u64) {
    assert_eq!(counters.flips, flips, "{counters:?}");
    assert_eq!(counters.wakes_elided, 0, "{counters:?}");
    // A shutdown wakes once more.
    assert!(counters.wakes_sent >= flips, "{counters:?}");
}

#[test]
fn gvisor_accepts_an_offer_of_extensions() {
    let Some(go) = command(Kind::Go, Side::Server) else { return };
    let place = Place::allocate(48);
    let ours = Ours::new(Side::Client, &place, Options::new());
    let handle = ours.handle();
    let playing = std::thread::spawn(move || ours.run(100));
    // The offer is in the window before gVisor looks at it.
    await_flips(&handle, 1);
    let offer = Greeting::with_park().encode();
    let mut bytes = vec![0; offer.len()];
    pread(&place.fd, &mut bytes, place.offset + u64::from(HEADER_LEN)).expect("the window can be read");
    assert_eq!(bytes, offer);

    let go = Running::on(&place, go, &[]);
    let endpoint = playing.join().expect("no panic").expect("100 calls");
    assert!(!endpoint.elides_wakes());
    woke_every_time(endpoint.counters(), 101);
    drop(endpoint);
    go.finish().succeeded();
}

#[test]
fn gvisor_is_served_without_extensions() {
    let Some(go) = command(Kind::Go, Side::Client) else { return };
    let place = Place::allocate(48);
    let go = Running::on(&place, go, &["--calls", "100"]);
    let ours = Ours::new(Side::Server, &place, Options::new());
    let handle = ours.handle();
    let endpoint = ours.run(99).expect("99 calls answered, the last one received");
    assert!(!endpoint.elides_wakes());
    woke_every_time(handle.counters(), 100);
    drop(endpoint);
    go.finish().failed_with("shutdown");
}

#[test]
fn the_base_protocol_alone_is_understood_too() {
    let Some(go) = command(Kind::Go, Side::Server) else { return };
    let place = Place::allocate(48);
    let go = Running::on(&place, go, &[]);
    let endpoint = Ours::new(Side::Client, &place, Options::new().base_protocol()).run(100).expect("100 calls");
    woke_every_time(endpoint.counters(), 101);
    drop(endpoint);
    go.finish().succeeded();
}
