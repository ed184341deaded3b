//! LIMIT, numbered rows, window functions and set operations.
//!
//! A filter on row_number(), rank() or dense_rank() that says how far to count makes a [`TopN`] of the function's node; it
//! gives the number only if something above asks for it.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    self as logical, Expr, FetchType, LogicalPlan, Operator as Op, SkipType, SortExpr, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use millpond_functions::error::from_datafusion;
use millpond_functions::numbering;
use millpond_types::{SqlError, SqlType};

use super::grouping::Slots;
use super::lower::{Facts, Lowering, Names, Pending, column, over, place, unsupported};
use super::{
    AggregateFunction, Argument, Frame, FrameBound, FrameUnits, NodeId, Operator, OrderColumn, Over,
    OverCall, OverFunction, Ranking, Repeat, SortedCall, TopN,
};
use crate::rules::without_alias;
use crate::set_operation::SetOperation;
use crate::window::{WINDOW_END, WINDOW_START, WindowTvf};

/// What a filter says about the numbers of a node's only function.
pub(super) struct Numbered {
    window: *const logical::Window,
    skip: u64,
    end: u64,
    /// Something above reads the number.
    read: bool,
}

impl Lowering {
    pub(super) fn limit(&mut self, limit: &logical::Limit) -> Result<Pending, SqlError> {
        let bounds = (limit.get_skip_type(), limit.get_fetch_type());
        let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) = bounds else {
            return Err(unsupported("LIMIT by an expression", "Write a number."));
        };
        let Some(fetch) = fetch else {
            return Err(unsupported(
                "OFFSET without LIMIT",
                "Add a LIMIT, which bounds what a change costs.",
            ));
        };
        let LogicalPlan::Sort(sort) = limit.input.as_ref() else {
            return Err(SqlError::internal("a LIMIT of a view has no order"));
        };
        let end = (skip as u64).saturating_add(fetch as u64);
        self.first_rows(sort, skip as u64, end.min(sort.fetch.map_or(u64::MAX, |n| n as u64)))
    }

    /// The order of a relation's rows means nothing, unless it decides which rows stay.
    pub(super) fn sort(&mut self, sort: &logical::Sort) -> Result<Pending, SqlError> {
        match sort.fetch {
            None => self.lower(&sort.input, false),
            Some(end) => self.first_rows(sort, 0, end as u64),
        }
    }

    fn first_rows(&mut self, sort: &logical::Sort, skip: u64, end: u64) -> Result<Pending, SqlError> {
        self.refuse_on_close("LIMIT")?;
        let input = self.lower(&sort.input, false)?;
        let ordering = Ordering { partition: &[], order: &sort.expr, schema: sort.input.schema() };
        let ordered = self.ordered(input, &ordering, |_, _| Ok(()))?;
        let bounds = Bounds { ranking: Ranking::RowNumber, skip, end };
        Ok(self.top_n(ordered, bounds, None))
    }

    fn refuse_on_close(&self, what: &str) -> Result<(), SqlError> {
        if !self.options.emit_on_close {
            return Ok(());
        }
        Err(SqlError::unsupported(format!("EMIT ON WINDOW CLOSE: a watermark does not pass {what}"))
            .hint("Leave EMIT out, or use it in a view over the view that emits on close."))
    }

    /// A filter that bounds a number; `None` if it is any other. `above` are the expressions that read the filter's rows.
    pub(super) fn numbered(
        &mut self,
        filter: &logical::Filter,
        above: Option<&[Expr]>,
    ) -> Result<Option<Pending>, SqlError> {
        if self.numbered.is_some() {
            // A filter above says how far to count already.
            return Ok(None);
        }
        let schema = filter.input.schema();
        let conjuncts = split_conjunction(&filter.predicate);
        let bounds: Vec<Option<(usize, Bound)>> = conjuncts.iter().map(|e| bound(e, schema)).collect();
        for candidate in bounds.iter().flatten().map(|(at, _)| *at).collect::<HashSet<_>>() {
            let Some(found) = number_of(&filter.input, candidate) else { continue };
            let (mut skip, mut end) = (0, None);
            let mut rest = Vec::new();
            for (conjunct, bound) in conjuncts.iter().zip(&bounds) {
                match bound {
                    Some((at, Bound { least, most })) if *at == candidate => {
                        skip = skip.max(least.saturating_sub(1));
                        end = [end, *most].into_iter().flatten().min();
                    }
                    _ => rest.push((*conjunct).clone()),
                }
            }
            let Some(end) = end else { continue };
            let reads = |e: &Expr| {
                e.column_refs().into_iter().any(|c| schema.index_of_column(c).is_ok_and(|at| at == candidate))
            };
            let read =
                found.read || above.is_none_or(|above| above.iter().any(reads)) || rest.iter().any(reads);
            self.numbered = Some(Numbered { window: found.window, skip, end, read });
            let input = self.lower(&filter.input, false)?;
            let (mut input, single) = self.with_scalar_subqueries(input, &rest)?;
            if let Some(rest) = conjunction(rest) {
                let rest = single.replace(over(&rest, schema, &input.columns)?)?;
                input.filter = Some(match input.filter.take() {
                    Some(before) => logical::and(before, rest),
                    None => rest,
                });
            }
            return Ok(Some(input));
        }
        Ok(None)
    }

    pub(super) fn over(&mut self, window: &logical::Window) -> Result<Pending, SqlError> {
        let numbered = self.numbered.take_if(|numbered| std::ptr::eq(numbered.window, window));
        let calls: Vec<WindowFunction> =
            window.window_expr.iter().map(window_call).collect::<Result<_, _>>()?;
        let Some(first) = calls.first() else {
            return Err(SqlError::internal("a window without functions"));
        };
        self.refuse_on_close(&format!("{} OVER", first.fun.name()))?;
        let input = self.lower(&window.input, false)?;
        let schema = window.input.schema();
        let WindowFunctionParams { partition_by, order_by, .. } = &first.params;
        let ordering = Ordering { partition: partition_by, order: order_by, schema };
        let fields = window.schema.fields().iter().skip(schema.fields().len());
        let fields: Vec<Field> = fields.map(|field| field.as_ref().clone()).collect();
        if let Some(Numbered { skip, end, read, .. }) = numbered {
            let ranking = ranking(first).ok_or_else(|| SqlError::internal("a filter on no number"))?;
            let ordered = self.ordered(input, &ordering, |_, _| Ok(()))?;
            let [number] = &fields[..] else { return Err(SqlError::internal("a number among others")) };
            let bounds = Bounds { ranking, skip, end };
            let null = ScalarValue::try_from(number.data_type()).map_err(from_datafusion)?;
            let name = shown_name(first);
            let mut pending = self.top_n(ordered, bounds, read.then(|| number.clone().with_name(&name)));
            if !read {
                pending.columns.push((name, Expr::Literal(null, None)));
            }
            return Ok(pending);
        }
        let mut lowered = Vec::with_capacity(calls.len());
        let ordered = self.ordered(input, &ordering, |slots, columns| {
            let order_type = match &order_by[..] {
                // A constant orders nothing.
                [only] if matches!(over(&only.expr, schema, columns)?, Expr::Literal(..)) => None,
                [only] => Some(
                    logical::ExprSchemable::get_type(&only.expr, schema.as_ref()).map_err(from_datafusion)?,
                ),
                _ => None,
            };
            for (call, field) in calls.iter().zip(&fields) {
                let mut place = |expr: &Expr| -> Result<usize, SqlError> {
                    let expr = over(expr, schema, columns)?;
                    Ok(slots.place(&super::text::shown(&expr), &expr))
                };
                lowered.push(over_call(call, field, order_type.as_ref(), &mut place)?);
            }
            Ok(())
        })?;
        let fields = fields.into_iter().zip(&calls).map(|(field, call)| field.with_name(shown_name(call)));
        Ok(self.push_over(ordered, lowered, fields.collect()))
    }

    /// SESSION: two functions of a row's place among the others.
    pub(super) fn session(&mut self, window: &WindowTvf, gap_us: i64) -> Result<Pending, SqlError> {
        self.refuse_on_close("SESSION")?;
        let mut input = self.lower(window.input(), false)?;
        let schema = window.input().schema();
        let time = over(window.time_column(), schema, &input.columns)?;
        if matches!(time, Expr::Literal(..)) {
            return Err(unsupported("SESSION over a constant", "Name a column of a relation."));
        }
        // A row without a time is in no session.
        let known = time.is_not_null();
        input.filter = Some(match input.filter.take() {
            Some(before) => logical::and(before, known),
            None => known,
        });
        let order = [window.time_column().clone().sort(true, false)];
        let ordering = Ordering { partition: window.partition(), order: &order, schema };
        let ordered = self.ordered(input, &ordering, |_, _| Ok(()))?;
        let frame =
            Frame { units: FrameUnits::Rows, start: FrameBound::CurrentRow, end: FrameBound::CurrentRow };
        let call = |function| OverCall {
            function,
            of_frame: None,
            argument: None,
            default: None,
            filter: None,
            frame,
            result: window.time_type().clone(),
        };
        let calls = vec![call(OverFunction::SessionStart(gap_us)), call(OverFunction::SessionEnd(gap_us))];
        let results = [WINDOW_START, WINDOW_END]
            .map(|name| Field::new(name, window.time_type().clone(), false))
            .to_vec();
        Ok(self.push_over(ordered, calls, results))
    }

    /// Adds the operator; `results` are named as they are shown.
    fn push_over(&mut self, ordered: Ordered, calls: Vec<OverCall>, results: Vec<Field>) -> Pending {
        let Ordered { node, partition, order, mut columns } = ordered;
        let below = &self.nodes[node];
        let mut fields: Vec<Field> = below.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let mut unique = Names::of(&below.schema);
        for field in results {
            let name = unique.next(field.name());
            let field = field.with_name(name);
            columns.push((field.name().clone(), column(field.name())));
            fields.push(field);
        }
        let key = below.key.clone();
        let operator = Operator::Over(Over { partition, order, calls });
        let facts = Facts { append_only: false, key, event_time: None };
        let node = self.push(operator, vec![node], fields, facts);
        Pending { node, filter: None, columns, watermark: None, window_end: None }
    }

    fn top_n(&mut self, ordered: Ordered, bounds: Bounds, number: Option<Field>) -> Pending {
        let Ordered { node, partition, order, mut columns } = ordered;
        let below = &self.nodes[node];
        let mut fields: Vec<Field> = below.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let Bounds { ranking, skip, end } = bounds;
        let counted = number.is_some();
        if let Some(field) = number {
            let field = field.clone().with_name(Names::of(&below.schema).next(field.name()));
            columns.push((field.name().clone(), column(field.name())));
            fields.push(field);
        }
        let one = ranking == Ranking::RowNumber && end <= skip.saturating_add(1);
        let key = match one {
            true => Some(partition.clone()),
            false => below.key.clone(),
        };
        let operator = Operator::TopN(TopN { partition, order, ranking, skip, end, number: counted });
        let facts = Facts { append_only: false, key, event_time: None };
        let node = self.push(operator, vec![node], fields, facts);
        Pending { node, filter: None, columns, watermark: None, window_end: None }
    }

    /// A node with the columns of `input`, of its order, and whatever else `more` places.
    fn ordered(
        &mut self,
        input: Pending,
        ordering: &Ordering<'_>,
        more: impl FnOnce(&mut Slots, &[(String, Expr)]) -> Result<(), SqlError>,
    ) -> Result<Ordered, SqlError> {
        // Constants would be columns of every row: they are put in again above.
        let mut slots = Slots::default();
        let constant = |e: &Expr| matches!(e, Expr::Literal(..));
        let places: Vec<Option<usize>> =
            input.columns.iter().map(|(name, e)| (!constant(e)).then(|| slots.place(name, e))).collect();
        if slots.is_empty() {
            slots.place("one", &logical::lit(1i32));
        }
        let expression = |slots: &mut Slots, expr: &Expr| -> Result<usize, SqlError> {
            let expr = over(expr, ordering.schema, &input.columns)?;
            Ok(slots.place(&super::text::shown(&expr), &expr))
        };
        let mut partition = Vec::new();
        for expr in ordering.partition {
            let at = expression(&mut slots, expr)?;
            if !partition.contains(&at) {
                partition.push(at);
            }
        }
        let mut order: Vec<OrderColumn> = Vec::new();
        for SortExpr { expr, asc, nulls_first } in ordering.order {
            let over_input = over(expr, ordering.schema, &input.columns)?;
            if constant(&over_input) {
                continue;
            }
            let at = expression(&mut slots, expr)?;
            if !order.iter().any(|known| known.column == at) {
                order.push(OrderColumn { column: at, descending: !asc, nulls_first: *nulls_first });
            }
        }
        more(&mut slots, &input.columns)?;
        let slots = slots.finish();
        let below = &self.nodes[input.node].schema;
        let same = input.filter.is_none()
            && slots.len() == below.fields().len()
            && slots.iter().enumerate().all(|(at, (_, e))| place(e, below) == Some(at));
        let node = if same { input.node } else { self.map(input.node, input.filter, slots)? };
        let schema = &self.nodes[node].schema;
        let columns = places
            .into_iter()
            .zip(input.columns)
            .map(|(place, (name, e))| (name, place.map_or(e, |at| column(schema.field(at).name()))))
            .collect();
        Ok(Ordered { node, partition, order, columns })
    }

    pub(super) fn set_operation(&mut self, set: &SetOperation) -> Result<Pending, SqlError> {
        let counted = set.counted().map_err(from_datafusion)?;
        let pending = self.lower(&counted, false)?;
        if !set.all {
            return Ok(pending);
        }
        let pending = self.settle(pending)?;
        let below = &self.nodes[pending.node];
        let mut fields: Vec<Field> = below.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        let times = fields.len() - 1;
        fields.pop();
        let facts = Facts { append_only: false, key: None, event_time: None };
        let mut columns = pending.columns;
        columns.pop();
        let node = self.push(Operator::Repeat(Repeat { times }), vec![pending.node], fields, facts);
        Ok(Pending { node, filter: None, columns, watermark: None, window_end: None })
    }
}

