//! The handshake datagrams: a JSON object and a newline.
//!
//! The base object is `{}`. Extensions live under one key, which peers that know none ignore:
//! `{"flipcall":{"version":1,"extensions":["park"]}}`.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::control::StateViolation;
use crate::error::{Error, ErrorKind, Result};

/// The most bytes of a handshake datagram.
pub(super) const LONGEST: u32 = 4096;
/// The deepest nesting of a handshake object, the root being 1: a bound for whatever parser is behind it.
const DEEPEST: usize = 16;
/// The key under which extensions live.
const KEY: &str = "flipcall";
/// The version of the extension scheme.
const VERSION: u64 = 1;
/// The name of wake elision.
const PARK: &str = "park";

/// What one side says in the handshake.
///
/// ```
/// use flipcall::endpoint::Greeting;
///
/// assert_eq!(Greeting::default().encode(), b"{}\n");
/// let offer = Greeting::with_park();
/// assert_eq!(Greeting::parse(offer.encode())?, offer);
/// assert!(Greeting::parse(b"{}").is_err(), "the newline is missing");
/// # Ok::<(), flipcall::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Greeting {
    park: bool,
    unknown: bool,
}

impl Greeting {
    /// Offers, or accepts, extension `park`. The default offers nothing.
    #[must_use]
    pub const fn with_park() -> Self {
        Self { park: true, unknown: false }
    }

    /// Whether extension `park` is among the extensions named.
    #[must_use]
    pub fn park(&self) -> bool {
        self.park
    }

    /// Whether an extension is named that this crate does not know.
    #[must_use]
    pub fn names_unknown(&self) -> bool {
        self.unknown
    }

    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> &'static [u8] {
        match self.park {
            true => b"{\"flipcall\":{\"version\":1,\"extensions\":[\"park\"]}}\n",
            false => b"{}\n",
        }
    }

    /// Reads a datagram. What stands under `flipcall` but has another version or the wrong types counts as no extension at all.
    ///
    /// # Errors
    /// [`Violation`](ErrorKind::Violation) if it is over 4,096 bytes, lacks the newline, has bytes after it, is not one JSON object, or
    /// nests deeper than 16.
    pub fn parse(datagram: &[u8]) -> Result<Self> {
        parse(datagram).map_err(|fault| {
            Error::caused(ErrorKind::Violation, "the peer broke the protocol", StateViolation::Handshake(fault))
        })
    }
}

pub(super) fn parse(datagram: &[u8]) -> std::result::Result<Greeting, &'static str> {
    if datagram.len() > LONGEST as usize {
        return Err("it has more than 4,096 bytes");
    }
    let line = datagram.strip_suffix(b"\n").ok_or("it does not end with a newline")?;
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    if !text.starts_with('{') || !text.ends_with('}') {
        return Err("it is not an object and a newline");
    }
    if depth(line) > DEEPEST {
        return Err("it nests deeper than 16");
    }
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| "it is not a JSON object")?;
    Ok(members.get(KEY).and_then(extensions).unwrap_or_default())
}

/// The deepest nesting of brackets outside strings. In bad JSON it may be off, which the parser then finds.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The members of an object, as they stand in the text. Only their syntax is checked: a number of any size or a lone surrogate in what
/// nobody asks for breaks no rule of JSON.
struct Members<'de>(Vec<(&'de str, &'de str)>);

impl<'de> Members<'de> {
    /// Of a key that comes twice the last one counts.
    fn get(&self, name: &str) -> Option<&'de str> {
        self.0.iter().rev().find(|(key, _)| string(key).is_some_and(|key| key == name)).map(|&(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        from.deserialize_map(EveryMember)
    }
}

struct EveryMember;

impl<'de> Visitor<'de> for EveryMember {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            members.push((key.get(), value.get()));
        }
        Ok(Members(members))
    }
}

/// The value of a string, unless its escapes name half a character: no name of ours does.
fn string(text: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str(text).ok()
}

/// The value of `flipcall`, if its types and its version are ours.
fn extensions(value: &str) -> Option<Greeting> {
    let members: Members<'_> = serde_json::from_str(value).ok()?;
    let version: u64 = serde_json::from_str(members.get("version")?).ok()?;
    if version != VERSION {
        return None;
    }
    let names: Vec<&RawValue> = serde_json::from_str(members.get("extensions")?).ok()?;
    let mut greeting = Greeting::default();
    for name in names {
        if !name.get().starts_with('"') {
            return None;
        }
        match string(name.get()) {
            Some(name) if name == PARK => greeting.park = true,
            _ => greeting.unknown = true,
        }
    }
    Some(greeting)
}
