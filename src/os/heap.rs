//! The memory that this process no longer uses.

/// Gives back to the system every page of the heap that holds nothing. By itself the C library gives back only what is free at the
/// end of the heap (malloc_trim(3)), so what one rotation needed for a moment would stay resident for good.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no crate offers malloc_trim safely")]
pub(crate) fn give_back() {
    // SAFETY: it takes no pointer and may be called by any thread at any time; what is allocated stays where it is.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have no such function.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}
