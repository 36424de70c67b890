//! What a peer's message can cost the side that decodes it: recursion and memory, of requests and of answers.

#[path = "rpc/child.rs"]
mod child;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use child::PATIENCE;
use flipcall::rpc::codec::{Decode, DecodeError, Decoder, List, from_bytes, to_bytes};
use flipcall::rpc::{Client, Code, Router};

flipcall::message! {
    /// Contains itself through a list.
    struct Tree {
        children: List<Tree>,
    }
    /// Takes no bytes and no memory.
    #[derive(Clone)]
    struct Nothing {}
}

/// Contains itself, with an implementation that says nothing of it.
struct Chain(Option<Box<Chain>>);

impl<'a> Decode<'a> for Chain {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self(if decoder.bool()? { Some(Box::new(Self::decode(decoder)?)) } else { None }))
    }
}

impl Chain {
    fn length(&self) -> usize {
        self.0.as_ref().map_or(1, |next| 1 + next.length())
    }
}

/// Contains itself through a list, with no struct of `message!`.
struct Lists(List<Lists>);

impl<'a> Decode<'a> for Lists {
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        List::decode(decoder).map(Self)
    }
}

/// A tree without branches, `depth` levels deep; a list of lists is the same on the wire.
fn tree(depth: usize) -> Vec<u8> {
    let inner = 1u32.to_be_bytes().repeat(depth - 1);
    [inner, vec![0; 4]].concat()
}

fn chain(length: usize) -> Vec<u8> {
    [vec![1; length - 1], vec![0]].concat()
}

/// The types, how they are called, and bytes of some depth.
type Bytes = fn(usize) -> Vec<u8>;
const TREE: u16 = 1;
const CHAIN: u16 = 2;
const LISTS: u16 = 3;
/// Answers with the bytes of its request.
const ECHO: u16 = 4;
const RECURSIVE: [(u16, Bytes); 3] = [(TREE, tree), (CHAIN, chain), (LISTS, tree)];

/// The second process.
#[test]
#[ignore = "is started by another test"]
fn as_the_server() {
    let mut router = Router::new();
    router
        .unary(TREE, |_, tree: Tree| Ok(tree.children.0.len() as u32))
        .unary(CHAIN, |_, chain: Chain| Ok(chain.length() as u32))
        .unary(LISTS, |_, lists: Lists| Ok(lists.0.0.len() as u32))
        .raw(ECHO, |context, request, reply| reply.send_now(context, &flipcall::rpc::codec::Raw(request)));
    child::serve(router);
}

/// Issue 13, A6.
#[test]
fn a_request_of_a_recursive_type_is_an_error_and_the_server_lives_on() {
    let (client, _server) = child::start(Default::default());
    for (method, bytes) in RECURSIVE {
        for deep in [20_000, 120_000] {
            let error = client.call_raw(method, &bytes(deep), PATIENCE).unwrap_err();
            let status = error.status().unwrap_or_else(|| panic!("method {method}, {deep} deep: {error:#}"));
            assert_eq!(status.code, Code::InvalidArgument);
            assert!(status.message.contains("nested deeper than 64"), "{}", status.message);
        }
        client.call_raw(method, &bytes(64), PATIENCE).unwrap();
    }
}

/// Issue 13, A6.
#[test]
fn an_answer_of_a_recursive_type_is_an_error_and_the_client_lives_on() {
    let (client, _server) = child::start(Default::default());
    let is_refused = |error: flipcall::rpc::CallError| assert!(error.status().is_none(), "{error:#}");
    for deep in [20_000, 120_000] {
        is_refused(call::<Tree>(&client, &tree(deep)).err().unwrap());
        is_refused(call::<Chain>(&client, &chain(deep)).err().unwrap());
        is_refused(call::<Lists>(&client, &tree(deep)).err().unwrap());
    }
    assert_eq!(call::<Chain>(&client, &chain(64)).unwrap().length(), 64);
}

fn call<T: flipcall::rpc::codec::DecodeOwned>(client: &Client, answer: &[u8]) -> Result<T, flipcall::rpc::CallError> {
    client.call(ECHO, &flipcall::rpc::codec::Raw(answer), PATIENCE)
}

/// Issue 13, A6.
#[test]
fn sixty_four_levels_are_the_most() {
    assert!(from_bytes::<Tree>(&tree(64)).is_ok());
    assert_eq!(from_bytes::<Tree>(&tree(65)).err(), Some(DecodeError::TooDeep));
    assert!(from_bytes::<Lists>(&tree(64)).is_ok());
    assert_eq!(from_bytes::<Lists>(&tree(65)).err(), Some(DecodeError::TooDeep));
    // Side by side they are not within each other.
    let wide = [1000u32.to_be_bytes().to_vec(), tree(63).repeat(1000)].concat();
    assert_eq!(from_bytes::<Tree>(&wide).unwrap().children.0.len(), 1000);
}

