//! The story of `rpc_tracing.rs` where nobody listens: built without feature `tracing`, the calls bring the same.
//!
//! One test in a process of its own: it lowers the descriptor limit for a moment.

#[path = "rpc/child.rs"]
mod child;
#[path = "rpc/story.rs"]
mod story;

/// The second process.
#[test]
#[ignore = "is started by another test"]
fn as_the_server() {
    story::serve_the_story();
}

#[test]
fn the_same_happens_where_nobody_listens() {
    let mut steps = Vec::new();
    story::tell(|step| steps.push(step));
    assert_eq!((steps.len(), steps.last()), (8, Some(&story::Step::FellBack)));
    println!("feature tracing: {}; all {} steps as told", cfg!(feature = "tracing"), steps.len());
}
