//! A peer that writes any handshake datagram.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, unused_imports, reason = "each fuzzer runs one of them")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::handshake(data));
