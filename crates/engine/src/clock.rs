//! now() of materialized views: ticks of the log.
//!
//! A tick is a record of the log, so a replay, a backfill and a batch over some cut see the same time. To the dataflow it is
//! the watermark of a relation of its own that has no rows. Ticks come once a second, only while some view asks for the
//! time, and never go back.

use std::sync::{Arc, Weak};

use millpond_log::{Record, Transaction};
use millpond_types::{EventTime, RelationId, SqlError, SqlState};

use crate::inner::Inner;
use crate::outcome::Outcome;
use crate::session::Session;
use crate::snapshot::Snapshot;

/// The relation whose watermark is the time; in no catalog.
pub(crate) const CLOCK: RelationId = RelationId(u32::MAX - 1);

/// Ticks as long as the engine lives, at once for the first time: rows may have been over while nobody was there.
pub(crate) fn start(inner: &Arc<Inner>) -> tokio::task::AbortHandle {
    let (weak, clock) = (Arc::downgrade(inner), Arc::clone(&inner.env.clock));
    let interval = inner.config.tick_interval;
    let task = tokio::spawn(async move {
        loop {
            if !tick(&weak).await {
                return;
            }
            clock.sleep(interval).await;
        }
    });
    task.abort_handle()
}

/// Writes down the time, if a view asks for it; false when the engine is gone.
async fn tick(weak: &Weak<Inner>) -> bool {
    let Some(inner) = weak.upgrade() else { return false };
    let snapshot = inner.snapshot();
    let now = inner.now();
    // A clock that was set back waits until it is there again.
    if !snapshot.follows_clock || snapshot.now() >= Some(now) {
        return true;
    }
    let tick = Transaction { writes: Vec::new(), records: vec![Record::Tick(now)] };
    // A log that fails says so to those who write; the next tick tries again. Slow ones do not pile up.
    if let Ok(ticket) = inner.submit(tick, None).await {
        let _ = ticket.wait().await;
    }
    true
}

/// The tick that goes before a record that makes a view.
pub(crate) fn first_tick(inner: &Inner) -> Record {
    Record::Tick(inner.now().max(inner.snapshot().now().unwrap_or(EventTime::MIN)))
}

impl Snapshot {
    /// now() of the views at this cut.
    pub fn now(&self) -> Option<EventTime> {
        self.watermarks.get(&CLOCK).copied()
    }
}

/// ALTER SYSTEM ADVANCE CLOCK TO …: moves the time of the views without waiting for it, in tests.
pub(crate) async fn advance(session: &mut Session, to: EventTime) -> Result<Outcome, SqlError> {
    if !session.inner.config.movable_clock {
        return Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "now() of the views follows the server's clock",
        )
        .hint("A server for tests, started with MILLPOND_MOVABLE_CLOCK=true, lets it be moved ahead."));
    }
    let tick = Transaction { writes: Vec::new(), records: vec![Record::Tick(to)] };
    let ticket = session.inner.submit(tick, None).await?;
    let commit = ticket.wait().await.map_err(|e| session.inner.log_error(&e))?;
    session.inner.wait_published(commit).await?;
    session.saw(commit);
    Ok(Outcome::Command { tag: "ALTER SYSTEM".to_owned() })
}
