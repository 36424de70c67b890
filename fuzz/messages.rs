//! The core of typed calls, driven without a socket, a window or a second process: whatever the bytes are, its types keep their promises.

use flipcall::rpc::codec::to_bytes;
use flipcall::rpc::message::answer::{Chunk, ChunkReceiver, overdue, response};
use flipcall::rpc::message::arrival::{Arrival, Whereabouts};
use flipcall::rpc::message::bulk::{BulkReceiver, BulkSender, BulkStep, announcement};
use flipcall::rpc::message::fragment::{FragmentReceiver, FragmentSender, FragmentStep};
use flipcall::rpc::message::head::{WindowHead, expect_continue};
use flipcall::rpc::message::hello::{Agreement, Greeting, Hello, Terms};
use flipcall::rpc::message::number::{
    BULK, BULK_FRAME, CONTINUE, ERROR, FLAG_FRAGMENT, FRAGMENT_HEAD, LEAST_FRAGMENT, LEAST_MAXIMUM, OK, RESPONSE,
    WINDOW_HEAD,
};
use flipcall::rpc::message::open::{Open, Opened};
use flipcall::rpc::message::{request, stream::ChunkSender};

use super::Input;

/// Steps of a transfer that an input may ask for.
const STEPS: u32 = 200;

/// The first byte says what the rest is.
pub fn message(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 6 {
        0 => arrival(&mut input),
        1 => fragments(&mut input),
        2 => transfer(&mut input),
        3 => bulk(&mut input),
        4 => hello(&mut input),
        _ => messages(&mut input),
    }
}

fn long(input: &mut Input<'_>) -> u64 {
    let number = u64::from(input.number());
    match input.byte() % 4 {
        0 => number << 32 | number,
        1 => number << 12,
        _ => number,
    }
}

/// A head: its type, descriptors and flags.
fn head(input: &mut Input<'_>) -> WindowHead {
    let tag = match input.byte() {
        service @ ..0x80 => u16::from(service),
        answer @ 0x80..0xF0 => 0xFF00 | u16::from(answer & 0x0F),
        other => 0xFF00 | u16::from(other),
    };
    WindowHead { tag, fds: input.byte() % 20, flags: input.byte() % 5 }
}

/// The front of a datagram, which may be shorter than it says.
fn arrival(input: &mut Input<'_>) {
    let (fragments, maximum, datagram) = (input.byte().is_multiple_of(2), long(input), input.number());
    let mut front = head(input).encode().to_vec();
    front.extend(input.take(12));
    front.resize(Arrival::FRONT, 0);
    front.truncate(datagram as usize);
    let Ok(arrival) = Arrival::parse(&front, datagram, maximum, fragments) else { return };
    let parsed = WindowHead::parse(*front.first_chunk().expect("it has a head"));
    assert_eq!((arrival.tag, arrival.fds), (parsed.tag, parsed.fds));
    assert!(arrival.fds <= 16 && arrival.payload.length() <= maximum);
    match arrival.payload {
        Whereabouts::Here(length) => assert!(parsed.flags == 0 && length + WINDOW_HEAD as u32 == datagram),
        Whereabouts::Bulk(frames) => {
            let again = announcement(WindowHead { flags: 0, ..parsed }, frames.length() as u64);
            assert_eq!(again[..], front[..], "an announcement is written in one way");
        }
        Whereabouts::Fragments(payload) => {
            assert!(fragments && datagram >= FRAGMENT_HEAD as u32 + LEAST_FRAGMENT);
            assert_eq!(payload.current(), 0..datagram as usize - FRAGMENT_HEAD);
        }
    }
}

