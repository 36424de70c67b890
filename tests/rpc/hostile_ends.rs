//! How each attack of `tests/rpc_server.py` has to end.

use std::error::Error;
use std::time::Duration;

use flipcall::rpc::CallError;
use flipcall::{Blame, ErrorKind};

use super::BOUND;

/// The deadline of a call that is never answered.
const SHORT: Duration = Duration::from_millis(300);

/// What becomes of a call, and of its channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// It is answered; the channel lives on.
    Answer,
    /// It is answered, and more came than the answer; the channel is given up before the next call.
    More,
    /// It fails because of what the server did; the channel lives on.
    Alone,
    /// It fails because of what the server did; the channel ends.
    Violation,
    /// It times out, and the channel is never used again.
    Timeout,
    /// The server is gone, or its half of the channel.
    Gone,
}

impl End {
    /// The end of an attack of this name.
    pub fn of(attack: &str) -> Self {
        let table = [
            ("two answers", Self::More),
            ("an answer and", Self::More),
            ("descriptors that nobody asked for", Self::Answer),
            ("fields ", Self::Alone),
            ("stops", Self::Timeout),
            ("closes", Self::Gone),
            ("dies", Self::Gone),
            ("shuts the window down", Self::Gone),
        ];
        table.iter().find(|(words, _)| attack.contains(words)).map_or(Self::Violation, |&(_, end)| end)
    }

    pub fn deadline(self) -> Duration {
        if self == Self::Timeout { SHORT } else { BOUND }
    }

    pub fn ends_channel(self) -> bool {
        !matches!(self, Self::Answer | Self::Alone)
    }

    /// Whether a call ended so, because of this rule if it was a violation.
    pub fn check<T>(self, what: &str, rule: &str, result: Result<T, CallError>) {
        let error = match result {
            Err(CallError::Failed(error)) => error,
            Ok(_) if matches!(self, Self::Answer | Self::More) => return,
            other => panic!("{what}: {:?}, not {self:?}", other.map(drop)),
        };
        let kinds: &[ErrorKind] = match self {
            Self::Answer | Self::More => &[],
            Self::Alone | Self::Violation => return check_violation(what, rule, &error),
            Self::Timeout => &[ErrorKind::Timeout],
            Self::Gone => &[ErrorKind::PeerGone, ErrorKind::PeerShutdown],
        };
        assert!(kinds.contains(&error.kind()), "{what}: {error:?}, not {self:?}");
        assert_eq!(error.kind().blame(), Blame::Peer, "{what}");
    }
}

/// Whether an error says that the peer broke this rule.
pub fn check_violation(what: &str, rule: &str, error: &flipcall::Error) {
    assert_eq!((error.kind(), error.kind().blame()), (ErrorKind::Violation, Blame::Peer), "{what}: {error:?}");
    let source = error.source().map(|source| format!("{source:?}")).unwrap_or_default();
    assert!(!rule.is_empty() && source.starts_with(rule), "{what}: {source}, not {rule}");
}

/// The rule that an attack of this name breaks, as the source of its error begins; empty if it breaks none.
pub fn rule_of(attack: &str) -> &'static str {
    let breaks = |&&(_, attacks): &&(&str, &[&str])| attacks.contains(&attack);
    RULES.iter().find(breaks).map_or("", |(rule, _)| rule)
}

