//! EXPLAIN [ANALYZE] MATERIALIZED VIEW: the plan of a view that is there, with what its operators do.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use millpond_dataflow::NodeStats;
use millpond_functions::Zone;
use millpond_functions::text::Formatter;
use millpond_sql::RelationName;
use millpond_sql::statement::ObjectKind;
use millpond_types::{EventTime, SqlError, SqlType};

use crate::session::Session;
use crate::snapshot::Operators;
use crate::view::{plan_incremental, plan_query};

pub(crate) async fn run(
    session: &mut Session,
    name: &RelationName,
    analyze: bool,
    verbose: bool,
) -> Result<String, SqlError> {
    let path = session.settings.search_path();
    let mut named = |_: &Session, snapshot: &Arc<crate::snapshot::Snapshot>| {
        let found = snapshot.catalog.resolve_kind(name, ObjectKind::MaterializedView, &path);
        found.map(|relation| vec![relation.id]).map_err(|e| name.mark(e))
    };
    // As rows of the view would be read: what was committed before is counted.
    let snapshot = match analyze {
        true => session.snapshot_of(crate::cut::Cut::Any, &mut named).await?,
        false => session.planning_snapshot(),
    };
    let relation =
        snapshot.catalog.resolve_kind(name, ObjectKind::MaterializedView, &path).map_err(|e| name.mark(e))?;
    let (query, lateness) = plan_query(&snapshot.catalog, relation)?;
    let millpond_catalog::RelationKind::MaterializedView(definition) = &relation.kind else {
        return Err(SqlError::internal("not a materialized view"));
    };
    let rows = definition.rows.iter().copied().collect();
    let plan = plan_incremental(&query, lateness, definition.emit, rows)?;
    if !analyze {
        return Ok(plan.with_notes(verbose, &[]).to_string());
    }
    let contents = snapshot.readable(relation)?;
    let Some(operators) = &contents.operators else {
        return Err(SqlError::internal(format!("view \"{}\" has no operators", relation.name)));
    };
    let notes = notes(operators);
    Ok(format!(
        "{}\n{} at commit {}: {} rows, {} bytes with the state of all operators",
        plan.with_notes(verbose, &notes),
        contents.state.name(),
        contents.epoch,
        contents.heap.rows(),
        contents.state_bytes
    ))
}

/// A line for each node of the plan.
fn notes(operators: &Operators) -> Vec<String> {
    let busy: u64 = operators.stats.iter().map(|node| node.busy_nanos).sum();
    let newest = operators.stats.iter().filter_map(|node| node.watermark).max();
    let note = |node: &NodeStats| {
        let mut parts = vec![format!("rows in {}, out {}", node.rows_in, node.rows_out)];
        if !node.states.is_empty() {
            parts.push(format!("state {} rows, {} bytes", node.state_rows, node.memory_bytes));
        }
        if busy > 0 {
            parts.push(format!("busy {:.1}%", node.busy_nanos as f64 * 100.0 / busy as f64));
        }
        if let (Some(mark), Some(newest)) = (node.watermark, newest) {
            parts.push(watermark(mark, newest));
        }
        format!("({})", parts.join("; "))
    };
    let named = operators.named.iter();
    named.map(|(id, _)| operators.of(*id).map_or_else(String::new, note)).collect()
}

/// What no row is expected before any more, and how far that is behind the inputs.
fn watermark(mark: EventTime, newest: EventTime) -> String {
    if mark == EventTime::MAX {
        return "watermark: the end".to_owned();
    }
    let text = timestamp(mark).unwrap_or_else(|| mark.0.to_string());
    match newest.0.saturating_sub(mark.0) {
        _ if newest == EventTime::MAX => format!("watermark {text}, its input has ended"),
        0 => format!("watermark {text}"),
        behind => format!("watermark {text}, {:.3} s behind", behind as f64 / 1e6),
    }
}

fn timestamp(mark: EventTime) -> Option<String> {
    let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from_value(mark.0, 1));
    let mut text = Vec::new();
    Formatter::in_zone(&array, &SqlType::Timestamp, Zone::UTC).ok()?.write(0, &mut text);
    String::from_utf8(text).ok()
}