/// Fragments as a peer likes them: what is accepted lies one behind the other, and ends at the length.
fn fragments(input: &mut Input<'_>) {
    let (length, maximum) = (long(input), long(input));
    let Ok(mut receiver) = FragmentReceiver::begin(length, maximum, input.number()) else { return };
    assert!(length <= maximum && receiver.length() as u64 == length);
    while !input.is_empty() {
        let before = receiver.current();
        assert!(before.end <= receiver.length() && !before.is_empty());
        assert_eq!(receiver.is_complete(), before.end == receiver.length());
        let mut front = WindowHead { tag: BULK, fds: 0, flags: FLAG_FRAGMENT }.encode().to_vec();
        front.extend([0; 4]);
        front.extend((before.end as u64).to_ne_bytes());
        let is_good = !input.byte().is_multiple_of(4);
        if !is_good {
            let (at, bit) = (usize::from(input.byte()) % FRAGMENT_HEAD, input.byte() % 8);
            front[at] ^= 1 << bit;
        }
        let datagram = input.number();
        front.truncate(datagram as usize);
        match receiver.next(datagram, &front) {
            Ok(()) => {
                let now = receiver.current();
                assert!(is_good && now.start == before.end && now.len() == datagram as usize - FRAGMENT_HEAD);
                assert!(receiver.is_complete() || now.len() >= LEAST_FRAGMENT as usize);
            }
            Err(_) => assert_eq!(receiver.current(), before, "what is refused changes nothing"),
        }
    }
}

/// A sender whose payload comes in pieces of any size, against a receiver.
fn transfer(input: &mut Input<'_>) {
    let capacity = (1 + u32::from(input.byte() % 20)) * 4096 - 16;
    let announced = u64::from(capacity) - WINDOW_HEAD as u64 + 1 + u64::from(input.number()) % (1 << 20);
    let mut sender = FragmentSender::new(WindowHead { tag: RESPONSE, fds: 0, flags: 0 }, announced, capacity);
    let mut receiver: Option<FragmentReceiver> = None;
    let mut arrive = |fragment: flipcall::rpc::message::fragment::Fragment| {
        let result = match &mut receiver {
            Some(receiver) => receiver.next(fragment.datagram, &fragment.head).map(|()| receiver.is_complete()),
            None => {
                let parsed = Arrival::parse(&fragment.head, fragment.datagram, u64::MAX, true);
                let Ok(Arrival { payload: Whereabouts::Fragments(first), .. }) = parsed else {
                    panic!("the first fragment is {parsed:?}")
                };
                Ok(receiver.insert(first).is_complete())
            }
        };
        result.expect("a sender keeps the rules")
    };
    let mut sent = 0u64;
    for _ in 0..STEPS {
        let mut waiting = input.number() as usize % (1 << 17);
        let overruns = sent + waiting as u64 > announced;
        while waiting > 0 {
            match sender.step(waiting) {
                Ok(FragmentStep::Fill { at, count }) => {
                    assert!(count > 0 && count <= waiting && at as usize + count <= capacity as usize);
                    sender.filled(count);
                    (waiting, sent) = (waiting - count, sent + count as u64);
                }
                Ok(FragmentStep::HandOver(fragment)) => {
                    assert!(!arrive(fragment), "nobody asks for more behind the last");
                    sender.handed_over();
                }
                Err(_) => {
                    assert!(overruns);
                    return;
                }
            }
        }
        assert!(!overruns);
    }
    match sender.finish() {
        Ok(last) => assert!(arrive(last) && sent == announced),
        Err(_) => assert!(sent < announced),
    }
}

/// Frames of bulk, cut by a sender or told by the input.
fn bulk(input: &mut Input<'_>) {
    let (length, maximum) = (long(input), long(input));
    let Ok(mut receiver) = BulkReceiver::new(length, maximum) else { return };
    let (mut sender, mut brought) = (BulkSender::new(length), 0u64);
    for _ in 0..STEPS {
        assert_eq!(receiver.is_complete(), brought == length);
        if input.byte().is_multiple_of(4) {
            let (tag, size) = (head(input).tag, input.number() as usize);
            let (mut other, due) = (receiver, receiver.expected());
            let accepted = other.accept(tag, size, input.byte().is_multiple_of(8));
            assert!(accepted.is_err() || (tag == BULK && size == due && size > 0 && size <= BULK_FRAME));
            continue;
        }
        match sender.step(usize::MAX) {
            Ok(BulkStep::Header(size)) => {
                receiver.accept(BULK, size as usize, false).expect("a sender keeps the rules");
                brought += u64::from(size);
            }
            Ok(BulkStep::Payload(count)) => assert!(count > 0 && count <= BULK_FRAME),
            Err(_) => {
                assert!(sender.is_complete() && receiver.is_complete());
                break;
            }
        }
    }
}

