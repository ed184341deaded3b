//! The status as metrics. The registry is made for each answer: a status is one moment's numbers already.

use std::sync::atomic::{AtomicI64, AtomicU64};

use millpond_engine::Status;
use millpond_engine::status::{RelationState, RelationStatus};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Real = Gauge<f64, AtomicU64>;
type Whole = Gauge<i64, AtomicI64>;
type Seconds = Counter<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Relation {
    schema: String,
    name: String,
    kind: String,
}

pub(crate) fn render(status: &Status) -> String {
    let mut registry = Registry::with_prefix("millpond");
    server(&mut registry, status);
    relations(&mut registry, status);
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

fn server(registry: &mut Registry, status: &Status) {
    gauge(registry, "healthy", "1 while the log takes writes", i64::from(status.healthy));
    real(registry, "uptime_seconds", "Time since the start", status.uptime_seconds);
    gauge(registry, "connections", "Open client connections", status.connections as i64);
    gauge(registry, "durable_commit", "Newest commit on disk", status.durable.0 as i64);
    gauge(registry, "published_commit", "Newest commit that readers see", status.published.0 as i64);
    counter(registry, "rows_in", "Rows committed to the log", status.rows_in);
    counter(registry, "epochs", "Epochs of the driver", status.epochs);
    seconds(registry, "epoch_seconds", "Time spent in epochs", status.epoch_seconds);
    real(registry, "epoch_seconds_max", "Longest of the last 1000 epochs", status.epoch_seconds_max);
    gauge(registry, "state_bytes", "Bytes of all live state", status.state_bytes as i64);
    gauge(
        registry,
        "memory_limit_bytes",
        "Limit of live state and queries",
        status.memory_limit_bytes as i64,
    );
    counter(registry, "checkpoint_failures", "Checkpoints that failed", status.checkpoint_failures);
    if let Some(checkpoint) = &status.checkpoint {
        gauge(registry, "checkpoint_number", "Number of the newest checkpoint", checkpoint.number as i64);
        gauge(registry, "checkpoint_commit", "The commit that it holds", checkpoint.cut.0 as i64);
        gauge(registry, "checkpoint_bytes", "Bytes that it wrote", checkpoint.bytes as i64);
        real(registry, "checkpoint_seconds", "How long it took", checkpoint.seconds);
        real(
            registry,
            "checkpoint_pause_seconds",
            "How long epochs stood still for it",
            checkpoint.pause_seconds,
        );
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let metric = Whole::default();
    metric.set(value);
    registry.register(name, help, metric);
}

fn real(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let metric = Real::default();
    metric.set(value);
    registry.register(name, help, metric);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Counter::<u64>::default();
    metric.inc_by(value);
    registry.register(name, help, metric);
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let metric = Seconds::default();
    metric.inc_by(value);
    registry.register(name, help, metric);
}

fn relations(registry: &mut Registry, status: &Status) {
    whole_of(registry, status, "relation_rows", "Rows held, or received by a source", |r| {
        Some(r.rows as i64)
    });
    whole_of(registry, status, "relation_state_bytes", "Bytes of state", |r| Some(r.state_bytes as i64));
    whole_of(
        registry,
        status,
        "relation_running",
        "1 while running or following, 0 while built, paused or failed",
        |r| Some(i64::from(matches!(r.state, RelationState::Running | RelationState::Following))),
    );
    whole_of(registry, status, "relation_commit", "The commit that the contents reflect", |r| {
        Some(r.epoch.0 as i64)
    });
    whole_of(registry, status, "relation_lag_commits", "How far it is behind what is published", |r| {
        Some(status.published.0.saturating_sub(r.epoch.0) as i64)
    });
    let watermarks = Family::<Relation, Real>::default();
    let late = Family::<Relation, Counter>::default();
    let errors = Family::<Relation, Counter>::default();
    let busy = Family::<Relation, Seconds>::default();
    for relation in &status.relations {
        let labels = labels(relation);
        // A bounded source that has ended has a watermark after every time, which is no time.
        if let Some(watermark) = relation.watermark.filter(|w| w.0 > i64::MIN && w.0 < i64::MAX) {
            watermarks.get_or_create(&labels).set(watermark.0 as f64 / 1e6);
        }
        late.get_or_create(&labels).inc_by(relation.late_rows);
        errors.get_or_create(&labels).inc_by(relation.error_rows);
        busy.get_or_create(&labels).inc_by(relation.busy_seconds);
    }
    registry.register("relation_watermark_seconds", "Watermark, in seconds since 1970", watermarks);
    registry.register("relation_late_rows", "Rows refused as late", late);
    registry.register("relation_error_rows", "Rows in error", errors);
    registry.register("relation_busy_seconds", "Time spent on it in epochs", busy);
}

fn whole_of(
    registry: &mut Registry,
    status: &Status,
    name: &str,
    help: &str,
    value: impl Fn(&RelationStatus) -> Option<i64>,
) {
    let family = Family::<Relation, Whole>::default();
    for relation in &status.relations {
        if let Some(value) = value(relation) {
            family.get_or_create(&labels(relation)).set(value);
        }
    }
    registry.register(name, help, family);
}

fn labels(relation: &RelationStatus) -> Relation {
    Relation { schema: relation.schema.clone(), name: relation.name.clone(), kind: relation.kind.to_owned() }
}
