//! Checks why a server gave up a client's channel, which only the events of the feature `tracing` tell.

#[cfg(not(feature = "tracing"))]
pub fn validate_ends() {}

#[cfg(feature = "tracing")]
pub use events::validate_ends;

#[cfg(feature = "tracing")]
mod events {
    use std::fmt::{Debug, Write};
    use std::sync::Once;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// From now on, a channel of a server in this process that ends for another reason than its client panics.
    pub fn validate_ends() {
        static VALIDATING: Once = Once::new();
        VALIDATING.call_once(|| tracing::subscriber::set_global_default(Validator).expect("nobody else listens"));
    }

    /// How the errors begin that a client's messages may lead to: violations, and its own deadline inside a transfer.
    const BLAMED: [&str; 3] =
        ["the peer broke the protocol", "the deadline passed", "the peer did not answer by the deadline"];

    struct Validator;

    #[derive(Default)]
    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, "{field}={value:?} ").expect("a string has room");
        }
    }

    impl Subscriber for Validator {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("flipcall::rpc")
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut text = Text::default();
            event.record(&mut text);
            let Text(text) = text;
            if text.contains("message=a client's channel or connection ended") {
                let blamed = BLAMED.iter().any(|start| text.contains(&format!("error={start}")));
                assert!(blamed, "the client's messages led to {text}");
            }
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }
}
