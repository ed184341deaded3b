//! INSERT, UPDATE, DELETE and TRUNCATE.
//!
//! A table has one serial writer: whoever holds its image. Statements read the image of everything *appended* (not only
//! published), so `SET x = x + 1` by many clients loses no update.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{Field, Int32Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;
use futures::TryStreamExt;
use millpond_functions::error::from_datafusion;
use millpond_plan::{DeletePlan, InsertPlan, OnConflict, UpdatePlan, dml::Returning, physical};
use millpond_state::RowId;
use millpond_types::{SqlError, SqlState};

use crate::inner::Inner;
use crate::read;
use crate::snapshot::Snapshot;
use crate::target::{Key, ROW_ID, Target, internal, selected};
use crate::txn::{TableImage, Txn};

/// What a statement did.
pub(crate) struct Written {
    pub rows: u64,
    pub returned: Option<RecordBatch>,
}

/// Where a statement runs.
pub(crate) struct Context<'a> {
    pub inner: &'a Arc<Inner>,
    pub snapshot: &'a Arc<Snapshot>,
    pub parameters: &'a [ScalarValue],
    pub lock_timeout: Option<Duration>,
}

pub(crate) async fn insert(cx: &Context<'_>, txn: &mut Txn, plan: &InsertPlan) -> Result<Written, SqlError> {
    let target = cx.inner.target(&cx.snapshot.catalog, plan.relation)?;
    // Batch by batch, so that a statement without end meets the transaction's limit and not that of the memory.
    let (inner, snapshot, parameters) = (cx.inner, cx.snapshot, cx.parameters);
    let relation = cx.snapshot.catalog.relation(plan.relation);
    // Rows of a stream that stand in order of time should not overtake each other: they would be late.
    let mut batches = match relation.is_some_and(|relation| relation.watermark().is_some()) {
        true => read::stream_in_order(inner, snapshot, &plan.rows, parameters, Some(&mut *txn)).await?,
        false => read::stream(inner, snapshot, &plan.rows, parameters, Some(&mut *txn)).await?,
    };
    let mut rows = 0;
    let mut returned = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(from_datafusion)? {
        let (batch, partition) = if plan.partition { split_partition(&batch)? } else { (batch, None) };
        let batch = rename(&batch, &target.declared)?;
        let batch = target.complete(&batch)?;
        let partition = partition.as_ref();
        rows += insert_batch(cx, txn, &target, batch, partition, &plan.on_conflict, &mut returned).await?;
        if plan.returning.is_none() {
            returned.clear();
        }
    }
    let returned = returning(cx, &target, plan.returning.as_ref(), &returned)?;
    Ok(Written { rows, returned })
}

/// The rows, and the partitions in their last column.
fn split_partition(batch: &RecordBatch) -> Result<(RecordBatch, Option<Int32Array>), SqlError> {
    let last = batch.num_columns() - 1;
    let partition = batch.column(last).as_primitive_opt::<Int32Type>();
    let partition = partition.ok_or_else(|| SqlError::internal("a partition is no integer"))?.clone();
    let rows = batch.project(&(0..last).collect::<Vec<_>>()).map_err(internal)?;
    Ok((rows, Some(partition)))
}

