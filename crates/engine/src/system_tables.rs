//! System relations and functions for one statement: the front end's pg_catalog, and the schema `millpond`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{IntervalMonthDayNano, Schema};
use datafusion::catalog::MemTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{ScalarUDF, TableSource};
use millpond_log::{PartitionFacts, PartitionStorage};
use millpond_plan::SystemTables;
use millpond_sql::ast;
use millpond_types::{EventTime, RelationId, SqlType};

use crate::inner::Inner;
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::status::RelationState;
use crate::system::{SystemCatalog, SystemContext};

pub(crate) struct SessionTables {
    inner: Arc<Inner>,
    snapshot: Arc<Snapshot>,
    context: SystemContext,
    descriptions: Vec<(String, String, String)>,
    functions: OnceLock<BTreeMap<String, Arc<ScalarUDF>>>,
    used: AtomicBool,
}

impl SessionTables {
    pub fn new(session: &Session, snapshot: &Arc<Snapshot>) -> Self {
        let all: Vec<_> =
            session.settings.all().map(|(n, v, d)| (n.to_owned(), v.to_owned(), d.to_owned())).collect();
        let settings = all.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
        let context = SystemContext {
            catalog: Arc::clone(&snapshot.catalog),
            user: session.info.user.clone(),
            database: session.info.database.clone(),
            backend_pid: session.info.pid,
            search_path: session.settings.search_path(),
            settings: Arc::new(settings),
            connections: session.inner.connections.lock().values().cloned().collect(),
            row_estimates: snapshot.rows().into_iter().map(|(id, rows)| (id.0, rows)).collect(),
        };
        Self {
            inner: Arc::clone(&session.inner),
            snapshot: Arc::clone(snapshot),
            context,
            descriptions: all,
            functions: OnceLock::new(),
            used: AtomicBool::new(false),
        }
    }

    /// Whether the plan holds rows or functions of this one moment.
    pub fn were_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// The query, rewritten if it names system relations.
    pub fn rewritten(&self, query: &ast::Query) -> ast::Query {
        let mut statement = ast::Statement::Query(Box::new(query.clone()));
        if self.inner.system.concerns(&statement) {
            self.used.store(true, Ordering::Relaxed);
            self.inner.system.rewrite(&mut statement, &self.context);
        }
        match statement {
            ast::Statement::Query(query) => *query,
            _ => query.clone(),
        }
    }

