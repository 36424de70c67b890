//! Feature `postcard`: serde types as payloads.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flipcall::rpc::codec::{DecodeError, Postcard, from_bytes, to_bytes};
use flipcall::rpc::{Client, Code, Router, Server};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

type Value = (u64, Option<i32>, BTreeMap<u8, (bool, char)>, [u16; 3]);

fn value() -> Value {
    (300, Some(-2), BTreeMap::from([(1, (true, 'ö')), (9, (false, 'z'))]), [1, 256, 65_535])
}

#[test]
fn what_goes_in_comes_out() {
    for value in [value(), Value::default()] {
        assert_eq!(from_bytes::<Postcard<Value>>(&to_bytes(&Postcard(value.clone()))), Ok(Postcard(value)));
    }
    // The format is postcard's own: a varint and nothing around it.
    assert_eq!(to_bytes(&Postcard(300u64)), [0xAC, 0x02]);
}

#[test]
fn bytes_that_are_no_value_are_refused() {
    let whole = to_bytes(&Postcard(value()));
    for length in 0..whole.len() {
        assert_eq!(from_bytes::<Postcard<Value>>(&whole[..length]), Err(DecodeError::Invalid), "{length} bytes");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(from_bytes::<Postcard<Value>>(&longer), Err(DecodeError::TrailingBytes));
    assert_eq!(from_bytes::<Postcard<bool>>(&[2]), Err(DecodeError::Invalid));
    // A length of 2^35 is refused, not allocated.
    assert_eq!(from_bytes::<Postcard<BTreeMap<u8, u8>>>(&[0x80, 0x80, 0x80, 0x80, 0x80, 1]), Err(DecodeError::Invalid));
}

#[test]
fn a_call_carries_them_and_a_malformed_request_is_error_2() {
    let mut router = Router::new();
    router.unary(1, |_, Postcard(value): Postcard<Value>| Ok(Postcard((value.0 + 1, value.1, value.2, value.3))));
    let server = Server::new(router, Default::default());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = std::thread::spawn(move || server.serve_one(theirs));
    let client = Client::from_socket(ours, Default::default()).unwrap();
    let Postcard(answer): Postcard<Value> = client.call(1, &Postcard(value()), PATIENCE).unwrap();
    assert_eq!((answer.0, answer.2), (301, value().2));
    let error = client.call::<_, Postcard<Value>>(1, &Postcard(u64::MAX), PATIENCE).unwrap_err();
    assert_eq!(error.status().unwrap().code, Code::InvalidArgument);
    let error = client.call::<_, Postcard<bool>>(1, &Postcard(value()), PATIENCE).unwrap_err();
    assert!(error.status().is_none(), "an answer that does not decode is no status: {error}");
    let again: Postcard<Value> = client.call(1, &Postcard(value()), PATIENCE).unwrap();
    assert_eq!(again.0.0, 301);
    drop(client);
    serving.join().unwrap().unwrap();
}

/// Contains itself.
struct Chain(Option<Box<Chain>>);

impl<'de> serde::Deserialize<'de> for Chain {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

/// Contains itself through a list.
struct Tree(Vec<Tree>);

impl<'de> serde::Deserialize<'de> for Tree {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

/// Issue 13, A6. Both have the same bytes.
#[test]
fn recursion_ends_at_sixty_four_levels() {
    let deep = |levels: usize| [vec![1; levels - 1], vec![0]].concat();
    for levels in [65, 40_000, 120_000] {
        assert_eq!(from_bytes::<Postcard<Chain>>(&deep(levels)).err(), Some(DecodeError::TooDeep), "{levels}");
        assert_eq!(from_bytes::<Postcard<Tree>>(&deep(levels)).err(), Some(DecodeError::TooDeep), "{levels}");
    }
    assert!(from_bytes::<Postcard<Chain>>(&deep(64)).unwrap().0.0.is_some());
    assert_eq!(from_bytes::<Postcard<Tree>>(&deep(64)).unwrap().0.0.len(), 1);
}

/// Issue 13, B11.
#[test]
fn memory_is_bounded_by_the_bytes_that_came() {
    // 2^40 values without a size, in seven bytes: they would take for ever.
    let endless = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
    assert_eq!(from_bytes::<Postcard<Vec<()>>>(&endless).err(), Some(DecodeError::TooLarge));
    let bytes = [vec![0x80, 0xEA, 0x30], vec![0; 800_000]].concat();
    // 24 and 16 bytes for each byte are within the bound, 40 are not.
    assert_eq!(from_bytes::<Postcard<Vec<String>>>(&bytes).unwrap().0.len(), 800_000);
    assert_eq!(from_bytes::<Postcard<Vec<Option<u64>>>>(&bytes).unwrap().0.len(), 800_000);
    assert_eq!(from_bytes::<Postcard<Vec<Option<[u64; 4]>>>>(&bytes).err(), Some(DecodeError::TooLarge));
    // What lies in a box is counted, too.
    let boxes = [vec![0x80, 0x08], [1u8, 0].repeat(1024), vec![0; 31 * 1024]].concat();
    assert!(from_bytes::<Postcard<Vec<Option<Box<(u8, u8)>>>>>(&boxes).is_err());
    let text = to_bytes(&Postcard(vec!["x"; 100_000]));
    assert_eq!(from_bytes::<Postcard<Vec<String>>>(&text).unwrap().0.len(), 100_000);
    let entries: BTreeMap<u32, String> = (0..50_000).map(|key| (key, "ab".to_owned())).collect();
    assert_eq!(
        from_bytes::<Postcard<BTreeMap<u32, String>>>(&to_bytes(&Postcard(entries.clone()))).unwrap().0,
        entries
    );
}
