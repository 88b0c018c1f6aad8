//! The process's memory: settings of the allocator, and how much there is in use.
#![expect(unsafe_code, reason = "mallopt is a C function")]

/// Lets glibc keep freed memory. A step allocates and frees the same large buffers over and over; by
/// default the allocator gives them back to the kernel, which zeroes and maps them again page by
/// page (about a tenth of a small model's step). One arena for all threads: those of other threads than
/// the first grow in pieces of 64 MiB, between which large buffers leave gaps (a fifth of a step's
/// memory), and what one arena has free is of no use to another. Elsewhere than on Linux with glibc:
/// nothing.
pub(crate) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGEST: libc::c_int = libc::c_int::MAX;
        // SAFETY: mallopt only sets numbers inside the allocator, under the allocator's own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGEST);
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

/// Resident memory of this process in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) now: u64,
    /// The most there has been since the process began.
    pub(crate) peak: u64,
}

/// `VmRSS` and `VmHWM` of `/proc/self/status`; `None` where there is no such file.
pub(crate) fn resident() -> Option<Resident> {
    parse_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_status(text: &str) -> Option<Resident> {
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some(Resident {
        now: bytes("VmRSS:")?,
        peak: bytes("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes as the kernel writes them become bytes.
    #[test]
    fn status_is_read() {
        let text = "Name:\ttrainer\nVmHWM:\t  2048 kB\nVmRSS:\t   1024 kB\n";
        let expected = Resident {
            now: 1 << 20,
            peak: 2 << 20,
        };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status("Name:\ttrainer\n"), None);
    }
}
