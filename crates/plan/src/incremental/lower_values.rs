//! Rows that stand in the query itself: VALUES, and a SELECT without FROM.

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::{self as logical, Expr};
use millpond_types::SqlError;

use super::lower::{Facts, Lowering, Names, Pending, column, unsupported};
use super::{NodeId, Operator};
use crate::names;

/// More belong into a table.
const ROWS_MAX: usize = 1_000;

impl Lowering {
    /// A SELECT without FROM has one row; what can have none is that row and a condition that is never true.
    pub(super) fn empty_relation(&mut self, empty: &logical::EmptyRelation) -> Result<Pending, SqlError> {
        let node = self.one_row();
        let mut columns = Vec::new();
        for field in empty.schema.fields() {
            let null = ScalarValue::try_from(field.data_type());
            let null = null.map_err(|e| SqlError::internal(e.to_string()))?;
            columns.push((names::shown(field.name()).to_owned(), Expr::Literal(null, None)));
        }
        let filter = (!empty.produce_one_row).then(|| logical::lit(false));
        Ok(Pending { node, filter, columns, watermark: None, window_end: None })
    }

    pub(super) fn values(&mut self, values: &logical::Values) -> Result<Pending, SqlError> {
        if values.values.len() > ROWS_MAX {
            return Err(unsupported(
                &format!("VALUES of more than {ROWS_MAX} rows"),
                "Insert the rows into a table, and name it.",
            ));
        }
        let row = self.one_row();
        let mut rows = Vec::with_capacity(values.values.len());
        for expressions in &values.values {
            let named = values.schema.fields().iter().zip(expressions);
            let columns = named.map(|(field, e)| (field.name().clone(), e.clone())).collect();
            rows.push(self.map(row, None, columns)?);
        }
        let node = if let [one] = rows[..] { one } else { self.union_of(rows, &values.schema) };
        let schema = &self.nodes[node].schema;
        let columns = schema.fields().iter().map(|f| (f.name().clone(), column(f.name()))).collect();
        Ok(Pending { node, filter: None, columns, watermark: None, window_end: None })
    }

    fn union_of(&mut self, inputs: Vec<NodeId>, schema: &DFSchemaRef) -> NodeId {
        let mut unique = Names::default();
        let fields = schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true).with_name(unique.next(names::shown(f.name()))))
            .collect();
        self.push(Operator::Union, inputs, fields, Facts { append_only: true, ..Facts::default() })
    }

    fn one_row(&mut self) -> NodeId {
        let field = Field::new("row", DataType::Int64, false);
        let facts = Facts { append_only: true, key: Some(Vec::new()), event_time: None };
        self.push(Operator::OneRow, Vec::new(), vec![field], facts)
    }
}
