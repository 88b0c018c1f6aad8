//! When a plain progress line is due and what it says. Knows no clock: the elapsed time comes in.

use std::time::Duration;

/// A line at most this often, unless a tenth of the work was done meanwhile.
const INTERVAL: Duration = Duration::from_secs(2);
/// Even tenths come no closer than this: a stage of milliseconds needs no ten lines.
const SHORTEST: Duration = Duration::from_millis(500);

/// Decides when a line is due.
#[derive(Debug)]
pub(super) struct PlainLines {
    done_before: u64,
    last_at: Duration,
    last_done: u64,
}

impl PlainLines {
    /// `done_before` of the work was done by an earlier run and does not count into the rate.
    pub(super) fn new(done_before: u64) -> Self {
        Self {
            done_before,
            last_at: Duration::ZERO,
            last_done: done_before,
        }
    }

    /// The line that is due now, if one is.
    pub(super) fn line(&mut self, elapsed: Duration, done: u64, total: u64) -> Option<String> {
        let since = elapsed.saturating_sub(self.last_at);
        let tenth = (done.saturating_sub(self.last_done)) * 10 >= total.max(1);
        if since < INTERVAL && !(tenth && since >= SHORTEST) {
            return None;
        }
        self.last_at = elapsed;
        self.last_done = done;
        let percent = done as f64 * 100.0 / total.max(1) as f64;
        let rate = done.saturating_sub(self.done_before) as f64 / elapsed.as_secs_f64();
        let rest = total.saturating_sub(done) as f64;
        let eta = if rate > 0.0 {
            minutes(rest / rate)
        } else {
            "?".to_owned()
        };
        Some(format!(
            "{done}/{total} ({percent:.0} %), {rate:.1}/s, ETA {eta}"
        ))
    }
}

/// Seconds as `m:ss`, or `h:mm:ss` from an hour on.
pub(super) fn minutes(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// A line every two seconds, sooner after a tenth of the work, never a flood.
    #[test]
    fn lines_come_by_time_and_by_tenths() {
        let mut lines = PlainLines::new(0);
        assert_eq!(
            lines.line(at(0.1), 50, 100),
            None,
            "too soon even for half of the work"
        );
        let line = lines.line(at(1.0), 50, 100);
        assert_eq!(line.as_deref(), Some("50/100 (50 %), 50.0/s, ETA 0:01"));
        assert_eq!(lines.line(at(1.9), 55, 100), None);
        let line = lines.line(at(3.0), 56, 100);
        assert_eq!(line.as_deref(), Some("56/100 (56 %), 18.7/s, ETA 0:02"));
    }

    /// What an earlier run did is no part of the rate, and nothing is divided by nothing.
    #[test]
    fn resumed_and_empty_stages_are_sound() {
        let mut lines = PlainLines::new(900);
        let line = lines.line(at(10.0), 950, 1000);
        assert_eq!(line.as_deref(), Some("950/1000 (95 %), 5.0/s, ETA 0:10"));
        let line = PlainLines::new(0).line(at(2.0), 0, 0);
        assert_eq!(line.as_deref(), Some("0/0 (0 %), 0.0/s, ETA ?"));
    }

    /// Times read as a clock does.
    #[test]
    fn times_read_as_a_clock() {
        assert_eq!(minutes(9.6), "0:10");
        assert_eq!(minutes(3599.0), "59:59");
        assert_eq!(minutes(3661.0), "1:01:01");
    }
}
