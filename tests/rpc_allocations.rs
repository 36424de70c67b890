//! A call on the hot path allocates nothing, on neither side: counted by the allocator itself, with the client in this process and
//! the server in its child, which reports its own count.

#[path = "rpc/child.rs"]
mod child;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use child::{PATIENCE, serve, start};
use flipcall::rpc::{ClientConfig, Router};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every request is passed on to the system's allocator as it is; counting touches no memory that was handed out.
#[allow(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    /// # Safety
    /// As [`GlobalAlloc::alloc`].
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    /// # Safety
    /// As [`GlobalAlloc::dealloc`].
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    /// # Safety
    /// As [`GlobalAlloc::realloc`].
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`, and the memory came from the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// The second process: serves, and tells its count when asked.
#[test]
#[ignore = "is started by another test"]
fn as_the_server() {
    let mut router = Router::new();
    router.unary(1, |_, number: u64| Ok(number + 1));
    router.unary(2, |_, ()| Ok(ALLOCATIONS.load(Ordering::Relaxed)));
    serve(router);
}

#[test]
fn a_call_allocates_nothing() {
    let transports = [("window", ClientConfig::new()), ("socket channel", ClientConfig::new().window(0))];
    for (name, config) in transports {
        let (client, mut child) = start(config);
        let theirs = || client.call::<_, u64>(2, &(), PATIENCE).unwrap();
        for deadline in [flipcall::Deadline::NEVER, PATIENCE.into()] {
            for number in 0..100u64 {
                assert_eq!(client.call::<_, u64>(1, &number, deadline).unwrap(), number + 1);
            }
            // The threads that opened the channel may be at their last lines still.
            std::thread::sleep(Duration::from_millis(200));
            let (ours_before, theirs_before) = (ALLOCATIONS.load(Ordering::Relaxed), theirs());
            for number in 0..10_000u64 {
                assert_eq!(client.call::<_, u64>(1, &number, deadline).unwrap(), number + 1);
            }
            let (ours, theirs) = (ALLOCATIONS.load(Ordering::Relaxed) - ours_before, theirs() - theirs_before);
            println!("{name}: 10,000 calls, {ours} allocations here, {theirs} at the server");
            assert_eq!((ours, theirs), (0, 0), "{name}");
        }
        drop(client);
        assert!(child.wait(PATIENCE).unwrap().success());
    }
}
