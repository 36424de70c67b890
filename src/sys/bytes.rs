//! Copies to and from memory that another process may change at the same time.
//!
//! A plain `memcpy` of such bytes is a data race, which the language leaves undefined. Inline assembly is not: the compiler must
//! assume that the block did whatever the hardware does, and may neither repeat nor merge nor invent an access. Each byte of the source
//! is read exactly once and each byte of the destination is written exactly once.
//!
//! Up to 1 KiB go in 16-byte moves, four at a time, with a tail that halves: a small message runs through no loop, whose end the CPU would
//! mispredict behind every wait. Above that `rep movsb` meets the C library's `memcpy`.
//! Other machines than x86-64 use volatile words (measured 1.5 to 2.3 times slower).
#![allow(unsafe_code, reason = "this file is the copy itself")]

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use portable::{copy, zero};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{copy, zero};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    /// From this many bytes on, one string instruction beats a loop of 16-byte moves.
    const STRING_FROM: usize = 1024;

    /// Copies `len` bytes.
    ///
    /// # Safety
    /// - `source` is valid for reads and `destination` for writes of `len` bytes.
    /// - The two ranges do not overlap.
    /// - No Rust reference covers the side that the peer can change.
    #[inline(always)]
    pub(crate) unsafe fn copy(destination: *mut u8, source: *const u8, len: usize) {
        if len >= STRING_FROM {
            // SAFETY: rdi, rsi and rcx describe the two ranges of the contract; the direction flag is clear as the ABI demands.
            unsafe {
                std::arch::asm!(
                    "rep movsb",
                    inout("rcx") len => _, inout("rdi") destination => _, inout("rsi") source => _,
                    options(nostack, preserves_flags),
                );
            }
            return;
        }
        let whole = len & !(BLOCK - 1);
        if whole > 0 {
            // SAFETY: `whole` is a multiple of the block, at most `len`, and not 0.
            unsafe { copy_blocks(destination, source, whole / BLOCK) };
        }
        if len > whole {
            // SAFETY: `whole` is less than `len`, and what is left is less than a block.
            unsafe { copy_tail(destination.add(whole), source.add(whole), len - whole) };
        }
    }

    /// Bytes moved per turn of the loop.
    const BLOCK: usize = 64;

    /// Copies `blocks` times [`BLOCK`] bytes.
    ///
    /// # Safety
    /// As [`copy`], and `blocks` is not 0.
    #[inline(always)]
    unsafe fn copy_blocks(destination: *mut u8, source: *const u8, blocks: usize) {
        // SAFETY: each turn moves the next 64 bytes of both ranges, and there are `blocks` turns; everything that is written is declared.
        unsafe {
            std::arch::asm!(
                "2:",
                "movups {first}, [rsi]",
                "movups {second}, [rsi + 16]",
                "movups {third}, [rsi + 32]",
                "movups {fourth}, [rsi + 48]",
                "movups [rdi], {first}",
                "movups [rdi + 16], {second}",
                "movups [rdi + 32], {third}",
                "movups [rdi + 48], {fourth}",
                "add rsi, 64",
                "add rdi, 64",
                "dec rcx",
                "jnz 2b",
                inout("rcx") blocks => _,
                inout("rsi") source => _,
                inout("rdi") destination => _,
                first = out(xmm_reg) _,
                second = out(xmm_reg) _,
                third = out(xmm_reg) _,
                fourth = out(xmm_reg) _,
                options(nostack),
            );
        }
    }

    /// Copies `len` bytes, fewer than [`BLOCK`].
    ///
    /// # Safety
    /// As [`copy`], and `len` is less than [`BLOCK`].
    #[inline(always)]
    unsafe fn copy_tail(destination: *mut u8, source: *const u8, len: usize) {
        // SAFETY: the bits 32, 16, 8, 4, 2 and 1 of `len` are tested, the last four together first, and as many bytes moved for each,
        // which is `len` exactly; everything that is written is declared.
        unsafe {
            std::arch::asm!(
                "test cl, 32",
                "jz 4f",
                "movups {first}, [rsi]",
                "movups {second}, [rsi + 16]",
                "movups [rdi], {first}",
                "movups [rdi + 16], {second}",
                "add rsi, 32",
                "add rdi, 32",
                "4:",
                "test cl, 16",
                "jz 5f",
                "movups {first}, [rsi]",
                "movups [rdi], {first}",
                "add rsi, 16",
                "add rdi, 16",
                "5:",
                "test cl, 15",
                "jz 9f",
                "test cl, 8",
                "jz 6f",
                "mov rax, [rsi]",
                "mov [rdi], rax",
                "add rsi, 8",
                "add rdi, 8",
                "6:",
                "test cl, 4",
                "jz 7f",
                "mov eax, [rsi]",
                "mov [rdi], eax",
                "add rsi, 4",
                "add rdi, 4",
                "7:",
                "test cl, 2",
                "jz 8f",
                "mov ax, [rsi]",
                "mov [rdi], ax",
                "add rsi, 2",
                "add rdi, 2",
                "8:",
                "test cl, 1",
                "jz 9f",
                "mov al, [rsi]",
                "mov [rdi], al",
                "9:",
                in("rcx") len,
                out("rax") _,
                inout("rsi") source => _,
                inout("rdi") destination => _,
                first = out(xmm_reg) _,
                second = out(xmm_reg) _,
                options(nostack),
            );
        }
    }

    /// Sets `len` bytes to zero.
    ///
    /// # Safety
    /// `destination` is valid for writes of `len` bytes, and no Rust reference covers them.
    pub(crate) unsafe fn zero(destination: *mut u8, len: usize) {
        // SAFETY: rdi and rcx describe the range of the contract; the direction flag is clear as the ABI demands.
        unsafe {
            std::arch::asm!(
                "rep stosb",
                inout("rcx") len => _, inout("rdi") destination => _, in("al") 0u8,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// Volatile words. Compiled for tests on every machine, so that it does not rot.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    /// Copies `len` bytes.
    ///
    /// # Safety
    /// - `source` is valid for reads and `destination` for writes of `len` bytes.
    /// - The two ranges do not overlap.
    /// - No Rust reference covers the side that the peer can change.
    pub(crate) unsafe fn copy(destination: *mut u8, source: *const u8, len: usize) {
        const WORD: usize = size_of::<usize>();
        let mut at = 0;
        let aligned = (destination as usize | source as usize).is_multiple_of(WORD);
        while aligned && len - at >= WORD {
            // SAFETY: at + WORD <= len, both addresses are aligned, and the caller vouches for the ranges.
            unsafe {
                destination.add(at).cast::<usize>().write_volatile(source.add(at).cast::<usize>().read_volatile())
            };
            at += WORD;
        }
        while at < len {
            // SAFETY: at < len, and the caller vouches for the ranges.
            unsafe { destination.add(at).write_volatile(source.add(at).read_volatile()) };
            at += 1;
        }
    }

    /// Sets `len` bytes to zero.
    ///
    /// # Safety
    /// `destination` is valid for writes of `len` bytes, and no Rust reference covers them.
    pub(crate) unsafe fn zero(destination: *mut u8, len: usize) {
        for at in 0..len {
            // SAFETY: at < len, and the caller vouches for the range.
            unsafe { destination.add(at).write_volatile(0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::portable::{copy as copy_words, zero as zero_words};
    use super::{copy, zero};

    /// Every length around each branch, at every alignment of both sides, moves exactly its bytes and touches no other.
    #[test]
    fn copies_exactly_what_it_was_told_to() {
        let source: Vec<u8> = (0..2100u32).map(|i| (i % 251) as u8 + 1).collect();
        for len in (0..200).chain(1000..1100).chain([2048]) {
            for (from, to) in [(0, 0), (1, 0), (0, 1), (3, 7), (8, 4), (15, 13)] {
                for copy in [copy as unsafe fn(_, _, _), copy_words] {
                    let mut target = vec![0u8; 2100];
                    // SAFETY: len + 15 is at most 2,063, within both vectors.
                    unsafe { copy(target.as_mut_ptr().add(to), source.as_ptr().add(from), len) };
                    assert_eq!(target[to..to + len], source[from..from + len], "len {len} from {from} to {to}");
                    assert!(target[..to].iter().chain(&target[to + len..]).all(|&byte| byte == 0));
                }
            }
        }
    }

    #[test]
    fn zeroes_exactly_what_it_was_told_to() {
        for (len, zero) in
            [0, 1, 7, 64, 1000].into_iter().flat_map(|len| [(len, zero as unsafe fn(_, _)), (len, zero_words)])
        {
            let mut target = vec![1u8; 1010];
            // SAFETY: 5 + len is at most 1,005, within the vector.
            unsafe { zero(target.as_mut_ptr().add(5), len) };
            assert!(target[5..5 + len].iter().all(|&byte| byte == 0));
            assert!(target[..5].iter().chain(&target[5 + len..]).all(|&byte| byte == 1));
        }
    }
}