    fn own(&self, name: &str) -> Option<RecordBatch> {
        let snapshot = &self.snapshot;
        let label = |id: RelationId| {
            snapshot.catalog.relation(id).map_or_else(|| id.to_string(), |relation| relation.display_name())
        };
        let mut table = Table::default();
        match name {
            "views" => {
                let views: Vec<_> = snapshot
                    .catalog
                    .relations()
                    .filter_map(|r| Some((r, snapshot.contents.get(&r.id)?)))
                    .filter(|(r, _)| matches!(r.kind, millpond_catalog::RelationKind::MaterializedView(_)))
                    .collect();
                table.text("schema", views.iter().map(|(r, _)| Some(r.schema.clone())));
                table.text("name", views.iter().map(|(r, _)| Some(r.name.clone())));
                table.text("state", views.iter().map(|(_, c)| Some(c.state.name().to_owned())));
                table.text(
                    "detail",
                    views.iter().map(|(_, c)| match &c.state {
                        RelationState::Running | RelationState::Following => None,
                        RelationState::Building { rows_done } => Some(format!("{rows_done} rows done")),
                        RelationState::Paused(why) | RelationState::Failed(why) => Some(why.clone()),
                    }),
                );
                table.bigint("rows", views.iter().map(|(_, c)| Some(c.heap.rows() as i64)));
                table.bigint("state_bytes", views.iter().map(|(_, c)| Some(c.state_bytes as i64)));
                table.bigint("late_rows", views.iter().map(|(r, _)| Some(snapshot.late.count(r.id) as i64)));
                table.bigint(
                    "error_rows",
                    views.iter().map(|(r, _)| Some(snapshot.errors.count(r.id) as i64)),
                );
                table.bigint("epoch", views.iter().map(|(_, c)| Some(c.epoch.0 as i64)));
                table.bigint(
                    "lag",
                    views.iter().map(|(_, c)| Some(snapshot.cut.0.saturating_sub(c.epoch.0) as i64)),
                );
                table.double("busy_seconds", views.iter().map(|(_, c)| c.busy_seconds));
            }
            "operators" => {
                let views = snapshot.catalog.relations().filter_map(|relation| {
                    Some((relation, snapshot.contents.get(&relation.id)?.operators.as_ref()?))
                });
                let all: Vec<_> = views
                    .flat_map(|(relation, operators)| {
                        let nodes = operators.named.iter();
                        nodes.filter_map(move |(id, text)| Some((relation, text, operators.of(*id)?)))
                    })
                    .collect();
                let number = |n: u64| Some(i64::try_from(n).unwrap_or(i64::MAX));
                table.text("schema", all.iter().map(|(r, ..)| Some(r.schema.clone())));
                table.text("view", all.iter().map(|(r, ..)| Some(r.name.clone())));
                table.int("id", all.iter().map(|(.., node)| node.node.0 as i32));
                table.text("operator", all.iter().map(|(.., node)| Some(node.operator.to_owned())));
                table.text("description", all.iter().map(|(_, text, _)| Some((*text).clone())));
                table.bigint("rows_in", all.iter().map(|(.., node)| number(node.rows_in)));
                table.bigint("rows_out", all.iter().map(|(.., node)| number(node.rows_out)));
                table.bigint("state_rows", all.iter().map(|(.., node)| number(node.state_rows)));
                table.bigint("state_bytes", all.iter().map(|(.., node)| number(node.memory_bytes)));
                table.bigint("busy_us", all.iter().map(|(.., node)| number(node.busy_nanos / 1_000)));
                // After the last window of a bounded source there is no time to show.
                let shown = |mark: EventTime| (mark < EventTime::MAX).then_some(mark.0);
                table.timestamp("watermark", all.iter().map(|(.., node)| node.watermark.and_then(shown)));
            }
            "sources" => {
                let sources: Vec<_> = snapshot
                    .catalog
                    .relations()
                    .filter(|r| matches!(r.kind, millpond_catalog::RelationKind::Source(_)))
                    .collect();
                let rows = |id| snapshot.source_rows.get(&id).map(|n| *n as i64);
                table.text("schema", sources.iter().map(|r| Some(r.schema.clone())));
                table.text("name", sources.iter().map(|r| Some(r.name.clone())));
                table.bigint("rows", sources.iter().map(|r| rows(r.id)));
                table.timestamp(
                    "watermark",
                    sources.iter().map(|r| snapshot.watermarks.get(&r.id).map(|w| w.0)),
                );
                table.bigint("error_rows", sources.iter().map(|r| Some(snapshot.errors.count(r.id) as i64)));
            }
            "partitions" => {
                let mut stored: HashMap<_, _> =
                    self.inner.log.storage().into_iter().map(|s| ((s.topic, s.partition), s)).collect();
                let mut all: Vec<(_, PartitionFacts, Option<PartitionStorage>)> = Vec::new();
                for relation in snapshot.catalog.relations().filter(|r| r.is_topic()) {
                    for facts in self.inner.log.partitions(relation.id) {
                        let stored = stored.remove(&(relation.id, facts.partition));
                        all.push((relation, facts, stored));
                    }
                }
                let number = |n: u64| Some(i64::try_from(n).unwrap_or(i64::MAX));
                table.text("schema", all.iter().map(|(r, ..)| Some(r.schema.clone())));
                table.text("name", all.iter().map(|(r, ..)| Some(r.name.clone())));
                table.int("partition", all.iter().map(|(_, f, _)| f.partition.0 as i32));
                let oldest = |facts: &PartitionFacts, stored: &Option<PartitionStorage>| {
                    stored.as_ref().map_or(facts.next_offset, |stored| stored.earliest_offset).0
                };
                table.bigint("earliest_offset", all.iter().map(|(_, f, s)| number(oldest(f, s))));
                table.bigint("next_offset", all.iter().map(|(_, f, _)| number(f.next_offset.0)));
                let mut of_storage = |name, of: fn(&PartitionStorage) -> u64| {
                    table.bigint(name, all.iter().map(|(.., s)| number(s.as_ref().map_or(0, of))));
                };
                of_storage("rows", |s| s.rows);
                of_storage("frames", |s| s.frames);
                of_storage("bytes", |s| s.journal_bytes + s.segment_bytes);
                of_storage("journal_bytes", |s| s.journal_bytes);
                of_storage("segments", |s| s.segments);
                of_storage("segment_bytes", |s| s.segment_bytes);
                of_storage("local_bytes", |s| s.local_bytes);
                of_storage("uploaded_bytes", |s| s.uploaded_bytes);
                let trimmed = |s: &PartitionStorage| s.trimmed_through.map(|c| c.0 as i64);
                table.bigint("trimmed_through", all.iter().map(|(.., s)| s.as_ref().and_then(trimmed)));
                let holder = |s: &PartitionStorage| s.held_by.map(str::to_owned);
                table.text("held_by", all.iter().map(|(.., s)| s.as_ref().and_then(holder)));
                table.timestamp("event_time", all.iter().map(|(_, f, _)| f.event_time.map(|t| t.0)));
                table.boolean("idle", all.iter().map(|(_, f, _)| f.idle));
                table.timestamptz("last_row_at", all.iter().map(|(_, f, _)| f.newest_row.map(|t| t.0)));
            }
            "log" => {
                let status = self.inner.log.tier_status();
                let number = |n: u64| [Some(n as i64)].into_iter();
                table.bigint("commit", number(self.inner.log.last_commit().0));
                table.bigint("durable_through", number(self.inner.log.durable().borrow().0));
                table.bigint("sealed_through", number(status.sealed_through.0));
                table.bigint("published_through", number(status.published_through.0));
                table.bigint("safe_through", number(status.safe_through.0));
                table.bigint("segments", number(status.segments));
                table.bigint("journal_files", number(status.journal_files));
                table.double(
                    "seal_interval_seconds",
                    [self.inner.config.seal_interval.as_secs_f64()].into_iter(),
                );
                table.double(
                    "checkpoint_interval_seconds",
                    [self.inner.config.checkpoint_interval.as_secs_f64()].into_iter(),
                );
                table.text("failure", [status.failure].into_iter());
            }
            "errors" => {
                let rows: Vec<_> = snapshot.errors.rows().flat_map(repeated).collect();
                table.text("relation", rows.iter().map(|(id, _)| Some(label(*id))));
                table.text("operator", rows.iter().map(|(_, r)| Some(r.operator.clone())));
                table.bigint("line", rows.iter().map(|(_, r)| r.line));
                table.text("row", rows.iter().map(|(_, r)| Some(r.row.clone())));
                table.text("sqlstate", rows.iter().map(|(_, r)| Some(r.sqlstate.clone())));
                table.text("message", rows.iter().map(|(_, r)| Some(r.message.clone())));
            }
            "late_rows" => {
                let rows: Vec<_> = snapshot.late.rows().flat_map(repeated).collect();
                table.text("relation", rows.iter().map(|(id, _)| Some(label(*id))));
                table.timestamp("window_end", rows.iter().map(|(_, r)| Some(r.window_end)));
                table.timestamp("watermark", rows.iter().map(|(_, r)| Some(r.watermark)));
                table.interval("late_by", rows.iter().map(|(_, r)| r.watermark.saturating_sub(r.window_end)));
                table.text("row", rows.iter().map(|(_, r)| Some(r.row.clone())));
            }
            "checkpoints" => {
                let last: Vec<_> = self.inner.driver.counters.checkpoint.lock().iter().cloned().collect();
                table.bigint("number", last.iter().map(|c| Some(c.number as i64)));
                table.bigint("epoch", last.iter().map(|c| Some(c.cut.0 as i64)));
                table.bigint("bytes", last.iter().map(|c| Some(c.bytes as i64)));
                table.double("seconds", last.iter().map(|c| c.seconds));
                table.double("pause_seconds", last.iter().map(|c| c.pause_seconds));
            }
            "settings" => {
                table.text("name", self.descriptions.iter().map(|(n, _, _)| Some(n.clone())));
                table.text("setting", self.descriptions.iter().map(|(_, v, _)| Some(v.clone())));
                table.text("description", self.descriptions.iter().map(|(_, _, d)| Some(d.clone())));
            }
            "connections" => {
                let all = &self.context.connections;
                table.int("pid", all.iter().map(|c| c.pid));
                table.text("user", all.iter().map(|c| Some(c.user.clone())));
                table.text("database", all.iter().map(|c| Some(c.database.clone())));
                table.text("application_name", all.iter().map(|c| Some(c.application_name.clone())));
                table.text("client_address", all.iter().map(|c| c.client_address.clone()));
                table.text("state", all.iter().map(|c| Some(c.state.to_owned())));
                table.text("query", all.iter().map(|c| Some(c.query.clone())));
            }
            _ => return None,
        }
        table.batch()
    }
}

