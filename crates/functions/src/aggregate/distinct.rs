//! An aggregate over the distinct values of its only argument: the values themselves are the state.

use std::collections::HashSet;

use arrow::array::*;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;

/// NULLs do not count.
#[derive(Debug)]
pub(super) struct Distinct {
    input: DataType,
    values: HashSet<ScalarValue>,
    /// Takes the values when all have come; it has seen none before.
    over: Box<dyn Accumulator>,
}

impl Distinct {
    pub(super) fn new(input: DataType, over: Box<dyn Accumulator>) -> Self {
        Self { input, values: HashSet::new(), over }
    }

    fn insert(&mut self, values: &ArrayRef) -> Result<()> {
        for row in 0..values.len() {
            if values.is_valid(row) {
                self.values.insert(ScalarValue::try_from_array(values, row)?);
            }
        }
        Ok(())
    }
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.insert(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if !self.values.is_empty() {
            self.over.update_batch(&[ScalarValue::iter_to_array(self.values.drain())?])?;
        }
        self.over.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.values.iter().cloned().collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.input))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        states[0].as_list::<i32>().iter().flatten().try_for_each(|values| self.insert(&values))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.iter().map(ScalarValue::size).sum::<usize>() + self.over.size()
    }
}
