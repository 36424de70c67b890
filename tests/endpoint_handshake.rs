//! What the handshake accepts: every rule of the protocol as a row.

mod page;

use flipcall::ErrorKind;
use flipcall::endpoint::Greeting;
use flipcall::endpoint::{Acceptor, Connector, Options};
use page::{AT_ONCE, BASE, OFFER, Page, failed, waiting};

/// What a handshake datagram means.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Means {
    /// No extension.
    Base,
    /// Extension `park`.
    Park,
    /// `park` and something unknown.
    ParkAndMore,
    /// Only something unknown.
    More,
    /// A violation.
    Bad,
}
use Means::{Bad, Base, More, Park, ParkAndMore};

fn meaning(datagram: &[u8]) -> Means {
    match Greeting::parse(datagram) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Violation);
            Bad
        }
        Ok(greeting) => match (greeting.park(), greeting.names_unknown()) {
            (false, false) => Base,
            (true, false) => Park,
            (true, true) => ParkAndMore,
            (false, true) => More,
        },
    }
}

/// `{"flipcall":VALUE}` and a newline.
fn under_flipcall(value: &str) -> String {
    format!("{{\"flipcall\":{value}}}\n")
}

#[test]
fn what_is_sent() {
    assert_eq!(Greeting::with_park().encode(), OFFER);
    assert_eq!(Greeting::default().encode(), BASE);
    assert_eq!((meaning(OFFER), meaning(BASE)), (Park, Base));
}

#[test]
fn the_datagram_around_the_object() {
    let rows: &[(&[u8], Means)] = &[
        (b"", Bad),
        (b"\n", Bad),
        (b"{}", Bad),
        (b"{}\n\n", Bad),
        (b"{}\n{}\n", Bad),
        (b"{} {}\n", Bad),
        (b"{}\nx", Bad),
        (b"{}x\n", Bad),
        (b"{}\0\n", Bad),
        (b"{}\n\0", Bad),
        (b"{} \n", Bad),
        (b"{}\r\n", Bad),
        (b" {}\n", Bad),
        (b"\n{}\n", Bad),
        (b"\xEF\xBB\xBF{}\n", Bad),
        (b"{ \t\r\n}\n", Base),
        (b"[]\n", Bad),
        (b"null\n", Bad),
        (b"1\n", Bad),
        (b"\"{}\"\n", Bad),
        (b"{\n", Bad),
        (b"}\n", Bad),
        (b"{]\n", Bad),
        (b"{,}\n", Bad),
        (b"{\"a\":1,}\n", Bad),
        (b"{\"a\"}\n", Bad),
        (b"{\"a\" 1}\n", Bad),
        (b"{a:1}\n", Bad),
        (b"{1:1}\n", Bad),
        (b"{'a':1}\n", Bad),
        (b"{\"a\":01}\n", Bad),
        (b"{\"a\":+1}\n", Bad),
        (b"{\"a\":.1}\n", Bad),
        (b"{\"a\":NaN}\n", Bad),
        (b"{\"a\":1/**/}\n", Bad),
        (b"{\"a\":\"\x01\"}\n", Bad),
        (b"{\"a\":\"\n\"}\n", Bad),
        (b"{\"a\":\"\\x41\"}\n", Bad),
        (b"{\"a\":\"\\u12\"}\n", Bad),
        (b"{\"a\":\"\xFF\"}\n", Bad),
        (b"{\"a\":\"\xED\xA0\x80\"}\n", Bad),
        (b"{\"\xFF\":1}\n", Bad),
    ];
    for (datagram, expected) in rows {
        assert_eq!(meaning(datagram), *expected, "{}", datagram.escape_ascii());
    }
}

#[test]
fn keys_that_nobody_knows_are_ignored_whatever_they_hold() {
    let rows = [
        "{\"a\":1,\"b\":[1,{\"c\":null}],\"\":\"\"}\n",
        "{\"a\":1e99999}\n",
        "{\"a\":-123456789012345678901234567890123456789012345678901234567890.5E-99999}\n",
        "{\"a\":\"\\ud800\"}\n",
        "{\"\\udc00\":1}\n",
        "{\"a\":\"\\u0000\\\"\\\\{[\"}\n",
        "{\"Flipcall\":{\"version\":1,\"extensions\":[\"park\"]}}\n",
        "{\"a\":{\"flipcall\":{\"version\":1,\"extensions\":[\"park\"]}}}\n",
    ];
    for row in rows {
        assert_eq!(meaning(row.as_bytes()), Base, "{row}");
        let with_offer = row.replacen('{', "{\"flipcall\":{\"version\":1,\"extensions\":[\"park\"]},", 1);
        assert_eq!(meaning(with_offer.as_bytes()), Park, "{with_offer}");
    }
}