/// HELLO: any bytes as an offer, and as an answer.
fn hello(input: &mut Input<'_>) {
    let what = input.byte();
    let maximum = (input.number()).max(LEAST_MAXIMUM as u32);
    let terms = Terms { version1: what & 1 == 0, extensions: what & 2 == 0, maximum };
    let offer = Hello::new(maximum, what & 4 == 0);
    let mut greeting = Greeting::Expected;
    if what & 8 == 0 {
        greeting.other();
    }
    let was_first = greeting == Greeting::Expected;
    let said = if what & 16 == 0 { to_bytes(&offer) } else { input.0.to_vec() };
    match greeting.hello(terms, &said) {
        Ok(answer) => {
            assert!(was_first && terms.version1 && greeting.agreement().is_version1());
            assert!(greeting.agreement().maximum().is_some_and(|maximum| maximum >= LEAST_MAXIMUM));
            assert!(terms.extensions || answer.extensions.is_empty());
            if what & 16 == 0 {
                let bytes = [&[OK][..], &to_bytes(&answer)].concat();
                assert_eq!(offer.answered(RESPONSE, false, &bytes), Ok(greeting.agreement()));
            }
        }
        Err(status) => {
            assert_eq!(greeting.agreement(), Agreement::Base);
            assert_eq!(offer.answered(ERROR, false, &to_bytes(&status)), Ok(Agreement::Base));
        }
    }
    let agreed = greeting.agreement();
    assert!(greeting.hello(terms, &to_bytes(&offer)).is_err() && greeting.agreement() == agreed, "there is one HELLO");
    if let Ok(agreement) = offer.answered(head(input).tag, false, input.0) {
        assert!(!agreement.fragments() || what & 4 == 0, "what was not offered is not agreed on");
    }
}

/// Messages of a stream and of a call, requests, OPEN and its answer.
fn messages(input: &mut Input<'_>) {
    let (mut stream, mut sender) = (ChunkReceiver::Begun, ChunkSender::Ready);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let (head, has_fds, count) = (head(input), input.byte().is_multiple_of(4), u32::from(input.byte() % 32));
        let payload = input.take(count);
        let was_over = stream == ChunkReceiver::Over;
        match stream.take(head.tag, has_fds, payload) {
            Ok(Chunk::Chunk(bytes)) => assert!(!was_over && stream.asks() && bytes == payload && !has_fds),
            Ok(Chunk::End(bytes)) => assert!(!was_over && bytes == payload && stream == ChunkReceiver::Over),
            Err(_) => assert_eq!(stream, ChunkReceiver::Over),
        }
        if let Ok(fields) = response(head.tag, has_fds, payload) {
            assert!(head.tag == RESPONSE && overdue(head.tag).is_ok() && payload[1..] == *fields);
        }
        let front = &head.encode()[..WINDOW_HEAD.min(count as usize)];
        assert_eq!(expect_continue(count, front).is_ok(), head == WindowHead::CONTINUE && count == 4);
        let was_ready = sender.is_ready();
        sender.chunk(has_fds);
        let asked = sender.came(count, front).is_ok();
        assert_eq!(sender.is_ready(), was_ready && has_fds && asked && head.tag == CONTINUE);
        if sender == ChunkSender::Over {
            sender = ChunkSender::Ready;
        }
        assert_eq!(request::check(head.tag).is_err(), request::is_forbidden(head.tag));
        if let Ok((_, rest)) = request::split(payload, has_fds) {
            assert_eq!(rest.len(), payload.len() - if has_fds { 8 } else { 0 });
        }
        if let Ok(open) = Open::parse(payload, has_fds) {
            let (most, page) = (16 << 20, 4096);
            let granted = open.granted(most, page);
            assert!(granted <= most && granted % page == 0 && (granted == 0) == (open.window == 0) && !has_fds);
        }
        if let Ok(opened) = Opened::parse(payload) {
            let fds = usize::from(head.fds);
            assert!(opened.check(Some(fds)).is_err() || fds == if opened.has_window() { 2 } else { 1 });
        }
    }
}
