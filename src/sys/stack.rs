//! How deep the stack of this thread is.
#![allow(unsafe_code, reason = "the stack pointer is a register")]

/// The address of the top of this thread's stack, to be compared with an earlier one of the same thread. The address of a local would tell
/// less: a sanitizer keeps locals elsewhere.
#[inline(always)]
pub(crate) fn pointer() -> usize {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let pointer: usize;
        // SAFETY: the instruction copies the stack pointer into a register that the compiler chose. It touches no memory, no flag and no
        // other register, as the options say.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags));
            #[cfg(target_arch = "aarch64")]
            std::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
        }
        pointer
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let local = 0u8;
        std::ptr::from_ref(std::hint::black_box(&local)).addr()
    }
}

#[cfg(test)]
mod tests {
    #[inline(never)]
    fn deeper() -> usize {
        let room = std::hint::black_box([1u8; 4096]);
        super::pointer() + usize::from(room[0]) - 1
    }

    #[test]
    fn the_stack_grows_downwards() {
        let grown = super::pointer() - deeper();
        assert!((4096..1 << 20).contains(&grown), "{grown}");
    }
}
