//! Descriptors whose close takes long, sent by a second process: no thread that has a deadline closes one, and what they cost is bounded.

#[path = "../attacker/mod.rs"]
mod attacker;

mod bounded;
mod lingering;

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[lingering::ROLES, bounded::ROLES]);
}
