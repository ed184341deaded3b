//! Aggregates over windows whose accumulators cannot take rows back, or may be asked only once.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue, not_impl_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ReversedUDAF, Signature};
use datafusion::physical_plan::PhysicalExpr;

/// Whether DataFusion slides frames of this aggregate as they are.
pub fn slides(name: &str) -> bool {
    matches!(name, "count" | "sum" | "avg" | "min" | "max")
}

/// Whether an accumulator of this aggregate may be asked for its result, given more rows, and asked again.
pub fn grows(name: &str) -> bool {
    slides(name)
        || name.starts_with("stddev")
        || name.starts_with("var_")
        || matches!(name, "variance" | "var" | "bool_and" | "bool_or" | "bit_and" | "bit_or" | "bit_xor")
}

/// An aggregate that keeps the rows of its frame and computes its result from them each time it is asked.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Recomputed(Arc<AggregateUDF>);

impl Recomputed {
    pub fn over(inner: Arc<AggregateUDF>) -> Self {
        Self(inner)
    }
}

impl AggregateUDFImpl for Recomputed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.0.return_field(fields)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.0.state_fields(args)
    }

    fn is_nullable(&self) -> bool {
        self.0.is_nullable()
    }

    fn default_value(&self, ty: &DataType) -> Result<ScalarValue> {
        self.0.default_value(ty)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Rows {
            inner: Arc::clone(&self.0),
            return_field: args.return_field,
            schema: args.schema.clone(),
            name: args.name.to_owned(),
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
            chunks: VecDeque::new(),
        }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.accumulator(args)
    }
}

/// Small batches are put together when there are more of them.
const CHUNKS_MAX: usize = 64;

#[derive(Debug)]
struct Rows {
    inner: Arc<AggregateUDF>,
    return_field: FieldRef,
    schema: Schema,
    name: String,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
    chunks: VecDeque<Vec<ArrayRef>>,
}

impl Rows {
    fn put_together(&mut self) -> Result<()> {
        let Some(first) = self.chunks.front() else { return Ok(()) };
        let mut joined = Vec::with_capacity(first.len());
        for column in 0..first.len() {
            let parts: Vec<&dyn arrow::array::Array> =
                self.chunks.iter().map(|chunk| chunk[column].as_ref()).collect();
            joined.push(concat(&parts)?);
        }
        self.chunks = VecDeque::from([joined]);
        Ok(())
    }
}

impl Accumulator for Rows {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values.first().is_some_and(|column| !column.is_empty()) {
            self.chunks.push_back(values.to_vec());
        }
        if self.chunks.len() > CHUNKS_MAX { self.put_together() } else { Ok(()) }
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut gone = values.first().map_or(0, |column| column.len());
        while gone > 0
            && let Some(first) = self.chunks.front_mut()
        {
            let rows = first.first().map_or(0, |column| column.len());
            if rows > gone {
                first.iter_mut().for_each(|column| *column = column.slice(gone, rows - gone));
                break;
            }
            gone -= rows;
            self.chunks.pop_front();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut accumulator = self.inner.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: &self.name,
            is_distinct: false,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })?;
        self.chunks.iter().try_for_each(|chunk| accumulator.update_batch(chunk))?;
        accumulator.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        not_impl_err!("a frame has no partial state")
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        not_impl_err!("a frame has no partial state")
    }

    fn size(&self) -> usize {
        let columns = self.chunks.iter().flatten();
        size_of_val(self) + columns.map(|column| column.get_array_memory_size()).sum::<usize>()
    }
}
