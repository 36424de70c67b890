//! One side that keeps no rule against the state table: each rule is broken once, and named.

use super::control::{Control, MAX_CONTROL, Reason};
use super::state::{Event, FRAME_COST, Key, StateTable, Terms};
use crate::stream::frame::header::Header;
use crate::stream::frame::violation::{FrameViolation, MuxViolation};

const TERMS: Terms = Terms { initiator: false, max_frame: 100, max_channels: 2, credit: 2 * (100 + FRAME_COST as u32) };

/// The payload of a control frame.
fn payload(control: Control<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    control.encode(&mut frame);
    frame.split_off(Header::SIZE)
}

/// A side that a peer has said HELLO to.
fn greeted() -> StateTable {
    let mut table = StateTable::new(TERMS);
    table.receive(0, &payload(Control::Hello { max_frame: 100, max_channels: 2 })).unwrap();
    table.take_outgoing(&mut Vec::new());
    table
}

fn open(id: u16) -> Vec<u8> {
    payload(Control::Open { id, credit: TERMS.credit, name: "x" })
}

fn offer(table: &mut StateTable, id: u16) -> Option<Key> {
    match table.receive(0, &open(id)).unwrap() {
        Event::Offered(key, _) => Some(key),
        Event::Nothing => None,
        _ => panic!("OPEN is an offer or refused"),
    }
}

fn violation(received: Result<Event<'_>, FrameViolation>) -> MuxViolation {
    match received {
        Err(FrameViolation::Mux(violation)) => violation,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no violation"),
    }
}

#[test]
fn data_over_the_credit_is_a_violation() {
    let mut table = greeted();
    let key = offer(&mut table, 1).unwrap();
    assert!(table.accept(key));
    for _ in 0..2 {
        assert!(matches!(table.receive(1, &[0; 100]), Ok(Event::Data(_))));
    }
    assert!(matches!(violation(table.receive(1, &[])), MuxViolation::OverCredit(1)));
    // What was consumed may come again, and no more.
    table.consume(key, 100);
    table.take_outgoing(&mut Vec::new());
    assert!(matches!(table.receive(1, &[0; 100]), Ok(Event::Data(_))));
    assert!(matches!(violation(table.receive(1, &[])), MuxViolation::OverCredit(1)));
    assert!(matches!(table.receive(1, &[0; 101]), Err(FrameViolation::TooLong { announced: 101, maximum: 100 })));
}

#[test]
fn channels_past_the_limit_are_refused() {
    let mut table = greeted();
    assert!(offer(&mut table, 1).is_some() && offer(&mut table, 3).is_some());
    assert!(offer(&mut table, 5).is_none());
    let mut outgoing = Vec::new();
    table.take_outgoing(&mut outgoing);
    assert_eq!(outgoing[Header::SIZE..], payload(Control::Refuse { id: 5, reason: Reason::TOO_MANY }));
}

#[test]
fn a_control_frame_over_the_longest_is_not_looked_at() {
    let mut longest = open(1);
    longest.resize(MAX_CONTROL + 1, 0);
    // It would be an OPEN of 256 bytes of name, if names could be as long.
    longest[7..9].copy_from_slice(&256u16.to_be_bytes());
    assert!(matches!(violation(greeted().receive(0, &longest)), MuxViolation::Malformed));
}

#[test]
fn each_rule_has_its_violation() {
    let hello = payload(Control::Hello { max_frame: 100, max_channels: 2 });
    assert!(matches!(violation(StateTable::new(TERMS).receive(0, &open(1))), MuxViolation::NoHello));
    assert!(matches!(violation(StateTable::new(TERMS).receive(1, &[])), MuxViolation::NoHello));
    assert!(matches!(violation(greeted().receive(0, &hello)), MuxViolation::SecondHello));
    for id in [0, 2] {
        assert!(matches!(violation(greeted().receive(0, &open(id))), MuxViolation::WrongParity(_)));
    }
    let mut table = greeted();
    assert!(table.receive(0, &open(1)).is_ok());
    assert!(matches!(violation(table.receive(0, &open(1))), MuxViolation::Forbidden { id: 1, .. }));
    assert!(matches!(violation(table.receive(1, &[])), MuxViolation::Forbidden { id: 1, .. }), "not accepted yet");
    assert!(matches!(violation(table.receive(9, &[])), MuxViolation::Forbidden { id: 9, .. }), "idle");
    for credit in [0, 115, u32::MAX] {
        let open = payload(Control::Open { id: 3, credit, name: "x" });
        assert!(matches!(violation(table.receive(0, &open)), MuxViolation::BadCredit(3)));
    }
    assert!(matches!(
        violation(table.receive(0, &payload(Control::Credit { id: 1, add: 0 }))),
        MuxViolation::BadCredit(1)
    ));
    let accept = payload(Control::Accept { id: 1, credit: 1000 });
    assert!(matches!(violation(table.receive(0, &accept)), MuxViolation::Forbidden { id: 1, .. }));
}