/// Inserts complete rows with the declared columns; those that came in are added to `returned`. `partition` is what the rows
/// say of theirs, where they may.
pub(crate) async fn insert_batch(
    cx: &Context<'_>,
    txn: &mut Txn,
    target: &Target,
    batch: RecordBatch,
    partition: Option<&Int32Array>,
    on_conflict: &OnConflict,
    returned: &mut Vec<RecordBatch>,
) -> Result<u64, SqlError> {
    if target.key == Key::AppendOnly {
        if !matches!(on_conflict, OnConflict::Error | OnConflict::Nothing) {
            return Err(no_constraint());
        }
        let rows = batch.num_rows() as u64;
        returned.push(batch.clone());
        txn.append(cx.inner, target, batch, partition)?;
        return Ok(rows);
    }
    txn.lock(cx.inner, target, cx.lock_timeout).await?;
    let Key::Primary(key) = &target.key else {
        let rows = batch.num_rows();
        let ids = Int64Array::from_iter_values(txn.next_row_ids(target.id(), rows));
        let stored = with_column(&batch, &target.stored, Arc::new(ids))?;
        returned.push(batch);
        txn.change(cx.inner, target, RecordBatch::new_empty(Arc::clone(&target.stored)), stored)?;
        return Ok(rows as u64);
    };
    let image = txn.image(target.id()).expect("locked above");
    let present = find(image, target, key, &batch)?;
    let repeated = repeats(&batch, key)?;
    match on_conflict {
        OnConflict::Error => {
            if let Some(row) = (0..batch.num_rows()).find(|row| present[*row].is_some() || repeated[*row]) {
                return Err(target.duplicate_key(&batch, row));
            }
            returned.push(batch.clone());
            let rows = batch.num_rows() as u64;
            txn.change(cx.inner, target, RecordBatch::new_empty(Arc::clone(&target.stored)), batch)?;
            Ok(rows)
        }
        OnConflict::Nothing => {
            let fresh: BooleanArray =
                (0..batch.num_rows()).map(|row| Some(present[row].is_none() && !repeated[row])).collect();
            let batch = compute::filter_record_batch(&batch, &fresh).map_err(internal)?;
            let rows = batch.num_rows() as u64;
            returned.push(batch.clone());
            txn.change(cx.inner, target, RecordBatch::new_empty(Arc::clone(&target.stored)), batch)?;
            Ok(rows)
        }
        OnConflict::Update { assignments, filter } => {
            if repeated.contains(&true) {
                return Err(SqlError::new(
                    SqlState::CARDINALITY_VIOLATION,
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .hint(
                    "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
                ));
            }
            let fresh: BooleanArray = present.iter().map(|id| Some(id.is_none())).collect();
            let inserted = compute::filter_record_batch(&batch, &fresh).map_err(internal)?;
            let excluded = compute::filter_record_batch(&batch, &compute::not(&fresh).map_err(internal)?)
                .map_err(internal)?;
            let ids: Vec<RowId> = present.iter().flatten().copied().collect();
            let mut old = gather(image, &ids)?;
            let mut both = side_by_side(&old, &excluded)?;
            if let Some(filter) = filter {
                let filter = physical(&bind(filter, cx.parameters)?, &both.schema())?;
                let keep = selected(&filter, &both)?;
                both = compute::filter_record_batch(&both, &keep).map_err(internal)?;
                old = compute::filter_record_batch(&old, &keep).map_err(internal)?;
            }
            let updated = assign(assignments, &both, target, cx.parameters)?;
            check_keys_kept(key, &old, &updated)?;
            let new = compute::concat_batches(&target.stored, [&inserted, &updated]).map_err(internal)?;
            let rows = new.num_rows() as u64;
            returned.push(new.clone());
            txn.change(cx.inner, target, old, new)?;
            Ok(rows)
        }
    }
}

pub(crate) async fn update(cx: &Context<'_>, txn: &mut Txn, plan: &UpdatePlan) -> Result<Written, SqlError> {
    let target = cx.inner.target(&cx.snapshot.catalog, plan.relation)?;
    refuse_append_only(&target, "update")?;
    txn.lock(cx.inner, &target, cx.lock_timeout).await?;
    let image = txn.image(target.id()).expect("locked above");
    let old = matching(image, &target, plan.filter.as_ref(), plan.point.as_deref(), cx.parameters)?;
    if old.num_rows() == 0 {
        let returned = returning(cx, &target, plan.returning.as_ref(), &[])?;
        return Ok(Written { rows: 0, returned });
    }
    let declared = declared_of(&old, &target)?;
    let new = assign(&plan.assignments, &declared, &target, cx.parameters)?;
    let new = match &target.key {
        Key::RowId(column) => with_column(&new, &target.stored, Arc::clone(old.column(*column)))?,
        Key::Primary(key) => {
            check_new_keys(image, &target, key, &old, &new)?;
            new
        }
        Key::AppendOnly => return Err(SqlError::internal("an append-only relation was updated")),
    };
    let rows = new.num_rows() as u64;
    let returned = returning(cx, &target, plan.returning.as_ref(), std::slice::from_ref(&new))?;
    txn.change(cx.inner, &target, old, new)?;
    Ok(Written { rows, returned })
}

pub(crate) async fn delete(cx: &Context<'_>, txn: &mut Txn, plan: &DeletePlan) -> Result<Written, SqlError> {
    let target = cx.inner.target(&cx.snapshot.catalog, plan.relation)?;
    refuse_append_only(&target, "delete from")?;
    txn.lock(cx.inner, &target, cx.lock_timeout).await?;
    let image = txn.image(target.id()).expect("locked above");
    let old = matching(image, &target, plan.filter.as_ref(), plan.point.as_deref(), cx.parameters)?;
    let rows = old.num_rows() as u64;
    let returned = returning(cx, &target, plan.returning.as_ref(), std::slice::from_ref(&old))?;
    txn.change(cx.inner, &target, old, RecordBatch::new_empty(Arc::clone(&target.stored)))?;
    Ok(Written { rows, returned })
}

/// Removes every row of a table.
pub(crate) async fn truncate(cx: &Context<'_>, txn: &mut Txn, target: &Target) -> Result<(), SqlError> {
    refuse_append_only(target, "truncate")?;
    txn.lock(cx.inner, target, cx.lock_timeout).await?;
    let image = txn.image(target.id()).expect("locked above");
    let old = matching(image, target, None, None, &[])?;
    txn.change(cx.inner, target, old, RecordBatch::new_empty(Arc::clone(&target.stored)))
}

fn refuse_append_only(target: &Target, verb: &str) -> Result<(), SqlError> {
    if target.key != Key::AppendOnly {
        return Ok(());
    }
    let kind = target.relation.kind.object().as_str();
    Err(SqlError::new(
        SqlState::WRONG_OBJECT_TYPE,
        format!("cannot {verb} append-only {kind} \"{}\"", target.relation.name),
    )
    .detail("Its rows are events of a log: they come and stay.")
    .hint("Use CREATE TABLE … (PRIMARY KEY …) for rows that change."))
}

fn no_constraint() -> SqlError {
    SqlError::new(
        SqlState::INVALID_COLUMN_REFERENCE,
        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    )
}

/// The rows of the image that a condition selects, with the stored columns.
fn matching(
    image: &mut TableImage,
    target: &Target,
    filter: Option<&Expr>,
    point: Option<&[Expr]>,
    parameters: &[ScalarValue],
) -> Result<RecordBatch, SqlError> {
    let filter = match filter {
        Some(filter) => Some(physical(&bind(filter, parameters)?, &target.declared)?),
        None => None,
    };
    let keep = |batch: RecordBatch| -> Result<RecordBatch, SqlError> {
        match &filter {
            Some(filter) => {
                let mask = selected(filter, &declared_of(&batch, target)?)?;
                compute::filter_record_batch(&batch, &mask).map_err(internal)
            }
            None => Ok(batch),
        }
    };
    if let (Some(point), Key::Primary(_)) = (point, &target.key) {
        let one = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(1)),
        )
        .map_err(internal)?;
        let mut values: Vec<ArrayRef> = Vec::with_capacity(point.len());
        for expr in point {
            let value =
                physical(&bind(expr, parameters)?, &one.schema())?.evaluate(&one).map_err(from_datafusion)?;
            values.push(value.into_array(1).map_err(from_datafusion)?);
        }
        let found = image.rows.find(&values).map_err(fault)?;
        let ids: Vec<RowId> = found.into_iter().flatten().collect();
        return keep(gather(image, &ids)?);
    }
    let snapshot = image.rows.snapshot();
    let mut kept = Vec::new();
    for batch in snapshot.batches(None) {
        let batch = keep(batch.map_err(fault)?)?;
        if batch.num_rows() > 0 {
            kept.push(batch);
        }
    }
    compute::concat_batches(&target.stored, &kept).map_err(internal)
}

