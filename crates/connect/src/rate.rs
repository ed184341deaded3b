//! Keeping to a number of rows per second.

use std::time::Duration;

/// The most that a source which fell behind may catch up (or two rows), so that a pause is not followed by a flood.
const ARREARS: Duration = Duration::from_secs(1);

/// Rows are given out in pieces of this long, so that a slow source does not wake up for every row.
const PIECE: Duration = Duration::from_millis(10);

/// Allows so many rows per second, counted from the first call. Time comes from outside.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    per_second: f64,
    /// The moment at which what was given out so far was due.
    paid_until: Option<Duration>,
}

impl Pace {
    /// `None` is no limit.
    pub fn new(per_second: Option<f64>) -> Option<Self> {
        per_second.map(|per_second| Self { per_second, paid_until: None })
    }

    /// How many of `wanted` rows (at least 1) may go out at `now`, else how long to wait.
    pub fn take(&mut self, now: Duration, wanted: usize) -> Result<usize, Duration> {
        let paid_until = *self.paid_until.get_or_insert(now);
        let arrears = ARREARS.as_secs_f64().max(2.0 / self.per_second);
        let paid_until =
            paid_until.max(now.saturating_sub(Duration::try_from_secs_f64(arrears).unwrap_or(now)));
        let due = now.saturating_sub(paid_until).as_secs_f64() * self.per_second;
        let piece = (PIECE.as_secs_f64() * self.per_second).clamp(1.0, wanted as f64).floor();
        if due < piece {
            self.paid_until = Some(paid_until);
            // One microsecond more, so that rounding never wakes the caller a moment too early.
            let wait = (piece - due) / self.per_second + 1e-6;
            return Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX));
        }
        let rows = due.floor().min(wanted as f64);
        self.paid_until = Some(paid_until + Duration::from_secs_f64(rows / self.per_second));
        Ok(rows as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(per_second: f64, for_millis: u64, pause: Option<(u64, u64)>) -> usize {
        let mut pace = Pace::new(Some(per_second)).unwrap();
        let (mut now, mut rows) = (Duration::from_secs(100), 0);
        let end = now + Duration::from_millis(for_millis);
        while now < end {
            match pace.take(now, 1_000_000) {
                Ok(n) => rows += n,
                Err(wait) => now += wait,
            }
            if let Some((at, long)) = pause
                && now < Duration::from_millis(100_000 + at + long)
                && now >= Duration::from_millis(100_000 + at)
            {
                now = Duration::from_millis(100_000 + at + long);
            }
        }
        rows
    }

    #[test]
    fn the_rate_is_kept() {
        for (rate, millis, expected) in
            [(1000.0, 2000, 2000), (3.0, 10_000, 30), (0.5, 10_000, 5), (1e6, 500, 500_000)]
        {
            let rows = run(rate, millis, None) as f64;
            let expected = f64::from(expected);
            assert!((rows - expected).abs() <= (expected * 0.03).max(1.0), "{rate}/s: {rows} for {expected}");
        }
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let rows = run(1000.0, 10_000, Some((1_000, 8_000)));
        assert!((2_900..=3_100).contains(&rows), "{rows}");
    }
}
