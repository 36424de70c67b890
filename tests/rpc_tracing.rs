//! Feature `tracing`: what happens to connections and channels is told, and nothing is told by a call where nothing happens.
//!
//! One test in a process of its own: events of all its threads go to one subscriber. What the calls themselves bring is asserted by the
//! story that is told, with and without the feature.

#[path = "rpc/child.rs"]
mod child;
#[path = "rpc/story.rs"]
mod story;

use std::fmt::{Debug, Write};
use std::sync::Mutex;

use story::Step;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the events of this crate as lines.
struct Lines;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The events since the last time.
fn told() -> Vec<String> {
    std::mem::take(&mut *LINES.lock().unwrap())
}

fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.contains(what)).count()
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("flipcall")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!("{} ", event.metadata().level()));
        event.record(&mut text);
        LINES.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The second process.
#[test]
#[ignore = "is started by another test"]
fn as_the_server() {
    story::serve_the_story();
}

#[test]
fn what_happens_is_told_and_a_call_is_not() {
    tracing::subscriber::set_global_default(Lines).unwrap();
    story::tell(|step| {
        let lines = told();
        let only = |what| assert_eq!((lines.len(), count(&lines, what)), (1, 1), "{step:?}: {lines:?}");
        match step {
            Step::Connected => only("INFO message=connected version=1"),
            Step::Called => only("DEBUG message=channel opened window=262144"),
            Step::CalledOften | Step::CalledAfterLate => assert_eq!(lines, [""; 0], "{step:?}: a call tells nothing"),
            Step::Late => only("WARN message=a call missed its deadline tag=2"),
            Step::ServerKilled => assert!(count(&lines, "message=a channel ended") >= 1, "{lines:?}"),
            Step::ConnectedAgain => {}
            Step::FellBack => {
                assert_eq!(count(&lines, "WARN message=no window to be had"), 1, "{lines:?}");
                assert_eq!(count(&lines, "message=channel opened window=0"), 1, "{lines:?}");
            }
        }
    });
}
