//! What a write to a source or table needs to know, made once per version of the relation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::physical_plan::PhysicalExpr;
use millpond_catalog::{Layout, Relation, RelationKind};
use millpond_env::Clock;
use millpond_functions::error::from_datafusion;
use millpond_plan::{Planner, is_proctime, physical};
use millpond_types::{EventTime, RelationId, SqlError, SqlState, SqlType};

use crate::shape::Shape;

/// The key of a table without a primary key: numbers its rows in the order they came.
pub(crate) const ROW_ID: &str = "_row_id";

/// The last column of a table's frames: [`OP_PUT`] or [`OP_DELETE`].
pub(crate) const OP: &str = "_op";
pub(crate) const OP_PUT: i8 = 0;
pub(crate) const OP_DELETE: i8 = 1;

/// How the rows of a relation are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// They are not: rows only come.
    AppendOnly,
    /// The primary key, as columns of the stored schema.
    Primary(Vec<usize>),
    /// [`ROW_ID`], the last column of the stored schema.
    RowId(usize),
}

impl Key {
    pub fn of(relation: &Relation) -> Self {
        match &relation.kind {
            RelationKind::Table(table) if !table.append_only && table.primary_key.is_empty() => {
                Self::RowId(relation.columns.len())
            }
            RelationKind::Table(table) if !table.append_only => Self::Primary(table.primary_key.clone()),
            _ => Self::AppendOnly,
        }
    }

    /// The key's columns in the stored schema.
    pub fn columns(&self) -> Vec<usize> {
        match self {
            Self::AppendOnly => Vec::new(),
            Self::Primary(columns) => columns.clone(),
            Self::RowId(column) => vec![*column],
        }
    }
}

/// The columns that frames of a relation hold, without [`OP`].
pub(crate) fn stored_schema(relation: &Relation) -> SchemaRef {
    let mut fields: Vec<Field> =
        relation.arrow_schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    if matches!(Key::of(relation), Key::RowId(_)) {
        fields.push(SqlType::Int8.field(ROW_ID, false));
    }
    Arc::new(Schema::new(fields))
}

pub(crate) struct Target {
    pub relation: Arc<Relation>,
    /// The declared columns.
    pub declared: SchemaRef,
    pub stored: SchemaRef,
    pub key: Key,
    pub shape: Arc<Shape>,
    /// Where the next batch without a key goes, modulo the number of partitions.
    turn: AtomicU32,
    watermark: Option<Arc<dyn PhysicalExpr>>,
    /// `None` is the time at which a row is completed.
    generated: Vec<(usize, Option<Arc<dyn PhysicalExpr>>)>,
    clock: Arc<dyn Clock>,
}

impl Target {
    /// # Errors
    /// Those of planning the relation's own expressions; they were checked at CREATE.
    pub fn new(relation: Arc<Relation>, planner: &Planner, clock: Arc<dyn Clock>) -> Result<Self, SqlError> {
        let declared = relation.arrow_schema();
        let facts = column_facts(&relation);
        let watermark = match relation.watermark() {
            Some(watermark) => {
                let parsed = millpond_sql::parse_expression(&watermark.expression)?;
                let expression = planner.plan_column_expression(&facts, &parsed, None)?;
                Some(physical(&expression.expr, &declared)?)
            }
            None => None,
        };
        let mut generated = Vec::new();
        for (index, column) in relation.columns.iter().enumerate() {
            if let Some(text) = &column.generated {
                let parsed = millpond_sql::parse_expression(text)?;
                if is_proctime(&parsed) {
                    generated.push((index, None));
                    continue;
                }
                let expression =
                    planner.plan_column_expression(&facts, &parsed, Some((&column.name, &column.ty)))?;
                generated.push((index, Some(physical(&expression.expr, &declared)?)));
            }
        }
        let (key, stored) = (Key::of(&relation), stored_schema(&relation));
        let shape = Arc::new(Shape::new(&relation, planner)?);
        Ok(Self {
            relation,
            declared,
            stored,
            key,
            shape,
            turn: AtomicU32::new(0),
            watermark,
            generated,
            clock,
        })
    }

    pub fn layout(&self) -> &Layout {
        self.relation.layout().expect("targets are sources and tables")
    }

    /// The partition of a batch that may go to any.
    pub fn next_partition(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.layout().partitions
    }

    pub fn id(&self) -> RelationId {
        self.relation.id
    }

