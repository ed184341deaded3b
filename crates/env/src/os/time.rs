//! Clock and randomness of the operating system.

use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use rand::RngCore;

/// The system's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl crate::Clock for Clock {
    fn now_micros(&self) -> i64 {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        }
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A generator of each thread, seeded by the system.
#[derive(Clone, Copy, Debug)]
pub struct Random;

impl crate::Random for Random {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}