struct Ordering<'a> {
    partition: &'a [Expr],
    order: &'a [SortExpr],
    schema: &'a DFSchema,
}

struct Ordered {
    node: NodeId,
    partition: Vec<usize>,
    order: Vec<OrderColumn>,
    columns: Vec<(String, Expr)>,
}

#[derive(Clone, Copy)]
struct Bounds {
    ranking: Ranking,
    skip: u64,
    end: u64,
}

/// Numbers from `least` on, and perhaps up to `most`.
struct Bound {
    least: u64,
    most: Option<u64>,
}

/// `number <= 3` and the like, with the column's place.
fn bound(expr: &Expr, schema: &DFSchema) -> Option<(usize, Bound)> {
    let Expr::BinaryExpr(logical::BinaryExpr { left, op, right }) = expr else { return None };
    let (number, op, limit) = match (integer(left), integer(right)) {
        (None, Some(limit)) => (left, *op, limit),
        (Some(limit), None) => (right, op.swap()?, limit),
        _ => return None,
    };
    let Expr::Column(column) = bare(number) else { return None };
    let at = schema.index_of_column(column).ok()?;
    // A number below 1 leaves nothing: as if it were 0.
    let most = |limit: i64| Some(u64::try_from(limit).unwrap_or(0));
    let least = |limit: i64| u64::try_from(limit).unwrap_or(0);
    let bound = match op {
        Op::LtEq => Bound { least: 1, most: most(limit) },
        Op::Lt => Bound { least: 1, most: most(limit.saturating_sub(1)) },
        Op::Eq => Bound { least: least(limit), most: most(limit) },
        Op::GtEq => Bound { least: least(limit), most: None },
        Op::Gt => Bound { least: least(limit.saturating_add(1)), most: None },
        _ => return None,
    };
    Some((at, bound))
}

