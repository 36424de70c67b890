//! The primitives of `native.rs` as loom sees them.
//!
//! The futex is a set of sleepers under one lock, which is the kernel's hash bucket: the comparison with the expected value is
//! made under the lock with a relaxed load, so it orders no other word, and a wake that comes before the sleeper is queued is lost,
//! as it is in the kernel. Time does not pass: a sleep with a time is a sleep without one, and a lost wake shows as a deadlock.
#![allow(unsafe_code, reason = "keeps the signature of header_at, which no model calls")]

pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
pub(crate) use loom::thread;

use std::ptr::NonNull;
use std::time::Instant;

use loom::sync::{Condvar, Mutex};
use rustix::io::Errno;

use super::{HeaderWords, Slept};

/// How many times loom may switch away from a thread that could have gone on.
const PREEMPTION_BOUND: usize = 3;

struct Sleeper {
    id: usize,
    words: [usize; 2],
}

struct Bucket {
    sleepers: Vec<Sleeper>,
    next: usize,
}

loom::lazy_static! {
    static ref BUCKET: Mutex<Bucket> = Mutex::new(Bucket { sleepers: Vec::new(), next: 0 });
    static ref WOKEN: Condvar = Condvar::new();
}

/// No model maps memory.
///
/// # Safety
/// None is needed: it panics. The signature is that of `native.rs`.
pub(crate) unsafe fn header_at<'a>(_base: NonNull<u8>) -> &'a HeaderWords {
    unreachable!("models make their header words in private memory")
}

/// Loom takes a sequentially consistent access for an acquire and a release, so here it takes a fence.
pub(crate) fn fence_after_exchange() {
    fence(Ordering::SeqCst);
}

/// No model has cache lines.
pub(crate) fn prefetch_to_write(_word: &AtomicU32) {}

/// No time passes in a model.
pub(crate) fn breath() {}

pub(crate) fn pause() {
    thread::yield_now();
}

pub(crate) fn yield_cpu() {
    thread::yield_now();
}

pub(crate) fn wake_shared(word: &AtomicU32) -> Result<(), Errno> {
    wake(word, 1);
    Ok(())
}

pub(crate) fn wake_private(word: &AtomicU32) {
    wake(word, usize::MAX);
}

pub(crate) fn sleep(
    shared: &AtomicU32,
    expected: u32,
    private: &AtomicU32,
    _until: Option<Instant>,
) -> Result<Slept, Errno> {
    Ok(sleep_on([address(shared), address(private)], || {
        shared.load(Ordering::Relaxed) == expected && private.load(Ordering::Relaxed) == 0
    }))
}

pub(crate) fn sleep_private(word: &AtomicU32, _until: Instant) -> Result<Slept, Errno> {
    Ok(sleep_on([address(word); 2], || word.load(Ordering::Relaxed) == 0))
}

fn sleep_on(words: [usize; 2], unchanged: impl FnOnce() -> bool) -> Slept {
    let mut bucket = BUCKET.lock().unwrap();
    if !unchanged() {
        return Slept::Changed;
    }
    let id = bucket.next;
    bucket.next += 1;
    bucket.sleepers.push(Sleeper { id, words });
    while bucket.sleepers.iter().any(|sleeper| sleeper.id == id) {
        bucket = WOKEN.wait(bucket).unwrap();
    }
    Slept::Woken
}

fn wake(word: &AtomicU32, mut count: usize) {
    let mut bucket = BUCKET.lock().unwrap();
    bucket.sleepers.retain(|sleeper| {
        let hit = count > 0 && sleeper.words.contains(&address(word));
        count -= usize::from(hit);
        !hit
    });
    WOKEN.notify_all();
}

fn address(word: &AtomicU32) -> usize {
    std::ptr::from_ref(word) as usize
}

/// Explores every interleaving of a model within the preemption bound.
#[cfg(test)]
pub(crate) fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTION_BOUND);
    builder.check(model);
}
