//! What time it is.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

/// A wall clock and a stopwatch. Results of queries never depend on it: time reaches them as tick records of the log.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Microseconds since 1970-01-01 UTC. It may jump either way when somebody sets the clock.
    fn now_micros(&self) -> i64;

    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;

    /// Resolves when `duration` has passed. Needs a tokio runtime in `os`, none in `sim`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}
