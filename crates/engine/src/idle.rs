//! Partitions that have been quiet for so long that they no longer hold their topic's watermark back.
//!
//! The clock decides only here: what it decided is a record of the log, so a replay does the same.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use millpond_log::{Record, Transaction};
use millpond_types::{PartitionId, RelationId};
use tracing::debug;

use crate::inner::Inner;

/// The time between two looks, at most and at least; in between, a quarter of the shortest `idle_timeout`.
const LOOK_MAX: Duration = Duration::from_secs(1);
const LOOK_MIN: Duration = Duration::from_millis(20);

/// When partitions that have no rows yet were first seen.
type FirstSeen = HashMap<(RelationId, PartitionId), i64>;

/// Looks as long as the engine lives.
pub(crate) fn start(inner: &Arc<Inner>) -> tokio::task::AbortHandle {
    let (weak, clock) = (Arc::downgrade(inner), Arc::clone(&inner.env.clock));
    let task = tokio::spawn(async move {
        let mut first_seen = FirstSeen::new();
        let mut pause = LOOK_MAX;
        loop {
            clock.sleep(pause).await;
            let Some(next) = look(&weak, &mut first_seen).await else { return };
            pause = next;
        }
    });
    task.abort_handle()
}

/// Writes down which partitions have become idle; says how long to wait, or `None` when the engine is gone.
async fn look(weak: &Weak<Inner>, first_seen: &mut FirstSeen) -> Option<Duration> {
    let inner = weak.upgrade()?;
    let snapshot = inner.snapshot();
    let now = inner.env.clock.now_micros();
    let mut pause = LOOK_MAX;
    let mut records = Vec::new();
    for relation in snapshot.catalog.relations() {
        let Some(layout) = relation.layout().filter(|l| l.partitions > 1 && l.idle_timeout > 0) else {
            continue;
        };
        if relation.watermark().is_none() {
            continue;
        }
        pause = pause.min(Duration::from_micros(layout.idle_timeout as u64 / 4));
        for facts in inner.log.partitions(relation.id).iter().filter(|facts| !facts.idle) {
            let place = (relation.id, facts.partition);
            // What was quiet while nobody was there to look gets its full time once more.
            let seen = *first_seen.entry(place).or_insert(now);
            let since = facts.newest_row.map_or(seen, |row| row.0.max(seen));
            if now.saturating_sub(since) >= layout.idle_timeout {
                records.push(Record::PartitionIdle { topic: relation.id, partition: facts.partition });
            }
        }
    }
    first_seen.retain(|(relation, _), _| snapshot.catalog.relation(*relation).is_some());
    for record in records {
        debug!(?record, "a partition has become idle");
        // A log that fails says so to those who write; the next look tries again.
        let Ok(ticket) = inner.submit(Transaction { writes: Vec::new(), records: vec![record] }, None).await
        else {
            break;
        };
        if ticket.wait().await.is_err() {
            break;
        }
    }
    Some(pause.max(LOOK_MIN))
}
