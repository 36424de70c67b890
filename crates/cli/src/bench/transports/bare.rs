//! The limits: one word in shared memory, and a plain copy of the payload where there is one. Nothing is checked, nothing is bounded.

use std::time::Duration;

use super::halves::{Answerer, Caller, Inherited, Prepared, Preparing, payload_bytes, work};
use crate::outcome::{Fallible, Outcome};
use crate::sys::shared_memory::{SharedMemory, Word};

/// What the word says while it is the caller's turn.
const CALLER: u32 = 0;
/// What the word says while it is the answerer's turn.
const ANSWERER: u32 = 1;

/// One word that both sides spin on.
struct Spin {
    memory: SharedMemory,
    payload: Vec<u8>,
    answer: Vec<u8>,
}

/// One word each way, slept on with FUTEX_WAIT and woken with FUTEX_WAKE.
struct Futex {
    memory: SharedMemory,
    payload: Vec<u8>,
    answer: Vec<u8>,
    calls: u32,
}

pub(super) fn spin(link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
    let (memory, numbers) = link.memory(payload)?;
    let payload = payload_bytes(payload);
    let caller = Spin { memory, answer: payload.clone(), payload };
    Ok(Prepared { caller: Box::new(caller), numbers })
}

pub(super) fn futex(link: &mut Preparing<'_>, payload: u32) -> Fallible<Prepared> {
    let (memory, numbers) = link.memory(payload)?;
    let payload = payload_bytes(payload);
    let caller = Futex { memory, answer: payload.clone(), payload, calls: 0 };
    Ok(Prepared { caller: Box::new(caller), numbers })
}

pub(super) fn answer_spin(link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
    let memory = link.memory(0)?;
    Ok(Box::new(Spin { memory, payload: Vec::new(), answer: link.buffer() }))
}

pub(super) fn answer_futex(link: &Inherited<'_>) -> Fallible<Box<dyn Answerer>> {
    let memory = link.memory(0)?;
    Ok(Box::new(Futex { memory, payload: Vec::new(), answer: link.buffer(), calls: 0 }))
}

impl Caller for Spin {
    #[inline(always)]
    fn call(&mut self) -> Outcome {
        let (word, bytes) = (self.memory.word(Word::First), self.memory.bytes());
        bytes.copy_in(&self.payload);
        word.store(ANSWERER);
        word.spin_until(CALLER);
        bytes.copy_out(&mut self.answer);
        Ok(())
    }
}

impl Answerer for Spin {
    fn answer(&mut self, count: u64, think: Duration) -> Outcome {
        let (word, bytes) = (self.memory.word(Word::First), self.memory.bytes());
        for _ in 0..count {
            word.spin_until(ANSWERER);
            bytes.copy_out(&mut self.answer);
            work(think);
            bytes.copy_in(&self.answer);
            word.store(CALLER);
        }
        Ok(())
    }
}

impl Caller for Futex {
    fn call(&mut self) -> Outcome {
        self.calls = self.calls.wrapping_add(1);
        self.memory.bytes().copy_in(&self.payload);
        let there = self.memory.word(Word::First);
        there.store(self.calls);
        there.wake();
        self.memory.word(Word::Second).sleep_until(self.calls);
        self.memory.bytes().copy_out(&mut self.answer);
        Ok(())
    }
}

impl Answerer for Futex {
    fn answer(&mut self, count: u64, think: Duration) -> Outcome {
        for _ in 0..count {
            self.calls = self.calls.wrapping_add(1);
            self.memory.word(Word::First).sleep_until(self.calls);
            self.memory.bytes().copy_out(&mut self.answer);
            work(think);
            self.memory.bytes().copy_in(&self.answer);
            let back = self.memory.word(Word::Second);
            back.store(self.calls);
            back.wake();
        }
        Ok(())
    }
}
