//! HELLO: how both sides agree on version 1 and its extensions.

use super::answer::{NoValue, response};
use super::number::{FRAGMENTS, HELLO, LEAST_MAXIMUM, MOST_EXTENSIONS, MOST_HELLO, RESPONSE, VERSION};
use super::outgoing::Outgoing;
use super::prefix::Prefix;
use super::request::unknown;
use crate::rpc::codec::from_bytes;
use crate::rpc::{CallViolation, Code, Status};

crate::message! {
    /// HELLO, and its answer behind the zero byte.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Hello {
        /// The version that the sender speaks.
        pub version: u32,
        /// The largest message that the sender takes, in bytes.
        pub maximum: u64,
        /// The extensions that the sender knows, or accepts.
        pub extensions: Vec<String>,
    }
}

/// What both sides of a connection agreed on; it holds for its channels, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// The base protocol: no deadlines, no descriptors, no windows.
    Base,
    /// Version 1.
    Version1 {
        /// The largest message that the other side takes, in bytes.
        maximum: u64,
        /// Whether payloads that do not fit a window go through it in fragments.
        fragments: bool,
    },
}

impl Agreement {
    /// Whether requests have deadlines and messages may have descriptors.
    #[inline]
    pub fn is_version1(self) -> bool {
        matches!(self, Self::Version1 { .. })
    }

    /// Whether payloads that do not fit a window go through it in fragments.
    pub fn fragments(self) -> bool {
        matches!(self, Self::Version1 { fragments: true, .. })
    }

    /// The largest message that the other side takes, in bytes.
    #[inline]
    pub fn maximum(self) -> Option<u64> {
        match self {
            Self::Base => None,
            Self::Version1 { maximum, .. } => Some(maximum),
        }
    }
}

/// The extensions that this crate knows, if any are wanted.
fn extensions(wanted: bool) -> Vec<String> {
    if wanted { vec![FRAGMENTS.to_owned()] } else { Vec::new() }
}

impl Hello {
    /// What a side says that takes messages of up to `maximum` bytes.
    pub fn new(maximum: u32, wants_extensions: bool) -> Self {
        Self { version: VERSION, maximum: u64::from(maximum), extensions: extensions(wants_extensions) }
    }

    /// The message of a client that offers this.
    pub fn message(&self) -> Outgoing<'_> {
        Outgoing { tag: HELLO, prefix: Prefix::None, value: self, fds: 0 }
    }

    /// What a client makes of the message that came in answer to this offer.
    ///
    /// # Errors
    /// The server refused, or broke the protocol: the connection is of no use. Error 2 is no refusal: it is how a server says that it
    /// speaks the base protocol.
    pub fn answered(&self, tag: u16, has_fds: bool, payload: &[u8]) -> Result<Agreement, NoValue> {
        let fields = match response(tag, has_fds, payload) {
            Ok(fields) => fields,
            Err(NoValue::Status(status)) if status.code == Code::InvalidArgument => return Ok(Agreement::Base),
            // A response without its status byte is no answer to a HELLO.
            Err(NoValue::Violation(CallViolation::Malformed(RESPONSE))) => {
                return Err(CallViolation::Unexpected(RESPONSE).into());
            }
            Err(other) => return Err(other),
        };
        match Self::parse(fields) {
            Ok(answer) if self.is_agreed_to_by(&answer) => Ok(answer.agreement(&answer.extensions)),
            _ => Err(CallViolation::Malformed(HELLO).into()),
        }
    }

    /// What `payload` says. Its size and the number of its extensions are checked before anything of it is kept.
    ///
    /// # Errors
    /// The answer to one that is malformed.
    fn parse(payload: &[u8]) -> Result<Self, Status> {
        if payload.len() > MOST_HELLO as usize {
            return Err(too_long());
        }
        // The count stands behind the version and the maximum.
        let count = payload.get(12..).and_then(|rest| rest.first_chunk()).map(|count| u32::from_be_bytes(*count));
        if count.is_some_and(|count| count as usize > MOST_EXTENSIONS) {
            return Err(Status::invalid_argument(format!("a HELLO with over {MOST_EXTENSIONS} extensions")));
        }
        from_bytes(payload).map_err(Status::from)
    }

    fn is_agreed_to_by(&self, answer: &Self) -> bool {
        let offered = answer.extensions.iter().all(|extension| self.extensions.contains(extension));
        answer.version == VERSION && answer.maximum >= LEAST_MAXIMUM && offered
    }

    /// What holds once both sides know these extensions, on the side that received this.
    fn agreement(&self, extensions: &[String]) -> Agreement {
        let fragments = extensions.iter().any(|extension| extension == FRAGMENTS);
        Agreement::Version1 { maximum: self.maximum, fragments }
    }

    /// What a server says about a client's HELLO that is not acceptable.
    fn fault(&self) -> Option<&'static str> {
        if self.version == 0 {
            return Some("there is no version 0");
        }
        (self.maximum < LEAST_MAXIMUM).then_some("the maximum message is under 4,096 bytes")
    }
}