/// An expression without casts that keep every number.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) if cast.field.data_type().is_numeric() => bare(&cast.expr),
        other => other,
    }
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Int64) {
            // `number <= 2.5` is left to the filter.
            Ok(ScalarValue::Int64(n)) if value.data_type().is_integer() => n,
            _ => None,
        },
        _ => None,
    }
}

/// The node whose only function gives the column `at` of `plan`, followed through projections, filters and aliases.
fn number_of(plan: &LogicalPlan, at: usize) -> Option<Found> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let Expr::Column(number) = bare_output(projection.expr.get(at)?) else { return None };
            let below = projection.input.schema();
            let inner = below.index_of_column(&number).ok()?;
            let mut found = number_of(&projection.input, inner)?;
            let others = projection.expr.iter().enumerate().filter(|(other, _)| *other != at);
            let mut refs = others.flat_map(|(_, e)| e.column_refs());
            found.read |= refs.any(|c| below.index_of_column(c).is_ok_and(|c| c == inner));
            Some(found)
        }
        LogicalPlan::Filter(filter) => {
            let mut found = number_of(&filter.input, at)?;
            let mut refs = filter.predicate.column_refs().into_iter();
            found.read |= refs.any(|c| filter.input.schema().index_of_column(c).is_ok_and(|c| c == at));
            Some(found)
        }
        LogicalPlan::SubqueryAlias(alias) => number_of(&alias.input, at),
        LogicalPlan::Window(window) => {
            let [call] = &window.window_expr[..] else { return None };
            let call = window_call(call).ok()?;
            ranking(&call)?;
            (at == window.input.schema().fields().len()).then_some(Found { window, read: false })
        }
        _ => None,
    }
}

