//! Attacks on an endpoint of ours by a real second process, row by row of the threat table in DESIGN.md.
//!
//! Each test bounds how long our side may take; the figures it prints (with `--nocapture`) are what `ci/hostile.sh --full` reports.

#[path = "../attacker/mod.rs"]
mod attacker;

mod closing;
mod confined;
mod death;
mod descriptors;
mod freezer;
mod fuse;
mod futexes;
mod holes;
mod memory;
mod scarce;
mod signals;
mod silence;
mod undead;

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[
        memory::ROLES,
        silence::ROLES,
        futexes::ROLES,
        death::ROLES,
        holes::ROLES,
        descriptors::ROLES,
        confined::ROLES,
        scarce::ROLES,
        signals::ROLES,
        undead::ROLES,
    ]);
}