/// The answer to a HELLO that is too long to be read.
#[cold]
fn too_long() -> Status {
    Status::invalid_argument(format!("a HELLO of over {MOST_HELLO} bytes"))
}

/// The answer to a request that is not worth receiving: a HELLO over its maximum.
pub fn unworthy(tag: u16, length: u64) -> Option<Status> {
    (tag == HELLO && length > u64::from(MOST_HELLO)).then(too_long)
}

/// What a server may agree to.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Whether it speaks version 1 at all.
    pub version1: bool,
    /// Whether it accepts the extensions that this crate knows.
    pub extensions: bool,
    /// The largest message that it takes, in bytes.
    pub maximum: u32,
}

/// A server's side of the beginning of a connection: HELLO is the first call on it, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// Nothing came yet.
    Expected,
    /// HELLO came, or may not come any more.
    Over(Agreement),
}

impl Greeting {
    /// What is agreed on so far.
    #[inline]
    pub fn agreement(self) -> Agreement {
        match self {
            Self::Expected => Agreement::Base,
            Self::Over(agreement) => agreement,
        }
    }

    /// A request came that is not HELLO, or that could not be received whole.
    #[inline]
    pub fn other(&mut self) {
        *self = Self::Over(self.agreement());
    }

    /// HELLO came: the answer. From then on the agreement holds.
    ///
    /// # Errors
    /// The answer to one that is refused. The connection stays as it was.
    pub fn hello(&mut self, terms: Terms, payload: &[u8]) -> Result<Hello, Status> {
        let is_first = *self == Self::Expected;
        self.other();
        if !terms.version1 {
            return Err(unknown(HELLO));
        }
        let hello = Hello::parse(payload)?;
        if !is_first {
            return Err(Status::invalid_argument("HELLO is the first call on a connection"));
        }
        if let Some(fault) = hello.fault() {
            return Err(Status::invalid_argument(fault));
        }
        let mut answer = Hello::new(terms.maximum, terms.extensions);
        answer.extensions.retain(|extension| hello.extensions.contains(extension));
        *self = Self::Over(hello.agreement(&answer.extensions));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::codec::to_bytes;
    use crate::rpc::message::number::{CHUNK, ERROR, OK};

    const TERMS: Terms = Terms { version1: true, extensions: true, maximum: 1 << 20 };

    fn answer(hello: &Hello) -> Vec<u8> {
        to_bytes(&(OK, hello.version, hello.maximum, hello.extensions.clone()))
    }

    #[test]
    fn both_sides_come_to_one_agreement() {
        for (offers, accepts, version1) in (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)) {
            let offer = Hello::new(1 << 16, offers);
            let mut greeting = Greeting::Expected;
            let terms = Terms { version1, extensions: accepts, ..TERMS };
            let fragments = offers && accepts;
            match greeting.hello(terms, &to_bytes(&offer)) {
                Ok(hello) => {
                    let theirs = offer.answered(RESPONSE, false, &answer(&hello));
                    assert_eq!(theirs, Ok(Agreement::Version1 { maximum: 1 << 20, fragments }));
                    assert_eq!(greeting.agreement(), Agreement::Version1 { maximum: 1 << 16, fragments });
                }
                Err(status) => {
                    assert!(!version1 && status.code == Code::InvalidArgument);
                    assert_eq!(offer.answered(ERROR, false, &to_bytes(&status)), Ok(Agreement::Base));
                    assert_eq!(greeting.agreement(), Agreement::Base);
                }
            }
        }
    }