struct Found {
    window: *const logical::Window,
    read: bool,
}

fn bare_output(expr: &Expr) -> Expr {
    bare(&without_alias(expr.clone())).clone()
}

fn window_call(expr: &Expr) -> Result<WindowFunction, SqlError> {
    match without_alias(expr.clone()) {
        Expr::WindowFunction(call) => Ok(*call),
        other => Err(SqlError::internal(format!("{other} is no window function"))),
    }
}

fn ranking(call: &WindowFunction) -> Option<Ranking> {
    match call.fun.name() {
        "row_number" => Some(Ranking::RowNumber),
        "rank" => Some(Ranking::Rank),
        "dense_rank" => Some(Ranking::DenseRank),
        _ => None,
    }
}

fn shown_name(call: &WindowFunction) -> String {
    call.fun.name().to_lowercase()
}

fn over_call(
    call: &WindowFunction,
    field: &Field,
    order_type: Option<&DataType>,
    place: &mut dyn FnMut(&Expr) -> Result<usize, SqlError>,
) -> Result<OverCall, SqlError> {
    let name = call.fun.name().to_lowercase();
    let params = &call.params;
    if params.distinct {
        return Err(unsupported(
            &format!("{name}(DISTINCT ...) OVER"),
            "Aggregate the distinct values in a subquery, and join it.",
        ));
    }
    let constant = |at: usize| match params.args.get(at).map(|e| without_alias(e.clone())) {
        None => Ok(None),
        Some(e) => match integer(bare(&e)) {
            Some(n) => Ok(Some(n)),
            None => Err(unsupported(&format!("{name} with a number that is computed"), "Write a constant.")),
        },
    };
    let positive = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let (mut argument, mut default) = (None, None);
    let aggregate = match &call.fun {
        WindowFunctionDefinition::AggregateUDF(function) => Some(function),
        WindowFunctionDefinition::WindowUDF(_) => None,
    };
    let mut of_frame = None;
    let spans = matches!(name.as_str(), "sum" | "avg") && matches!(field.data_type(), DataType::Interval(_));
    let function = match name.as_str() {
        "row_number" => OverFunction::RowNumber,
        "rank" => OverFunction::Rank,
        "dense_rank" => OverFunction::DenseRank,
        "percent_rank" => OverFunction::PercentRank,
        "cume_dist" => OverFunction::CumeDist,
        "ntile" => OverFunction::Ntile(positive(constant(0)?).ok_or_else(numbering::not_positive)?),
        "lag" | "lead" => {
            argument = params.args.first();
            default = params.args.get(2).filter(|e| !matches!(e, Expr::Literal(v, _) if v.is_null()));
            let rows = constant(1)?.unwrap_or(1);
            OverFunction::Lag(if name == "lag" { rows } else { rows.saturating_neg() })
        }
        "first_value" | "last_value" => {
            argument = params.args.first();
            if name == "first_value" { OverFunction::FirstValue } else { OverFunction::LastValue }
        }
        "nth_value" => {
            argument = params.args.first();
            let n = positive(constant(1)?).ok_or_else(|| {
                unsupported("nth_value with a number below 1", "Rows of a frame are counted from 1.")
            })?;
            OverFunction::NthValue(n)
        }
        "count" | "sum" | "avg" | "min" | "max" if aggregate.is_some() && !spans => {
            argument = params
                .args
                .first()
                .filter(|e| name != "count" || !matches!(e, Expr::Literal(value, _) if !value.is_null()));
            OverFunction::Aggregate(match (name.as_str(), argument) {
                ("count", None) => AggregateFunction::CountStar,
                ("count", _) => AggregateFunction::Count,
                ("sum", _) => AggregateFunction::Sum,
                ("avg", _) => AggregateFunction::Avg,
                ("min", _) => AggregateFunction::Min,
                _ => AggregateFunction::Max,
            })
        }
        other => {
            let Some(function) = aggregate else {
                return Err(unsupported(&format!("{other} OVER"), "Use another function over the window."));
            };
            super::sorted::check(&name, false, &params.args, &[])?;
            let mut arguments = Vec::with_capacity(params.args.len());
            for argument in &params.args {
                arguments.push(match without_alias(argument.clone()) {
                    Expr::Literal(value, _) => Argument::Constant(value),
                    argument => Argument::Column(place(&argument)?),
                });
            }
            of_frame = Some(SortedCall {
                function: Arc::clone(function),
                arguments,
                filter: None,
                order: Vec::new(),
                distinct: false,
                result: SqlType::of(field)?,
            });
            OverFunction::OfFrame
        }
    };
    Ok(OverCall {
        function,
        of_frame,
        argument: argument.map(&mut *place).transpose()?,
        default: default.map(&mut *place).transpose()?,
        filter: params.filter.as_deref().map(&mut *place).transpose()?,
        frame: frame(&params.window_frame, order_type)?,
        result: field.data_type().clone(),
    })
}