fn gather(image: &TableImage, ids: &[RowId]) -> Result<RecordBatch, SqlError> {
    image.rows.heap().gather(ids, None).map_err(fault)
}

fn fault(fault: millpond_state::StateFault) -> SqlError {
    SqlError::internal(fault.to_string())
}

fn find(
    image: &TableImage,
    target: &Target,
    key: &[usize],
    batch: &RecordBatch,
) -> Result<Vec<Option<RowId>>, SqlError> {
    let columns: Vec<ArrayRef> = key.iter().map(|c| Arc::clone(batch.column(*c))).collect();
    image
        .rows
        .find(&columns)
        .map_err(|fault| SqlError::internal(format!("{}: {fault}", target.relation.name)))
}

/// For each row, whether an earlier row of the batch has the same key.
fn repeats(batch: &RecordBatch, key: &[usize]) -> Result<Vec<bool>, SqlError> {
    if batch.num_rows() < 2 {
        return Ok(vec![false; batch.num_rows()]);
    }
    let fields = key.iter().map(|c| SortField::new(batch.column(*c).data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(internal)?;
    let columns: Vec<ArrayRef> = key.iter().map(|c| Arc::clone(batch.column(*c))).collect();
    let rows = converter.convert_columns(&columns).map_err(internal)?;
    let mut seen = HashSet::with_capacity(rows.num_rows());
    Ok(rows.iter().map(|row| !seen.insert(row)).collect())
}

/// 23505 if a changed key is one that another row keeps, or two rows come to have the same.
fn check_new_keys(
    image: &TableImage,
    target: &Target,
    key: &[usize],
    old: &RecordBatch,
    new: &RecordBatch,
) -> Result<(), SqlError> {
    if keys_equal(key, old, new)? {
        return Ok(());
    }
    if let Some(row) = repeats(new, key)?.iter().position(|r| *r) {
        return Err(target.duplicate_key(new, row));
    }
    let leaving: HashSet<RowId> = find(image, target, key, old)?.into_iter().flatten().collect();
    let present = find(image, target, key, new)?;
    let taken = present.iter().position(|id| id.is_some_and(|id| !leaving.contains(&id)));
    taken.map_or(Ok(()), |row| Err(target.duplicate_key(new, row)))
}

fn check_keys_kept(key: &[usize], old: &RecordBatch, new: &RecordBatch) -> Result<(), SqlError> {
    if keys_equal(key, old, new)? {
        return Ok(());
    }
    Err(SqlError::unsupported("ON CONFLICT DO UPDATE cannot change the primary key")
        .hint("Leave the key's columns out of SET, or UPDATE the row in a statement of its own."))
}

fn keys_equal(key: &[usize], old: &RecordBatch, new: &RecordBatch) -> Result<bool, SqlError> {
    for column in key {
        let differs =
            compute::kernels::cmp::distinct(old.column(*column), new.column(*column)).map_err(internal)?;
        if differs.true_count() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The complete new rows: one expression per declared column over `input`, then generated columns and NOT NULL.
fn assign(
    assignments: &[Expr],
    input: &RecordBatch,
    target: &Target,
    parameters: &[ScalarValue],
) -> Result<RecordBatch, SqlError> {
    let mut columns = Vec::with_capacity(assignments.len());
    for expr in assignments {
        let value =
            physical(&bind(expr, parameters)?, &input.schema())?.evaluate(input).map_err(from_datafusion)?;
        columns.push(value.into_array(input.num_rows()).map_err(from_datafusion)?);
    }
    let nullable: Vec<Field> =
        target.declared.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns).map_err(internal)?;
    target.complete(&batch)
}

/// The rows that are there beside those that were to come, whose columns are named `excluded.<column>`.
fn side_by_side(old: &RecordBatch, excluded: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let mut fields: Vec<Field> = old.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.extend(
        excluded
            .schema()
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_name(format!("excluded.{}", f.name()))),
    );
    let columns = old.columns().iter().chain(excluded.columns()).cloned().collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(internal)
}

/// The stored columns without the row's number.
fn declared_of(batch: &RecordBatch, target: &Target) -> Result<RecordBatch, SqlError> {
    let columns: Vec<usize> = (0..target.declared.fields().len()).collect();
    batch.project(&columns).map_err(internal)
}

fn with_column(batch: &RecordBatch, stored: &SchemaRef, column: ArrayRef) -> Result<RecordBatch, SqlError> {
    debug_assert_eq!(stored.fields().last().map(|f| f.name().as_str()), Some(ROW_ID));
    let mut columns = batch.columns().to_vec();
    columns.push(column);
    RecordBatch::try_new(Arc::clone(stored), columns).map_err(internal)
}

/// The same columns under the declared names; NOT NULL is checked later, so every column may hold NULLs.
pub(crate) fn rename(batch: &RecordBatch, declared: &SchemaRef) -> Result<RecordBatch, SqlError> {
    let fields: Vec<Field> =
        declared.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec()).map_err(internal)
}

fn returning(
    cx: &Context<'_>,
    target: &Target,
    returning: Option<&Returning>,
    rows: &[RecordBatch],
) -> Result<Option<RecordBatch>, SqlError> {
    let Some(returning) = returning else { return Ok(None) };
    let mut declared = Vec::with_capacity(rows.len());
    for batch in rows {
        declared.push(declared_of(batch, target)?);
    }
    let input = compute::concat_batches(&target.declared, &declared).map_err(internal)?;
    let mut columns = Vec::new();
    let mut fields = Vec::new();
    for (expr, (name, ty)) in returning.expressions.iter().zip(&returning.columns) {
        let value = physical(&bind(expr, cx.parameters)?, &target.declared)?
            .evaluate(&input)
            .map_err(from_datafusion)?;
        columns.push(value.into_array(input.num_rows()).map_err(from_datafusion)?);
        fields.push(ty.field(name, true));
    }
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(input.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(internal)?;
    Ok(Some(batch))
}

/// The expression with `$n` replaced by the n-th value.
fn bind(expr: &Expr, parameters: &[ScalarValue]) -> Result<Expr, SqlError> {
    let bound = expr.clone().transform(|e| match &e {
        Expr::Placeholder(placeholder) => {
            let number = placeholder.id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
            match number.and_then(|n| parameters.get(n.wrapping_sub(1))) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
                None => Err(millpond_functions::error::into_datafusion(SqlError::new(
                    SqlState::UNDEFINED_PARAMETER,
                    format!("there is no parameter {}", placeholder.id),
                ))),
            }
        }
        _ => Ok(Transformed::no(e)),
    });
    bound.map(|t| t.data).map_err(from_datafusion)
}