    /// Every offer: what is asked of it, and whether it is acceptable.
    #[test]
    fn an_offer_is_judged_by_its_version_its_maximum_and_its_extensions() {
        for version in [0, 1, 2, u32::MAX] {
            for maximum in [0, LEAST_MAXIMUM - 1, LEAST_MAXIMUM, u64::MAX] {
                for count in [0, 1, MOST_EXTENSIONS, MOST_EXTENSIONS + 1] {
                    for name in ["other", FRAGMENTS] {
                        let hello = Hello { version, maximum, extensions: vec![name.to_owned(); count] };
                        let mut greeting = Greeting::Expected;
                        let answered = greeting.hello(TERMS, &to_bytes(&hello));
                        let is_good = version > 0 && maximum >= LEAST_MAXIMUM && count <= MOST_EXTENSIONS;
                        assert_eq!(answered.is_ok(), is_good, "{hello:?}");
                        assert_eq!(greeting.agreement().is_version1(), is_good);
                        let fragments = is_good && name == FRAGMENTS && count > 0;
                        assert_eq!(greeting.agreement().fragments(), fragments);
                        if let Ok(answer) = answered {
                            assert_eq!((answer.version, answer.extensions.len()), (VERSION, usize::from(fragments)));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_second_or_late_one_is_refused_and_changes_nothing() {
        let good = to_bytes(&Hello::new(5000, true));
        let bad = to_bytes(&Hello { version: 0, ..Hello::new(5000, true) });
        let mut agreed = Greeting::Expected;
        agreed.hello(TERMS, &good).unwrap();
        let agreement = agreed.agreement();
        for payload in [&good[..], &bad, &[1, 2, 3]] {
            assert_eq!(agreed.hello(TERMS, payload).unwrap_err().code, Code::InvalidArgument);
            assert_eq!(agreed.agreement(), agreement);
        }
        for first in [&bad[..], &[1, 2, 3]] {
            let mut greeting = Greeting::Expected;
            assert!(greeting.hello(TERMS, first).is_err());
            assert!(greeting.hello(TERMS, &good).is_err(), "the first call was another");
            assert_eq!(greeting.agreement(), Agreement::Base);
        }
        let mut late = Greeting::Expected;
        late.other();
        assert!(late.hello(TERMS, &good).is_err());
    }

    #[test]
    fn an_answer_that_was_not_offered_is_a_violation() {
        let offer = Hello::new(1 << 20, true);
        let none = Hello::new(1 << 20, false);
        let malformed = Err(CallViolation::Malformed(HELLO).into());
        let with = |version, maximum, extension: &str| {
            answer(&Hello { version, maximum, extensions: vec![extension.to_owned()] })
        };
        assert!(offer.answered(RESPONSE, false, &with(1, LEAST_MAXIMUM, FRAGMENTS)).is_ok());
        for bad in [
            with(0, 5000, FRAGMENTS),
            with(2, 5000, FRAGMENTS),
            with(1, LEAST_MAXIMUM - 1, FRAGMENTS),
            with(1, 5000, "x"),
        ] {
            assert_eq!(offer.answered(RESPONSE, false, &bad), malformed);
        }
        assert_eq!(none.answered(RESPONSE, false, &with(1, 5000, FRAGMENTS)), malformed);
        let unexpected = Err(CallViolation::Unexpected(RESPONSE).into());
        assert_eq!(offer.answered(RESPONSE, false, &[]), unexpected);
        assert_eq!(offer.answered(RESPONSE, false, &[1]), unexpected);
        assert_eq!(offer.answered(RESPONSE, false, &[OK, 1]), malformed);
        assert_eq!(offer.answered(CHUNK, false, &[]), Err(CallViolation::Unexpected(CHUNK).into()));
        assert_eq!(offer.answered(ERROR, false, &[2]), Err(CallViolation::Malformed(ERROR).into()));
        for code in (0..=u8::MAX).map(Code::from) {
            let status = Status::new(code, "");
            let expected =
                if code == Code::InvalidArgument { Ok(Agreement::Base) } else { Err(NoValue::Status(status.clone())) };
            assert_eq!(offer.answered(ERROR, false, &to_bytes(&status)), expected);
        }
    }
}