fn frame(frame: &WindowFrame, order_type: Option<&DataType>) -> Result<Frame, SqlError> {
    let units = match frame.units {
        WindowFrameUnits::Rows => FrameUnits::Rows,
        WindowFrameUnits::Range => FrameUnits::Range,
        WindowFrameUnits::Groups => FrameUnits::Groups,
    };
    let offset = |value: &ScalarValue| match units {
        FrameUnits::Range => range_offset(value, order_type),
        _ => match value.cast_to(&DataType::UInt64) {
            Ok(ScalarValue::UInt64(Some(n))) => Ok(i128::from(n)),
            _ => Err(unsupported("a frame with this offset", "Write a number of rows.")),
        },
    };
    let bound = |bound: &WindowFrameBound| -> Result<FrameBound, SqlError> {
        Ok(match bound {
            WindowFrameBound::CurrentRow => FrameBound::CurrentRow,
            WindowFrameBound::Preceding(n) if n.is_null() => FrameBound::UnboundedPreceding,
            WindowFrameBound::Following(n) if n.is_null() => FrameBound::UnboundedFollowing,
            WindowFrameBound::Preceding(n) => FrameBound::Preceding(offset(n)?),
            WindowFrameBound::Following(n) => FrameBound::Following(offset(n)?),
        })
    };
    Ok(Frame { units, start: bound(&frame.start_bound)?, end: bound(&frame.end_bound)? })
}

