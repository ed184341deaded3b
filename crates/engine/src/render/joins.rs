//! Joins as the dataflow wants them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Expr;
use millpond_dataflow::{JoinClose, JoinKind, JoinSpec, Lookup, MultiJoinSpec, Residual, SideClose};
use millpond_plan::incremental::{self, Node};
use millpond_plan::physical;
use millpond_types::SqlError;

pub(super) fn join(join: &incremental::Join, sources: [&Node; 2], node: &Node) -> Result<JoinSpec, SqlError> {
    Ok(JoinSpec {
        kind: match join.kind {
            incremental::JoinKind::Inner => JoinKind::Inner,
            incremental::JoinKind::Left => JoinKind::Left,
            incremental::JoinKind::Right => JoinKind::Right,
            incremental::JoinKind::Full => JoinKind::Full,
            incremental::JoinKind::LeftSemi => JoinKind::LeftSemi,
            incremental::JoinKind::LeftAnti => JoinKind::LeftAnti,
            incremental::JoinKind::LeftMark => JoinKind::LeftMark,
        },
        keys: join.keys.clone(),
        nulls_equal: join.nulls_equal,
        residual: residual(join.residual.as_ref(), &join.pair)?,
        close: join.close.map(|close| JoinClose {
            sides: close.sides.map(|side| SideClose {
                time: side.time,
                watermark: side.watermark,
                late_micros: side.late_us,
                free_micros: side.free_us,
            }),
            lateness_micros: close.lateness_us,
        }),
        append_only: sources.map(|source| source.append_only),
        output: join.output.clone(),
        schema: Arc::clone(&node.schema),
    })
}

pub(super) fn multi_join(
    join: &incremental::MultiJoin,
    sources: &[&Node],
    node: &Node,
) -> Result<MultiJoinSpec, SqlError> {
    let mut indexes: Vec<Vec<Vec<usize>>> = vec![Vec::new(); sources.len()];
    let mut paths = Vec::with_capacity(sources.len());
    for (from, path) in join.paths.iter().enumerate() {
        let mut known = vec![from];
        let mut lookups = Vec::with_capacity(path.len());
        for &source in path {
            let (columns, by): (Vec<usize>, Vec<(usize, usize)>) =
                join.lookup(&known, source).into_iter().unzip();
            let of = &mut indexes[source];
            let index = of.iter().position(|index| *index == columns).unwrap_or_else(|| {
                of.push(columns);
                of.len() - 1
            });
            lookups.push(Lookup { source, index, by });
            known.push(source);
        }
        paths.push(lookups);
    }
    let shard_by = join.equal.iter().find(|class| class.len() == sources.len()).map(|class| {
        let mut columns = class.clone();
        columns.sort_unstable();
        columns.into_iter().map(|(_, column)| column).collect()
    });
    Ok(MultiJoinSpec {
        append_only: sources.iter().map(|source| source.append_only).collect(),
        indexes,
        paths,
        shard_by,
        residual: residual(join.residual.as_ref(), &join.pair)?,
        output: join.output.clone(),
        schema: Arc::clone(&node.schema),
    })
}

/// A condition over the columns that it names.
fn residual(residual: Option<&Expr>, pair: &SchemaRef) -> Result<Option<Residual>, SqlError> {
    let Some(residual) = residual else { return Ok(None) };
    let names = residual.column_refs();
    let columns: Vec<usize> = (0..pair.fields().len())
        .filter(|c| names.iter().any(|name| name.name == *pair.field(*c).name()))
        .collect();
    let schema = Arc::new(pair.project(&columns).map_err(crate::target::internal)?);
    Ok(Some(Residual { expression: physical(residual, &schema)?, columns }))
}
