//! A test is named after the layer that it tests, so that a reader of a layer finds its tests by their names.

use super::{LAYERS, expect_none};

/// What tests the whole crate, or serves several tests.
const OTHERS: [&str; 8] = ["api", "attacker", "confinement", "corpus", "docs", "house_rules", "page", "vectors"];

/// Whether a file or folder of `tests/` may have this name.
fn is_fine(name: &str) -> bool {
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    let layer = stem.split_once('_').map_or(stem, |(layer, _)| layer);
    OTHERS.contains(&stem) || LAYERS.iter().any(|&(known, _)| known == layer)
}

#[test]
fn a_test_is_named_after_its_layer() {
    let entries = std::fs::read_dir("tests").expect("the tests are there");
    let names = entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.filter(|name| !name.starts_with('.') && name != "__pycache__").collect();
    assert!(names.iter().any(|name| name == "house_rules.rs"), "the wrong folder: {names:?}");
    let faults = names.iter().filter(|name| !is_fine(name));
    expect_none(faults.map(|name| format!("tests/{name} does not begin with the name of a layer")).collect());
    assert!(is_fine("endpoint_wire.rs") && is_fine("rpc") && is_fine("docs.rs"));
    assert!(!is_fine("wire.rs") && !is_fine("hostile") && !is_fine("endpoints.rs") && !is_fine("mux_client.py"));
}
