//! High-water marks of resident memory, from `/proc`. 0 where the system has none.

/// Of this process, in bytes.
pub(super) fn peak_of_this_process() -> u64 {
    peak_in("/proc/self/status")
}

/// Of a running child, in bytes.
pub(super) fn peak_of(process_id: u32) -> u64 {
    peak_in(&format!("/proc/{process_id}/status"))
}

fn peak_in(path: &str) -> u64 {
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| high_water_mark(&text))
        .unwrap_or(0)
}

/// `VmHWM: 123456 kB`, in bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line is found and read in kibibytes; a text without it gives nothing.
    #[test]
    fn the_line_is_read() {
        assert_eq!(
            high_water_mark("Name:\tx\nVmHWM:\t  12 kB\n"),
            Some(12 * 1024)
        );
        assert_eq!(high_water_mark("Name:\tx\n"), None);
        assert_eq!(high_water_mark("VmHWM:\tmany kB"), None);
    }
}