#[test]
fn what_stands_under_the_key() {
    let rows = [
        // Wrong types, and what is missing: base.
        ("null", Base),
        ("1", Base),
        ("\"park\"", Base),
        ("[\"park\"]", Base),
        ("{}", Base),
        ("{\"version\":1}", Base),
        ("{\"extensions\":[\"park\"]}", Base),
        ("{\"version\":1,\"extensions\":null}", Base),
        ("{\"version\":1,\"extensions\":\"park\"}", Base),
        ("{\"version\":1,\"extensions\":{\"park\":1}}", Base),
        ("{\"version\":1,\"extensions\":[\"park\",1]}", Base),
        ("{\"version\":1,\"extensions\":[[\"park\"]]}", Base),
        ("{\"version\":\"1\",\"extensions\":[\"park\"]}", Base),
        ("{\"version\":1.0,\"extensions\":[\"park\"]}", Base),
        ("{\"version\":1e0,\"extensions\":[\"park\"]}", Base),
        ("{\"version\":null,\"extensions\":[\"park\"]}", Base),
        // Another version: base.
        ("{\"version\":0,\"extensions\":[\"park\"]}", Base),
        ("{\"version\":2,\"extensions\":[\"park\"]}", Base),
        ("{\"version\":-1,\"extensions\":[\"park\"]}", Base),
        ("{\"version\":4294967297,\"extensions\":[\"park\"]}", Base),
        ("{\"version\":18446744073709551617,\"extensions\":[\"park\"]}", Base),
        ("{\"version\":1e999,\"extensions\":[\"park\"]}", Base),
        // Names.
        ("{\"version\":1,\"extensions\":[]}", Base),
        ("{\"version\":1,\"extensions\":[\"park\"]}", Park),
        ("{\"version\":1,\"extensions\":[\"park\",\"park\"]}", Park),
        ("{\"version\":1,\"extensions\":[\"Park\"]}", More),
        ("{\"version\":1,\"extensions\":[\"\"]}", More),
        ("{\"version\":1,\"extensions\":[\"warp\",\"park\"]}", ParkAndMore),
        ("{\"version\":1,\"extensions\":[\"park\",\"\\ud800\"]}", ParkAndMore),
        // Escapes, white space, order, unknown keys.
        ("{\"version\":1,\"extensions\":[\"p\\u0061rk\"]}", Park),
        ("{\"vers\\u0069on\":1,\"extensions\":[\"park\"]}", Park),
        (" \t{ \"extensions\" :\n[ \"park\" ] , \"version\" : 1 } ", Park),
        ("{\"version\":1,\"extensions\":[\"park\"],\"credits\":1e999}", Park),
        ("{\"version\":1,\"extensions\":[\"park\"],\"note\":\"\\udfff\"}", Park),
        // Of a key that comes twice the last one counts.
        ("{\"version\":2,\"extensions\":[\"park\"],\"version\":1}", Park),
        ("{\"version\":1,\"extensions\":[\"park\"],\"version\":2}", Base),
        ("{\"version\":1,\"extensions\":[\"park\"],\"extensions\":[]}", Base),
    ];
    for (value, expected) in rows {
        assert_eq!(meaning(under_flipcall(value).as_bytes()), expected, "{value}");
    }
}

#[test]
fn the_key_itself_twice_or_escaped() {
    let offer = "{\"version\":1,\"extensions\":[\"park\"]}";
    assert_eq!(meaning(format!("{{\"flipcall\":1,\"flipcall\":{offer}}}\n").as_bytes()), Park);
    assert_eq!(meaning(format!("{{\"flipcall\":{offer},\"flipcall\":1}}\n").as_bytes()), Base);
    assert_eq!(meaning(format!("{{\"fl\\u0069pcall\":{offer}}}\n").as_bytes()), Park);
}

