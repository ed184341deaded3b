//! Set-returning functions.

use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::UserDefinedLogicalNodeCore;
use millpond_functions::error::from_datafusion;
use millpond_functions::sets::columns_of;
use millpond_types::SqlError;

use super::lower::{Facts, Lowering, Names, Pending, column, over};
use super::text::shown;
use super::{Operator, SetColumns};
use crate::flat_map::FlatMap;
use crate::{Metadata, names};

impl Lowering {
    /// The sets become columns of a map, so that a row whose set cannot be computed fails there.
    pub(super) fn flat_map(&mut self, map: &FlatMap, threaded: bool) -> Result<Pending, SqlError> {
        let input = self.lower(map.input(), threaded)?;
        let (input, single) = self.with_scalar_subqueries(input, map.sets())?;
        let mut columns: Vec<(String, _)> =
            map.kept().into_iter().map(|at| input.columns[at].clone()).collect();
        let visible = columns.len();
        let watermark =
            input.watermark.map(|expr| columns.push((Metadata::Watermark.name().to_owned(), expr)));
        let window_end =
            input.window_end.map(|expr| columns.push((crate::window::WINDOW_END.to_owned(), expr)));
        let kept = columns.len();
        for set in map.sets() {
            let expr = single.replace(over(set, map.input().schema(), &input.columns)?)?;
            columns.push((shown(&expr), expr));
        }
        let below = self.map(input.node, input.filter, columns)?;
        let node = &self.nodes[below];
        let mut fields: Vec<Field> =
            node.schema.fields()[..kept].iter().map(|field| field.as_ref().clone()).collect();
        let mut unique = Names::default();
        fields.iter().for_each(|field| {
            unique.next(field.name());
        });
        let given = map.schema().fields().iter().skip(visible);
        let mut types: Vec<Field> = Vec::new();
        for set in node.schema.fields().iter().skip(kept) {
            types.extend(columns_of(set.data_type())?.iter().map(|field| field.as_ref().clone()));
        }
        if map.ordinality() {
            types.push(Field::new("ordinality", DataType::Int64, true));
        }
        let of_sets = types.len();
        for (field, name) in types.into_iter().zip(given) {
            let name = unique.next(names::shown(name.name()));
            fields.push(field.with_name(name).with_nullable(true));
        }
        if fields.len() != kept + of_sets {
            return Err(from_datafusion(datafusion::common::DataFusionError::Internal(
                "a flat map lacks names".to_owned(),
            )));
        }
        let count = fields.len() - 1;
        let facts = Facts {
            append_only: node.append_only,
            // A row and a number say which row of its sets it is.
            key: node.key.clone().filter(|_| map.ordinality()).map(|mut key| {
                key.push(count);
                key
            }),
            event_time: node.event_time.filter(|at| *at < kept),
        };
        let operator = SetColumns {
            kept: (0..kept).collect(),
            sets: (kept..node.schema.fields().len()).collect(),
            ordinality: map.ordinality(),
            outer: map.outer(),
        };
        let named: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        let node = self.push(Operator::FlatMap(operator), vec![below], fields, facts);
        let output = |at: &usize| (named[*at].clone(), column(&named[*at]));
        let shown: Vec<usize> = (0..visible).chain(kept..named.len()).collect();
        Ok(Pending {
            node,
            filter: None,
            columns: shown.iter().map(output).collect(),
            watermark: watermark.map(|()| column(&named[visible])),
            window_end: window_end.map(|()| column(&named[kept - 1])),
        })
    }
}
