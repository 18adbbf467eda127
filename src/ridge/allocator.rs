//! How the C library's allocator should treat the engine's buffers.
//!
//! The engine takes and frees matrices of the same few sizes again and again. By default glibc gives each of them back to the
//! kernel and takes it anew, and the kernel clears it page by page: a fifth of the time of a run with a thousand columns.
//! A process that runs the engine calls [`keep_freed`] when it starts and [`give_back`] when it has no job.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "settings of the C library, which take plain numbers")
)]

/// Has the allocator keep what is freed, up to a GiB, and take buffers of up to 32 MiB from that. Larger ones still come from
/// the kernel and go back to it at once. Without glibc it does nothing.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The largest that glibc accepts.
        const LARGEST_KEPT: libc::c_int = 32 << 20;
        const KEPT: libc::c_int = 1 << 30;
        // SAFETY: both calls set a number; a refused one leaves it as it was.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}

/// Gives back to the kernel what the allocator has kept. Without glibc it does nothing.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call frees only what nobody uses; its argument is what to leave at the top.
    unsafe {
        libc::malloc_trim(0);
    }
}