#[test]
fn a_depth_of_16_is_the_deepest() {
    // The root is 1, so 15 more go under a key.
    let nested =
        |open: &str, close: &str, count: usize| format!("{{\"a\":{}0{}}}\n", open.repeat(count), close.repeat(count));
    for (open, close) in [("[", "]"), ("{\"b\":", "}")] {
        assert_eq!(meaning(nested(open, close, 15).as_bytes()), Base);
        assert_eq!(meaning(nested(open, close, 16).as_bytes()), Bad);
    }
    let inner = |count: usize| format!("{{\"version\":{}{}}}", "[".repeat(count), "]".repeat(count));
    assert_eq!(meaning(under_flipcall(&inner(14)).as_bytes()), Base);
    assert_eq!(meaning(under_flipcall(&inner(15)).as_bytes()), Bad);
    assert_eq!(meaning(b"{\"a\":\"[[[[[[[[[[[[[[[[[[[[\\\"[[[\"}\n"), Base, "brackets in a string nest nothing");
    assert_eq!(meaning(b"{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[\"}\n"), Base, "nor behind a quote that is escaped");
    assert_eq!(meaning(b"{\"a\":[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]}\n"), Base);
}

#[test]
fn a_datagram_of_4096_bytes_is_the_longest() {
    let padded = |length: usize| format!("{{\"a\":\"{}\"}}\n", "x".repeat(length - 9)).into_bytes();
    assert_eq!((padded(4096).len(), meaning(&padded(4096))), (4096, Base));
    assert_eq!((padded(4097).len(), meaning(&padded(4097))), (4097, Bad));
}

/// Bytes of the windows here: longer than the longest handshake.
const WINDOW: u32 = 8192;

/// What a server makes of an offer that a peer wrote by hand; its answer if it gave one.
fn offered(offer: &[u8], options: Options) -> Result<Vec<u8>, ErrorKind> {
    let page = Page::new(WINDOW);
    let server = Acceptor::new(page.window(), options).unwrap();
    page.flip(offer, 1);
    let result = server.recv_first(AT_ONCE);
    match page.words() {
        [0, length, 0, 0] => {
            drop(waiting(result));
            Ok(page.datagram(length))
        }
        [2, ..] => Err(failed(result).kind()),
        words => panic!("the header is {words:?}"),
    }
}

#[test]
fn a_server_accepts_the_part_of_an_offer_that_it_knows() {
    let more = under_flipcall("{\"version\":1,\"extensions\":[\"warp\",\"park\"]}");
    assert_eq!(offered(more.as_bytes(), Options::new()).unwrap(), OFFER);
    assert_eq!(offered(more.as_bytes(), Options::new().base_protocol()).unwrap(), BASE);
    let unknown = under_flipcall("{\"version\":1,\"extensions\":[\"warp\"]}");
    assert_eq!(offered(unknown.as_bytes(), Options::new()).unwrap(), BASE);
    assert_eq!(offered(BASE, Options::new()).unwrap(), BASE);
    assert_eq!(
        offered(under_flipcall("{\"version\":2,\"extensions\":[\"park\"]}").as_bytes(), Options::new()),
        Ok(BASE.into())
    );
    for bad in [b"".as_slice(), b"{}", b"{}\n\n", b"[]\n", &[b' '; 4097]] {
        assert_eq!(offered(bad, Options::new()), Err(ErrorKind::Violation));
    }
}

/// What a client makes of an answer that a peer wrote by hand: whether wakes are elided.
fn answered(answer: &[u8], options: Options) -> Result<bool, ErrorKind> {
    let page = Page::new(WINDOW);
    let client = waiting(Connector::new(page.window(), options).unwrap().connect(AT_ONCE));
    page.flip(answer, 0);
    client.connect(AT_ONCE).map(|endpoint| endpoint.elides_wakes()).map_err(|interrupted| interrupted.kind())
}

#[test]
fn a_client_accepts_nothing_that_it_did_not_offer() {
    let unknown = under_flipcall("{\"version\":1,\"extensions\":[\"warp\"]}");
    let both = under_flipcall("{\"version\":1,\"extensions\":[\"park\",\"warp\"]}");
    let other = under_flipcall("{\"version\":2,\"extensions\":[\"warp\"]}");
    assert_eq!(answered(OFFER, Options::new()), Ok(true));
    assert_eq!(answered(BASE, Options::new()), Ok(false));
    assert_eq!(answered(other.as_bytes(), Options::new()), Ok(false), "another version is the base protocol");
    assert_eq!(answered(OFFER, Options::new().base_protocol()), Err(ErrorKind::Violation));
    assert_eq!(answered(unknown.as_bytes(), Options::new()), Err(ErrorKind::Violation));
    assert_eq!(answered(both.as_bytes(), Options::new()), Err(ErrorKind::Violation));
    assert_eq!(answered(b"{}", Options::new()), Err(ErrorKind::Violation));
}