/// An offset in the units of the order column.
fn range_offset(value: &ScalarValue, order_type: Option<&DataType>) -> Result<i128, SqlError> {
    let refused = || {
        unsupported(
            "RANGE with an offset of this type",
            "Order by one integer, numeric, date or timestamp column; offsets of times are without months.",
        )
    };
    let Some(order_type) = order_type else {
        return Err(unsupported(
            "RANGE with an offset over a constant",
            "Order by one integer, numeric, date or timestamp column.",
        ));
    };
    let ordered = matches!(
        order_type,
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(..)
            | DataType::Decimal128(..)
    );
    if !ordered {
        let ty = SqlType::of_arrow(order_type)?;
        let text = format!("RANGE with offset PRECEDING/FOLLOWING is not supported for column type {ty}");
        return Err(SqlError::unsupported(text)
            .hint("Order by one integer, numeric, date or timestamp column, or use ROWS."));
    }
    let offset = match (order_type, value) {
        (DataType::Int16 | DataType::Int32 | DataType::Int64, value) => match value.cast_to(&DataType::Int64)
        {
            Ok(ScalarValue::Int64(Some(n))) => i128::from(n),
            _ => return Err(refused()),
        },
        (DataType::Decimal128(_, _), value) => match value.cast_to(order_type) {
            Ok(ScalarValue::Decimal128(Some(n), _, _)) => n,
            _ => return Err(refused()),
        },
        (DataType::Timestamp(_, _), ScalarValue::IntervalMonthDayNano(Some(i))) if i.months == 0 => {
            i128::from(i.days) * 86_400_000_000 + i128::from(i.nanoseconds / 1_000)
        }
        (DataType::Date32, ScalarValue::IntervalMonthDayNano(Some(i)))
            if i.months == 0 && i.nanoseconds == 0 =>
        {
            i128::from(i.days)
        }
        _ => return Err(refused()),
    };
    if offset < 0 {
        return Err(unsupported("a negative offset of a frame", "Write PRECEDING or FOLLOWING instead."));
    }
    Ok(offset)
}
