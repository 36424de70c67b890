//! A server of typed calls under bad luck and malice: clients in processes of their own, or the server in one.

#[path = "../attacker/mod.rs"]
mod attacker;

mod closing;
mod costs;
mod descriptors;
mod ends;
mod frames;
mod quotas;
mod raw_client;
mod serving;
mod streams;
mod undead;

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[
        closing::ROLES,
        costs::ROLES,
        descriptors::ROLES,
        ends::ROLES,
        quotas::ROLES,
        serving::ROLES,
        undead::ROLES,
    ]);
}