fn repeated<R: Clone>((id, row, weight): (RelationId, &R, i64)) -> impl Iterator<Item = (RelationId, R)> {
    std::iter::repeat_n((id, row.clone()), usize::try_from(weight).unwrap_or(0))
}

impl SystemTables for SessionTables {
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableSource>> {
        let provider = if schema == "millpond" {
            let batch = self.own(name)?;
            Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).ok()?)
        } else {
            let system: &dyn SystemCatalog = &*self.inner.system;
            let provider = system.table(schema, name, &self.context)?;
            self.used.store(true, Ordering::Relaxed);
            return Some(provider_as_source(provider));
        };
        self.used.store(true, Ordering::Relaxed);
        Some(provider_as_source(provider))
    }

    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let functions = self.functions.get_or_init(|| {
            let all = self.inner.system.functions(&self.context);
            let mut named = BTreeMap::new();
            for function in all {
                for alias in function.aliases() {
                    named.insert(alias.to_lowercase(), Arc::clone(&function));
                }
                named.insert(function.name().to_lowercase(), function);
            }
            named
        });
        let function = functions.get(name).cloned();
        if function.is_some() {
            self.used.store(true, Ordering::Relaxed);
        }
        function
    }
}

/// Columns that become a batch.
#[derive(Default)]
struct Table {
    fields: Vec<arrow::datatypes::Field>,
    columns: Vec<ArrayRef>,
}

