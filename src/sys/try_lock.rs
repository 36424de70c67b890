//! A lock that is tried and never waited for: letting go is a plain store, where a lock with waiters needs an exchange, which
//! drains the store buffer between two calls.
#![allow(unsafe_code, reason = "a lock hands out what it guards")]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// A value that one thread at a time can hold.
#[derive(Debug, Default)]
pub(crate) struct TryLock<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY:
// - a reference to the lock gives access to the value only through a guard, of which there is one at a time: threads that share the lock
//   pass the value on;
// - threads that share a guard share the value, and a guard can be shared only if the value can: it is an exclusive borrow of it.
unsafe impl<T: Send> Sync for TryLock<T> {}

impl<T> TryLock<T> {
    /// The value, unless somebody holds it.
    #[inline(always)]
    pub(crate) fn try_lock(&self) -> Option<Held<'_, T>> {
        let free = self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then(|| Held { lock: self, _value: PhantomData })
    }
}

/// The right to use what a [`TryLock`] guards, until dropped.
#[derive(Debug)]
pub(crate) struct Held<'a, T> {
    lock: &'a TryLock<T>,
    /// What a guard is: an exclusive borrow of the value, which two threads can share only if they can share the value.
    _value: PhantomData<&'a mut T>,
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY:
        // - the cell's value is initialised and lives as long as the lock, which outlives this guard;
        // - this is the only guard: it was made when `taken` went from false to true, and `taken` stays true until it is dropped;
        // - the last guard's writes are seen: its release of `taken` was read by our acquire;
        // - the borrow of the guard keeps `deref_mut` away meanwhile.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let lock = TryLock::<u32>::default();
        let mut held = lock.try_lock().unwrap();
        assert!(lock.try_lock().is_none());
        *held += 1;
        drop(held);
        assert_eq!(*lock.try_lock().unwrap(), 1);
    }

    /// Both traits are there for a type that is `Sync`, and which of them is meant cannot be told then: it does not compile.
    trait NotSync<Marker> {
        fn holds() {}
    }
    impl<T: ?Sized> NotSync<()> for T {}
    impl<T: ?Sized + Sync> NotSync<u8> for T {}

    /// Two threads that share a guard would else share a value that no two threads may share, and lose updates of it.
    #[test]
    fn a_guard_can_be_shared_as_far_as_its_value_can() {
        fn both<T: Send + Sync>() {}
        both::<TryLock<std::cell::Cell<u32>>>();
        both::<Held<'_, u32>>();
        <Held<'_, std::cell::Cell<u32>> as NotSync<_>>::holds();
    }

    #[test]
    fn what_one_thread_wrote_the_next_holder_sees() {
        const TIMES: u64 = 10_000;
        let lock = TryLock::<[u64; 2]>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < TIMES {
                        let Some(mut held) = lock.try_lock() else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(held[0], held[1]);
                        held[0] += 1;
                        held[1] += 1;
                        done += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.try_lock().unwrap(), [4 * TIMES; 2]);
    }
}