/// Types: 65280 and on are the answers, 65520 and on OPEN, HELLO, ATTACH, BULK, CONTINUE.
const RULES: &[(&str, &[&str])] = &[
    ("Unexpected(0)", &["type 0 as the answer"]),
    ("Unexpected(1)", &["a request as the answer", "a request as bulk", "a request in parts", "a request to a stream"]),
    ("Unexpected(57005)", &["HELLO: garbage"]),
    (
        "Unexpected(65280)",
        &["another frame where bulk is due", "a later part of type RESPONSE", "a chunk, then a response"],
    ),
    (
        "Unexpected(65280)",
        &["a response where a part is due", "a response instead of CONTINUE", "a response to a stream"],
    ),
    ("Unexpected(65280)", &["HELLO: a status that is not 0", "HELLO: nothing"]),
    ("Unexpected(65281)", &["an error instead of CONTINUE"]),
    ("Unexpected(65282)", &["a chunk as the answer", "a chunk and 200 KiB behind it", "a later part of type CHUNK"]),
    ("Unexpected(65282)", &["CONTINUE, then another type", "HELLO: a chunk", "OPEN: a chunk and 200 KiB behind it"]),
    ("Unexpected(65283)", &["an end as the answer"]),
    ("Unexpected(65521)", &["HELLO as the answer"]),
    ("Unexpected(65522)", &["ATTACH as the answer"]),
    ("Unexpected(65523)", &["BULK as the answer", "a first part of type BULK"]),
    ("Unexpected(65524)", &["CONTINUE as the answer", "CONTINUE to a stream", "CONTINUE with more behind it"]),
    ("Unexpected(65524)", &["CONTINUE with descriptors", "CONTINUE with flags"]),
    ("Malformed(65280)", &["a status that is not 0", "a response of nothing", "bulk with a status that is not 0"]),
    ("Malformed(65280)", &["fields that do not decode", "fields that do not decode, for more is behind"]),
    ("Malformed(65280)", &["fields that do not decode, with descriptors", "fields in bulk that do not decode"]),
    ("Malformed(65280)", &["fields in parts that do not decode"]),
    ("Malformed(65281)", &["an error of nothing", "an error that is cut off", "an error that is not UTF-8"]),
    ("Malformed(65281)", &["an error with 4 GiB of text", "a chunk, then half an error", "HELLO: an error of nothing"]),
    ("Malformed(65521)", &["HELLO: version 0", "HELLO: version 2", "HELLO: a maximum of 4,095", "HELLO: cut off"]),
    ("Malformed(65521)", &["HELLO: an extension that was not offered", "HELLO: 2^32 - 1 extensions"]),
    (
        "Malformed(65521)",
        &["HELLO: parts, and an extension that was not offered", "HELLO: an extension that is not UTF-8"],
    ),
    ("Datagram(0)", &["a datagram of nothing", "CONTINUE of nothing"]),
    ("Datagram(3)", &["a datagram of three bytes", "CONTINUE that is cut off"]),
    ("Datagram(4)", &["bulk without a length"]),
    ("Datagram(13)", &["bulk with more than a length"]),
    ("Datagram(15)", &["a later datagram of 15 bytes"]),
    ("Datagram(3016)", &["a part instead of CONTINUE"]),
    ("Length { length: 4294967280", &["a datagram longer than the window", "a later datagram longer than the window"]),
    ("State(7)", &["state 7", "a part, then state 7"]),
    ("Flags(0)", &["a later part with flags 0"]),
    ("Flags(1)", &["an error as bulk", "a chunk as bulk"]),
    ("Flags(2)", &["an error in parts", "a chunk in parts"]),
    ("Flags(3)", &["a first part with flags 3", "a later part with flags 3"]),
    ("Flags(6)", &["a first part with flags 6"]),
    ("Flags(128)", &["flag 128"]),
    ("Descriptors(0)", &["a request with descriptors", "OPEN: a chunk", "OPEN: a status that is not 0"]),
    ("Descriptors(0)", &["OPEN: an error with descriptors"]),
    ("Descriptors(1)", &["descriptors that never came", "fewer descriptors than came"]),
    ("Descriptors(1)", &["a first part whose descriptors never came", "a later part that says descriptors"]),
    ("Descriptors(1)", &["a later part with descriptors"]),
    ("Descriptors(2)", &["more descriptors than came"]),
    ("Descriptors(17)", &["a first part with 17 descriptors"]),
    // How many depends on the transport.
    ("Descriptors(", &["an error with descriptors", "a chunk with descriptors", "a stream's chunk with descriptors"]),
    ("Descriptors(", &["a stream's end with descriptors"]),
    ("Descriptors(17)", &["seventeen descriptors"]),
    ("MalformedAttach", &["ATTACH of seventeen"]),
    ("MisplacedFds", &["descriptors without ATTACH"]),
    ("AttachWithoutFds", &["ATTACH without descriptors", "ATTACH of none"]),
    ("WrongFdCount { announced: 2, came: 1 }", &["ATTACH of two with one"]),
    ("WrongFdCount { announced: 1, came: 253 }", &["253 descriptors"]),
    ("SecondAttach", &["ATTACH and another"]),
    ("TooLong { announced: 4294967295", &["a frame of 4 GiB", "a bulk frame of 4 GiB", "OPEN: a frame of 4 GiB"]),
    ("TooLong { announced: 2097153", &["a frame over the maximum"]),
    ("TooLong { announced: 1048577", &["a long first frame"]),
    ("TooLarge(1099511627776)", &["bulk of 2^40 bytes", "parts of 2^40 bytes"]),
    ("TooLarge(2097153)", &["bulk over the maximum", "parts over the maximum"]),
    ("TooLarge(2097157)", &["more than the maximum in the window"]),
    ("TooLarge(2097165)", &["an error over the maximum in the window"]),
    ("Bulk(0)", &["bulk of nothing", "an empty frame", "parts of nothing"]),
    ("Bulk(100)", &["a short first frame", "a bulk frame with descriptors"]),
    ("Bulk(101)", &["a long last frame", "an only frame that is long"]),
    ("Fragment(0)", &["a first part longer than the whole", "a first part with reserved bytes"]),
    ("Fragment(0)", &["a first part of no bytes", "a first part of 1 byte", "a first part of 2,047 bytes"]),
    ("Fragment(0)", &["a part that was there before"]),
    ("Fragment(3000)", &["a later part of no bytes", "a later part of 1 byte", "a later part of 2,047 bytes"]),
    ("Fragment(3000)", &["more than was announced", "a later part with reserved bytes"]),
    ("Fragment(3001)", &["a part at the wrong place"]),
    ("Fragment(1099511627776)", &["a part at 2^40"]),
];
