//! Process-wide settings of the memory allocator.
#![expect(unsafe_code, reason = "mallopt is a C function")]

/// Lets glibc keep freed memory. A step allocates and frees the same large buffers over and over; by
/// default the allocator gives them back to the kernel, which zeroes and maps them again page by
/// page (about a tenth of a small model's step). Elsewhere than on Linux with glibc: nothing.
pub(crate) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGEST: libc::c_int = libc::c_int::MAX;
        // SAFETY: mallopt only sets numbers inside the allocator, under the allocator's own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGEST);
        }
    }
}
