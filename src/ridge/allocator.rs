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
    // The largest that glibc accepts.
    set(32 << 20, 1 << 30);
}

/// Has the allocator take buffers of 8 MiB and more from the kernel and give them back at once, for a process of many threads:
/// by default glibc raises that bound with every buffer that is freed, and each thread comes to keep its own. Without glibc it does
/// nothing.
pub fn give_back_large() {
    set(8 << 20, 16 << 20);
}

/// From how many bytes on buffers are the kernel's, and how many freed ones at the end of a heap are kept.
fn set(kernels: i32, kept: i32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both calls set a number; a refused one leaves it as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, kernels);
        libc::mallopt(libc::M_TRIM_THRESHOLD, kept);
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (kernels, kept);
}

/// Gives back to the kernel what the allocator has kept. Without glibc it does nothing.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call frees only what nobody uses; its argument is what to leave at the top.
    unsafe {
        libc::malloc_trim(0);
    }
}