/// Issue 13, B11: the worst values of the codec's own types.
#[test]
fn a_value_takes_at_most_sixteen_times_its_message() {
    const COUNT: usize = 200_000;
    let strings = |length: usize| to_bytes(&vec!["x".repeat(length); COUNT]);
    for length in [0, 1, 2, 8, 24] {
        let bytes = strings(length);
        is_bounded::<Vec<String>>(&bytes);
        is_bounded::<List<Vec<u8>>>(&bytes);
        is_bounded::<Vec<&str>>(&bytes);
        is_bounded::<List<(String,)>>(&bytes);
    }
    is_bounded::<List<u8>>(&to_bytes(&List(vec![1u8; COUNT])));
    is_bounded::<List<List<u8>>>(&to_bytes(&List(vec![List(vec![1u8]); COUNT])));
    type Deep = List<List<List<List<List<List<u8>>>>>>;
    let inner = || List(vec![List(vec![List(vec![List(vec![1u8])])])]);
    is_bounded::<Deep>(&to_bytes(&List((0..COUNT).map(|_| List(vec![inner()])).collect())));
    is_bounded::<List<List<List<u8>>>>(&to_bytes(&List(vec![List(vec![List(vec![1u8])]); COUNT])));
}

/// Decodes within the bound: each live allocation counts with what an allocator adds.
fn is_bounded<'a, T: Decode<'a>>(bytes: &'a [u8]) {
    let (value, most) = measured(|| from_bytes::<T>(bytes));
    let kind = std::any::type_name::<T>();
    assert!(value.is_ok(), "{kind}: {:?}", value.err());
    let bound = 16 * bytes.len() + (64 << 10);
    assert!(most <= bound, "{kind}: {most} bytes for {}, {:.1} times", bytes.len(), most as f64 / bytes.len() as f64);
}

/// Issue 13, B11: a type that is small on the wire and large in memory.
#[test]
fn a_value_that_would_take_more_is_an_error_before_it_is_made() {
    struct Page([u64; 512]);
    impl<'a> Decode<'a> for Page {
        fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
            Ok(Self([u64::from(decoder.u8()?); 512]))
        }
    }
    let bytes = to_bytes(&vec![7u8; 100_000]);
    let (value, most) = measured(|| from_bytes::<List<Page>>(&bytes));
    assert_eq!(value.map(|pages| pages.0[0].0[0]).err(), Some(DecodeError::TooLarge));
    assert!(most < 64 << 10, "{most}");
    // A few are no reason to refuse anything.
    assert_eq!(from_bytes::<List<Page>>(&to_bytes(&vec![7u8; 10])).unwrap().0[9].0[0], 7);
}

/// Issue 13, B11: lists of nothing, and lists of lists of nothing, which took the square of the bytes.
#[test]
fn items_of_no_size_are_bounded_by_the_bytes_that_came() {
    const ROOM: usize = 1 << 20;
    let claims = |count: u32| [count.to_be_bytes().to_vec(), vec![0; ROOM]].concat();
    assert_eq!(from_bytes::<List<Nothing>>(&claims(u32::MAX)).err(), Some(DecodeError::TooShort));
    let inner = (ROOM / 8) as u32;
    let squared = [inner.to_be_bytes().to_vec(), inner.to_be_bytes().repeat(inner as usize), vec![0; ROOM]].concat();
    let start = std::time::Instant::now();
    assert_eq!(from_bytes::<List<List<Nothing>>>(&squared).err(), Some(DecodeError::TooLarge));
    assert!(start.elapsed() < PATIENCE / 6, "{:?}", start.elapsed());
}

/// Bytes that this thread has allocated, at present and at most, each allocation with 31 bytes that an allocator may add.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

const OVERHEAD: usize = 31;

fn count(more: usize, less: usize) {
    let live = LIVE.get().wrapping_add(more).wrapping_sub(less);
    LIVE.set(live);
    // Memory of another thread that was freed here leaves a number below 0.
    if live < usize::MAX / 2 {
        MOST.set(MOST.get().max(live));
    }
}

fn measured<T>(run: impl FnOnce() -> T) -> (T, usize) {
    LIVE.set(0);
    MOST.set(0);
    let value = run();
    (value, MOST.get())
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every method hands its arguments to the system's allocator, and returns what that returns.
unsafe impl GlobalAlloc for Counting {
    /// # Safety
    /// As [`GlobalAlloc::alloc`].
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() + OVERHEAD, 0);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    /// # Safety
    /// As [`GlobalAlloc::dealloc`].
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size() + OVERHEAD);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    /// # Safety
    /// As [`GlobalAlloc::realloc`].
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
