//! The two memory orders that no model looks at.
//!
//! The models run with a fence between the flip's exchange and the load of the peer's word; what ships has none, and both accesses are
//! sequentially consistent in its place (`src/control/transfer.rs`, DESIGN.md "Departures"). Weaken one of them and every model stays green,
//! and so does every test on a machine whose exchange is a full barrier anyway.

use crate::scan::{code_of, line_of};

const PLACE: &str = "src/control/transfer.rs";
/// Stands between the two.
const FENCE: &str = "fence_after_exchange()";

/// The arguments of the call whose parenthesis opens at `open`.
fn arguments(code: &str, open: usize) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, open + 1, Vec::new());
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b',' if depth == 1 => {
                found.push(code[start..at].trim());
                start = at + 1;
            }
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    found.push(code[start..at].trim());
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|argument| !argument.is_empty());
    found
}

/// What is wrong with the orders in a text: each exchange succeeds with SeqCst, and the first load behind each fence is one.
fn faults(text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut faults = Vec::new();
    let mut check = |at: usize, what: &str, order: Option<&&str>| {
        if order != Some(&"Ordering::SeqCst") {
            faults.push(format!("{PLACE}:{}: {what} is {order:?}, not Ordering::SeqCst", line_of(&code, at)));
        }
    };
    let exchanges: Vec<usize> = code.match_indices(".compare_exchange").map(|(at, _)| at).collect();
    for &at in &exchanges {
        let open = at + code[at..].find('(').unwrap_or_default();
        check(at, "the order of an exchange", arguments(&code, open).get(2));
    }
    let fences: Vec<usize> = code.match_indices(FENCE).map(|(at, _)| at).collect();
    for &at in &fences {
        let load = code[at..].find(".load(").map(|load| at + load + ".load".len());
        check(at, "the load behind the fence", load.and_then(|open| arguments(&code, open).first().copied()).as_ref());
    }
    if exchanges.is_empty() || fences.is_empty() {
        faults.push(format!(
            "{PLACE}: {} exchanges and {} fences: what this rule is for is gone",
            exchanges.len(),
            fences.len()
        ));
    }
    faults
}

#[test]
fn the_flip_and_the_look_behind_it_are_sequentially_consistent() {
    crate::expect_none(faults(&crate::read(PLACE)));
}

#[test]
fn a_weaker_order_can_be_seen_to_break_the_rule() {
    let flip = |exchange: &str, load: &str| {
        format!(
            "fn flip() {{\n    // Ordering::SeqCst\n    words.state.compare_exchange(ours(1), theirs, {exchange}, Ordering::Relaxed)?;\n    \
             fence_after_exchange();\n    word(words, peer).load({load}) == 0\n}}\n"
        )
    };
    let good = "Ordering::SeqCst";
    assert_eq!(faults(&flip(good, good)), Vec::<String>::new());
    for weak in ["Ordering::AcqRel", "Ordering::Release", "Ordering::Relaxed", "order", ""] {
        assert_eq!(faults(&flip(weak, good)).len(), 1, "{weak}");
        assert_eq!(faults(&flip(good, weak)).len(), 1, "{weak}");
    }
    assert_eq!(faults(&flip(good, good).replace("    fence_after_exchange();\n", "")).len(), 1);
    assert_eq!(faults("").len(), 1);
    // The real text, weakened.
    let text = crate::read(PLACE);
    let weakened = [
        text.replacen("theirs, Ordering::SeqCst", "theirs, Ordering::AcqRel", 1),
        text.replacen(".load(Ordering::SeqCst)", ".load(Ordering::Acquire)", 1),
    ];
    assert!(weakened.iter().all(|weakened| *weakened == text || faults(weakened).len() == 1));
}
