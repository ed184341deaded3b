//! A clock that moves when it is told to.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;
use parking_lot::Mutex;

/// Starts at 2020-01-01 00:00 UTC. Clones share the time.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    now_micros: i64,
    monotonic: Duration,
    sleepers: Vec<(Duration, oneshot::Sender<()>)>,
}

impl SimClock {
    const START_MICROS: i64 = 1_577_836_800_000_000;

    pub(super) fn new() -> Self {
        let state = State { now_micros: Self::START_MICROS, monotonic: Duration::ZERO, sleepers: Vec::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Time passes, and wakes who slept until now.
    pub fn advance(&self, by: Duration) {
        let mut state = self.0.lock();
        state.now_micros +=
            i64::try_from(by.as_micros()).expect("a simulation lasts less than 292 000 years");
        state.monotonic += by;
        let now = state.monotonic;
        let (due, later) =
            std::mem::take(&mut state.sleepers).into_iter().partition(|(until, _)| *until <= now);
        state.sleepers = later;
        drop(state);
        for (_, wake) in due {
            // Whoever slept may have given up.
            let _ = wake.send(());
        }
    }

    /// Somebody sets the wall clock; the stopwatch does not notice.
    pub fn set_now(&self, micros: i64) {
        self.0.lock().now_micros = micros;
    }

    /// How many sleep.
    pub fn sleepers(&self) -> usize {
        self.0.lock().sleepers.iter().filter(|(_, wake)| !wake.is_canceled()).count()
    }
}

impl crate::Clock for SimClock {
    fn now_micros(&self) -> i64 {
        self.0.lock().now_micros
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().monotonic
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        let mut state = self.0.lock();
        let until = state.monotonic + duration;
        state.sleepers.push((until, wake));
        drop(state);
        Box::pin(async move {
            // An error means that the clock is gone with the simulation.
            let _ = woken.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::Clock as _;

    #[test]
    fn sleepers_wake_when_time_passes() {
        let clock = SimClock::new();
        let mut short = clock.sleep(Duration::from_secs(1));
        let mut long = clock.sleep(Duration::from_secs(3));
        assert!((&mut short).now_or_never().is_none());
        clock.advance(Duration::from_secs(2));
        assert!(short.now_or_never().is_some() && (&mut long).now_or_never().is_none());
        assert_eq!(clock.now_micros() - SimClock::START_MICROS, 2_000_000);
        assert_eq!(clock.sleepers(), 1);
        clock.advance(Duration::from_secs(1));
        assert!(long.now_or_never().is_some());
    }
}