impl Table {
    fn add(&mut self, name: &str, ty: &SqlType, column: ArrayRef) {
        self.fields.push(ty.field(name, true));
        self.columns.push(column);
    }

    fn text(&mut self, name: &str, values: impl Iterator<Item = Option<String>>) {
        self.add(name, &SqlType::Text, Arc::new(values.collect::<StringArray>()));
    }

    fn bigint(&mut self, name: &str, values: impl Iterator<Item = Option<i64>>) {
        self.add(name, &SqlType::Int8, Arc::new(values.collect::<Int64Array>()));
    }

    fn int(&mut self, name: &str, values: impl Iterator<Item = i32>) {
        self.add(name, &SqlType::Int4, Arc::new(Int32Array::from_iter_values(values)));
    }

    fn double(&mut self, name: &str, values: impl Iterator<Item = f64>) {
        self.add(name, &SqlType::Float8, Arc::new(Float64Array::from_iter_values(values)));
    }

    fn timestamp(&mut self, name: &str, values: impl Iterator<Item = Option<i64>>) {
        self.add(name, &SqlType::Timestamp, Arc::new(values.collect::<TimestampMicrosecondArray>()));
    }

    fn timestamptz(&mut self, name: &str, values: impl Iterator<Item = Option<i64>>) {
        let values: TimestampMicrosecondArray = values.collect();
        self.add(name, &SqlType::Timestamptz, Arc::new(values.with_timezone(millpond_types::sql_type::UTC)));
    }

    fn boolean(&mut self, name: &str, values: impl Iterator<Item = bool>) {
        let values: BooleanArray = values.map(Some).collect();
        self.add(name, &SqlType::Boolean, Arc::new(values));
    }

    fn interval(&mut self, name: &str, micros: impl Iterator<Item = i64>) {
        let interval = |micros: i64| IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1000));
        self.add(
            name,
            &SqlType::Interval,
            Arc::new(IntervalMonthDayNanoArray::from_iter_values(micros.map(interval))),
        );
    }

    fn batch(self) -> Option<RecordBatch> {
        RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.columns).ok()
    }
}