    /// Fills the generated columns and checks NOT NULL; `batch` has the declared columns in canonical types.
    ///
    /// # Errors
    /// 23502; whatever a generated column's expression raises.
    pub fn complete(&self, batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
        let mut columns = batch.columns().to_vec();
        if !self.generated.is_empty() {
            let nullable: Vec<Field> =
                self.declared.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
            let input =
                RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns.clone()).map_err(internal)?;
            for (index, expr) in &self.generated {
                columns[*index] = match expr {
                    Some(expr) => {
                        let value = expr.evaluate(&input).map_err(from_datafusion)?;
                        value.into_array(batch.num_rows()).map_err(from_datafusion)?
                    }
                    None => {
                        let now = Int64Array::from_value(self.clock.now_micros(), batch.num_rows());
                        compute::cast(&now, self.declared.field(*index).data_type()).map_err(internal)?
                    }
                };
            }
        }
        for (field, column) in self.declared.fields().iter().zip(&columns) {
            if !field.is_nullable() && column.logical_null_count() > 0 {
                return Err(self.null_violation(field.name(), column, batch));
            }
        }
        RecordBatch::try_new(Arc::clone(&self.declared), columns).map_err(internal)
    }

    fn null_violation(&self, name: &str, column: &ArrayRef, batch: &RecordBatch) -> SqlError {
        let error = SqlError::new(
            SqlState::NOT_NULL_VIOLATION,
            format!(
                "null value in column \"{name}\" of relation \"{}\" violates not-null constraint",
                self.relation.name
            ),
        );
        let row = (0..column.len()).find(|row| column.is_null(*row)).unwrap_or(0);
        match crate::reject::row_text(batch, row) {
            Ok(text) => error.detail(format!("Failing row contains {}.", text.replace(',', ", "))),
            Err(_) => error,
        }
    }

    /// The largest value of the watermark expression over the batch, with which it moves the watermark.
    ///
    /// # Errors
    /// Whatever the expression raises.
    pub fn event_time(&self, batch: &RecordBatch) -> Result<Option<EventTime>, SqlError> {
        let Some(expr) = &self.watermark else { return Ok(None) };
        let value = expr.evaluate(batch).map_err(from_datafusion)?;
        let array = value.into_array(batch.num_rows()).map_err(from_datafusion)?;
        let time = compute::cast(&array, &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None))
            .map_err(|e| SqlError::internal(e.to_string()))?;
        Ok(compute::max(time.as_primitive::<TimestampMicrosecondType>()).map(EventTime))
    }

    /// `key (a, b)=(1, 2)` as PostgreSQL names a conflicting row.
    pub fn duplicate_key(&self, stored: &RecordBatch, row: usize) -> SqlError {
        let Key::Primary(columns) = &self.key else {
            return SqlError::internal("a row id was given twice");
        };
        let RelationKind::Table(table) = &self.relation.kind else {
            return SqlError::internal("only tables have keys");
        };
        let name = table.primary_key_name.clone().unwrap_or_else(|| format!("{}_pkey", self.relation.name));
        let error = SqlError::new(
            SqlState::UNIQUE_VIOLATION,
            format!("duplicate key value violates unique constraint \"{name}\""),
        );
        let names: Vec<&str> = columns.iter().map(|c| self.relation.columns[*c].name.as_str()).collect();
        match stored.project(columns).map_err(internal).and_then(|b| crate::reject::row_text(&b, row)) {
            Ok(values) => error.detail(format!(
                "Key ({})={} already exists.",
                names.join(", "),
                values.replace(',', ", ")
            )),
            Err(_) => error,
        }
    }
}

/// Name, type and NOT NULL of each column, as the planner wants them.
pub(crate) fn column_facts(relation: &Relation) -> Vec<(String, SqlType, bool)> {
    relation.columns.iter().map(|c| (c.name.clone(), c.ty.clone(), !c.nullable)).collect()
}

/// Rows where `filter` is true; NULL is not true.
pub(crate) fn selected(
    filter: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
) -> Result<BooleanArray, SqlError> {
    let value = filter.evaluate(batch).map_err(from_datafusion)?;
    let array = value.into_array(batch.num_rows()).map_err(from_datafusion)?;
    let mask = array.as_boolean();
    Ok(match mask.nulls() {
        Some(_) => compute::prep_null_mask_filter(mask),
        None => mask.clone(),
    })
}

pub(crate) fn internal(error: arrow::error::ArrowError) -> SqlError {
    SqlError::internal(error.to_string())
}
