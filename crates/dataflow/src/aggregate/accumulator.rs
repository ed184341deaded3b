//! Accumulators as fixed words of a slot, updated a batch at a time.
//!
//! Each kernel matches on the type once per batch and then runs over plain slices. `weights` are the row's weights, with 0
//! where the argument is NULL or the FILTER not true; `None` means +1 for each row. All accumulators but monotone extremes
//! are linear in the weights, so the order of insertions and retractions inside an epoch does not matter.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::*;
use millpond_functions::aggregate::moments::{Double, FloatMoments};

use super::key::{BytesColumn, join128, join256, split128, split256};
use super::multiset::Multisets;
use super::order;
use super::slots::{Arena, Slots};

/// What an accumulator keeps, and in how many words.
///
/// How many values were not NULL is a [`Kind::Count`] of its own wherever it can be shared: by all calls over one argument,
/// and with the number of rows where the argument is never NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The weight of the rows.
    Count,
    /// Sum in 128 bits. Exact for integers and decimals of up to 18 digits: 2^60 times 2^64 rows.
    SumNarrow,
    /// Sum in 256 bits. Exact for decimals of up to 38 digits.
    SumWide,
    /// Sums of the upper and of the lower halves in 256 bits each. Exact for decimals of up to 76 digits.
    SumHuge,
    /// Sum and compensation (Neumaier, 1974) of finite values, count of all, then of NaN, +inf and -inf: they are counted so
    /// that a retraction takes them back exactly.
    SumFloat,
    /// Sum in 256 bits, then sums of the upper and of the lower halves of squares. Exact for integers and decimals of up to
    /// 38 digits.
    MomentsExact,
    /// Count, count of values that are not finite, then sum and sum of squares as two doubles each.
    MomentsFloat,
    /// Extreme value in ordered form, with all bits flipped for min: the larger one wins, and 0 loses. Never retracts.
    Monotone {
        width: usize,
        max: bool,
    },
    /// Extreme string, count. Never retracts.
    MonotoneBytes {
        max: bool,
    },
    /// See [`Multisets`]: value, sum of weights, place of the multiset, number of distinct values.
    Retracting {
        width: usize,
        max: bool,
    },
    RetractingBytes {
        max: bool,
    },
}

/// One accumulator, which several calls may share (sum and avg of the same column).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accumulator {
    pub(super) kind: Kind,
    /// The argument's type (Null for a count of rows).
    pub(super) data_type: DataType,
    /// Columns of the operator's projected input.
    pub(super) argument: Option<usize>,
    pub(super) filter: Option<usize>,
    /// The first word within the slot, once it is laid out.
    pub(super) at: usize,
}

impl Kind {
    pub(super) fn words(self) -> usize {
        match self {
            Self::Count => 1,
            Self::SumNarrow => 2,
            Self::SumWide => 4,
            Self::SumHuge => 8,
            Self::SumFloat | Self::MomentsFloat => 6,
            Self::MomentsExact => 12,
            Self::Monotone { width, .. } => width,
            Self::MonotoneBytes { .. } => 3,
            Self::Retracting { width, .. } => width + 3,
            Self::RetractingBytes { .. } => 5,
        }
    }

    /// Which of its words counts the values that are not NULL, if one does.
    pub(super) fn count_word(self) -> Option<usize> {
        match self {
            Self::Count | Self::MomentsFloat => Some(0),
            Self::SumFloat | Self::MonotoneBytes { .. } | Self::RetractingBytes { .. } => Some(2),
            Self::Retracting { width, .. } => Some(width),
            Self::SumNarrow | Self::SumWide | Self::SumHuge | Self::MomentsExact | Self::Monotone { .. } => {
                None
            }
        }
    }

    /// How many of its words are the value, where it is a min or max.
    pub(super) fn value_words(self) -> usize {
        match self {
            Self::Monotone { width, .. } | Self::Retracting { width, .. } => width,
            Self::MonotoneBytes { .. } | Self::RetractingBytes { .. } => 2,
            _ => 0,
        }
    }

    /// What the words of a value are combined with (xor) to give its ordered form.
    pub(super) fn flip(self) -> u64 {
        if let Self::Monotone { max: false, .. } = self { !0 } else { 0 }
    }

    pub(super) fn is_bytes(self) -> bool {
        matches!(self, Self::MonotoneBytes { .. } | Self::RetractingBytes { .. })
    }
}

/// What an accumulator keeps beside its slots.
pub(super) enum Beside {
    Nothing,
    One(Multisets<[u64; 1]>),
    Two(Multisets<[u64; 2]>),
    Four(Multisets<[u64; 4]>),
    Bytes(Multisets<Box<[u8]>>),
}

/// Runs `$body` with `$sets` bound to the multisets of fixed width, or `$bytes` to those of strings.
macro_rules! with_multisets {
    ($beside:expr, $sets:ident => $body:expr, $strings:ident => $bytes:expr) => {
        match $beside {
            Beside::Nothing => {}
            Beside::One($sets) => $body,
            Beside::Two($sets) => $body,
            Beside::Four($sets) => $body,
            Beside::Bytes($strings) => $bytes,
        }
    };
}
pub(super) use with_multisets;

impl Accumulator {
    /// How many rows pass `filter` and have an argument that is not NULL.
    pub(super) fn count(argument: Option<usize>, filter: Option<usize>, field: Option<&Field>) -> Self {
        let data_type = field.map_or(DataType::Null, |field| field.data_type().clone());
        Self { kind: Kind::Count, data_type, argument, filter, at: 0 }
    }

    pub(super) fn beside(&self) -> Beside {
        match self.kind {
            Kind::Retracting { width: 1, max } => Beside::One(Multisets::new(self.at, 1, max)),
            Kind::Retracting { width: 2, max } => Beside::Two(Multisets::new(self.at, 2, max)),
            Kind::Retracting { max, .. } => Beside::Four(Multisets::new(self.at, 4, max)),
            Kind::RetractingBytes { max } => Beside::Bytes(Multisets::new(self.at, 2, max)),
            _ => Beside::Nothing,
        }
    }

    /// Adds the rows of a batch to the slots `ids`.
    pub(super) fn update(
        &self,
        to: &mut Parts,
        ids: &[u32],
        column: Option<&ArrayRef>,
        weights: Option<&[i64]>,
    ) {
        if matches!(self.kind, Kind::Retracting { .. } | Kind::RetractingBytes { .. }) {
            return retracting(to, ids, column.expect("a min or max has an argument"), weights);
        }
        let (slots, arena) = (&mut *to.slots, &mut *to.arena);
        let at = self.at;
        let Some(column) = column else {
            // count(*) with a filter
            return each(slots, ids, at, weights, |words: &mut [u64; 1], _, w| add_count(&mut words[0], w));
        };
        match self.kind {
            Kind::Count => {
                each(slots, ids, at, weights, |words: &mut [u64; 1], _, w| add_count(&mut words[0], w));
            }
            Kind::SumNarrow => self.sum_narrow(slots, ids, column, weights),
            Kind::SumWide => {
                let values = column.as_primitive::<Decimal128Type>().values();
                each(slots, ids, at, weights, |words: &mut [u64; 4], row, w| {
                    let term = i256::from_i128(values[row]);
                    let term = if w == 1 { term } else { term.wrapping_mul(i256::from_i128(w.into())) };
                    add256(words, term);
                });
            }
            Kind::SumHuge => {
                let values = column.as_primitive::<Decimal256Type>().values();
                each(slots, ids, at, weights, |words: &mut [u64; 8], row, w| {
                    let (low, high) = values[row].to_parts();
                    let weight = i256::from_i128(w.into());
                    add256(&mut words[..4], i256::from_parts(low, 0).wrapping_mul(weight));
                    add256(&mut words[4..8], i256::from_i128(high).wrapping_mul(weight));
                });
            }
            Kind::SumFloat => match column.data_type() {
                DataType::Float32 => {
                    let values = column.as_primitive::<Float32Type>().values();
                    each(slots, ids, at, weights, |words: &mut [u64; 6], row, w| {
                        add_float(words, values[row].into(), w);
                    });
                }
                _ => {
                    let values = column.as_primitive::<Float64Type>().values();
                    each(slots, ids, at, weights, |words: &mut [u64; 6], row, w| {
                        add_float(words, values[row], w)
                    });
                }
            },
            Kind::MomentsExact => self.moments_exact(slots, ids, column, weights),
            Kind::MomentsFloat => {
                let values = arrow::compute::cast(column, &DataType::Float64).expect("floats widen");
                let values = values.as_primitive::<Float64Type>().values();
                each(slots, ids, at, weights, |words: &mut [u64; 6], row, w| {
                    if w != 0 {
                        let mut moments = float_moments(words);
                        moments.add(values[row], w);
                        *words = float_words(&moments);
                    }
                });
            }
            Kind::Monotone { width: 1, .. } => self.monotone::<1>(slots, ids, column, weights),
            Kind::Monotone { width: 2, .. } => self.monotone::<2>(slots, ids, column, weights),
            Kind::Monotone { .. } => self.monotone::<4>(slots, ids, column, weights),
            Kind::MonotoneBytes { max } => {
                let column = bytes_of(column);
                each(slots, ids, at, weights, |words: &mut [u64; 3], row, w| {
                    if w != 0 {
                        extreme_bytes(words, column.value(row), w, max, arena);
                    }
                });
            }
            Kind::Retracting { .. } | Kind::RetractingBytes { .. } => unreachable!("done above"),
        }
    }

    fn sum_narrow(&self, slots: &mut Slots, ids: &[u32], column: &ArrayRef, weights: Option<&[i64]>) {
        macro_rules! sum {
            ($type:ty) => {{
                let values = column.as_primitive::<$type>().values();
                each(slots, ids, self.at, weights, |words: &mut [u64; 2], row, w| {
                    let sum = join128(words).wrapping_add(i128::from(values[row]) * i128::from(w));
                    *words = split128(sum);
                });
            }};
        }
        match column.data_type() {
            DataType::Int16 => sum!(Int16Type),
            DataType::Int32 => sum!(Int32Type),
            DataType::Int64 => sum!(Int64Type),
            _ => sum!(Decimal128Type),
        }
    }

    fn moments_exact(&self, slots: &mut Slots, ids: &[u32], column: &ArrayRef, weights: Option<&[i64]>) {
        macro_rules! moments {
            ($type:ty) => {{
                let values = column.as_primitive::<$type>().values();
                each(slots, ids, self.at, weights, |words: &mut [u64; 12], row, w| {
                    if w == 0 {
                        return;
                    }
                    let (value, weight) = (i256::from_i128(values[row].into()), i256::from_i128(w.into()));
                    add256(&mut words[..4], value.wrapping_mul(weight));
                    // Below 10^76, so the product fits.
                    let (low, high) = value.wrapping_mul(value).to_parts();
                    add256(&mut words[4..8], i256::from_parts(low, 0).wrapping_mul(weight));
                    add256(&mut words[8..], i256::from_i128(high).wrapping_mul(weight));
                });
            }};
        }
        match column.data_type() {
            DataType::Int16 => moments!(Int16Type),
            DataType::Int32 => moments!(Int32Type),
            DataType::Int64 => moments!(Int64Type),
            _ => moments!(Decimal128Type),
        }
    }

    fn monotone<const W: usize>(
        &self,
        slots: &mut Slots,
        ids: &[u32],
        column: &ArrayRef,
        weights: Option<&[i64]>,
    ) {
        let values = order::encode::<W>(column);
        let flip = self.kind.flip();
        each(slots, ids, self.at, weights, |words: &mut [u64; W], row, w| {
            let value = values[row].map(|word| word ^ flip);
            if w != 0 && value > *words {
                *words = value;
            }
        });
    }

    /// Adds what `from` (accumulator words of a partial aggregate, `beside_from` and `arena_from` beside them) has gathered.
    pub(super) fn merge(&self, to: &mut Parts, slot: u32, from: &PartsRef, words: &[u64]) {
        let source = &words[self.at..self.at + self.kind.words()];
        let target = to.slots.part_mut(slot, self.at, self.kind.words());
        match self.kind {
            Kind::Count => target[0] = target[0].wrapping_add(source[0]),
            Kind::SumNarrow => {
                target.copy_from_slice(&split128(join128(target).wrapping_add(join128(source))));
            }
            Kind::SumWide => add256(target, join256(source)),
            Kind::SumHuge => {
                add256(&mut target[..4], join256(source));
                add256(&mut target[4..], join256(&source[4..]));
            }
            Kind::SumFloat => {
                let target: &mut [u64; 6] = target.try_into().expect("six words");
                add_finite(target, f64::from_bits(source[0]));
                add_finite(target, f64::from_bits(source[1]));
                for at in 2..6 {
                    target[at] = target[at].wrapping_add(source[at]);
                }
            }
            Kind::MomentsExact => {
                for at in [0, 4, 8] {
                    add256(&mut target[at..at + 4], join256(&source[at..]));
                }
            }
            Kind::MomentsFloat => {
                let words = |words: &[u64]| float_moments(words.try_into().expect("six words"));
                let mut moments = words(target);
                moments.merge(&words(source));
                target.copy_from_slice(&float_words(&moments));
            }
            Kind::Monotone { .. } => {
                if *source > *target {
                    target.copy_from_slice(source);
                }
            }
            Kind::MonotoneBytes { max } => {
                if source[2] != 0 {
                    let mut bytes = Vec::new();
                    from.arena.read([source[0], source[1]], &mut bytes);
                    let target: &mut [u64; 3] = target.try_into().expect("three words");
                    extreme_bytes(target, &bytes, source[2] as i64, max, to.arena);
                }
            }
            Kind::Retracting { .. } | Kind::RetractingBytes { .. } => {
                merge_multiset(to, slot, from, words);
            }
        }
    }
}

/// Where rows and partial aggregates go to: slots, and what one accumulator has beside them.
pub(super) struct Parts<'a> {
    pub(super) slots: &'a mut Slots,
    pub(super) arena: &'a mut Arena,
    pub(super) beside: &'a mut Beside,
    /// Changed values are remembered for the next freeze.
    pub(super) log: bool,
}

/// Where a merge comes from.
pub(super) struct PartsRef<'a> {
    pub(super) arena: &'a Arena,
    pub(super) beside: &'a Beside,
}

fn merge_multiset(to: &mut Parts, slot: u32, from: &PartsRef, words: &[u64]) {
    macro_rules! merge {
        ($to:expr, $from:expr, $to_store:expr, $from_store:expr) => {
            for (value, weight) in $from.values(words, $from_store) {
                $to.add(to.slots, $to_store, slot, value, weight, to.log);
            }
        };
    }
    match (&mut *to.beside, from.beside) {
        (Beside::One(t), Beside::One(f)) => merge!(t, f, &mut (), &()),
        (Beside::Two(t), Beside::Two(f)) => merge!(t, f, &mut (), &()),
        (Beside::Four(t), Beside::Four(f)) => merge!(t, f, &mut (), &()),
        (Beside::Bytes(t), Beside::Bytes(f)) => merge!(t, f, to.arena, from.arena),
        _ => unreachable!("both tables have one layout"),
    }
}

fn retracting(to: &mut Parts, ids: &[u32], column: &ArrayRef, weights: Option<&[i64]>) {
    let (slots, arena, log) = (&mut *to.slots, &mut *to.arena, to.log);
    macro_rules! add {
        ($sets:expr, $width:literal) => {{
            let values = order::encode::<$width>(column);
            for (row, &slot) in ids.iter().enumerate() {
                let weight = weights.map_or(1, |w| w[row]);
                if weight != 0 {
                    $sets.add(slots, &mut (), slot, values[row], weight, log);
                }
            }
        }};
    }
    match to.beside {
        Beside::Nothing => unreachable!("a retracting extreme has multisets"),
        Beside::One(sets) => add!(sets, 1),
        Beside::Two(sets) => add!(sets, 2),
        Beside::Four(sets) => add!(sets, 4),
        Beside::Bytes(sets) => {
            let values = bytes_of(column);
            for (row, &slot) in ids.iter().enumerate() {
                let weight = weights.map_or(1, |w| w[row]);
                if weight != 0 {
                    sets.add(slots, arena, slot, values.value(row).into(), weight, log);
                }
            }
        }
    }
}

/// Calls `add` with the accumulator's words, the row and its weight, for each row.
#[inline(always)]
fn each<const N: usize>(
    slots: &mut Slots,
    ids: &[u32],
    at: usize,
    weights: Option<&[i64]>,
    mut add: impl FnMut(&mut [u64; N], usize, i64),
) {
    match weights {
        None => {
            for (row, &slot) in ids.iter().enumerate() {
                let words = slots.part_mut(slot, at, N);
                add(words.try_into().expect("part_mut gives N words"), row, 1);
            }
        }
        Some(weights) => {
            for (row, (&slot, &weight)) in ids.iter().zip(weights).enumerate() {
                let words = slots.part_mut(slot, at, N);
                add(words.try_into().expect("part_mut gives N words"), row, weight);
            }
        }
    }
}

#[inline]
fn add_count(word: &mut u64, weight: i64) {
    *word = word.wrapping_add(weight as u64);
}

#[inline]
fn add256(words: &mut [u64], term: i256) {
    words.copy_from_slice(&split256(join256(words).wrapping_add(term)));
}

#[inline]
fn add_finite(words: &mut [u64; 6], term: f64) {
    let (sum, compensation) = (f64::from_bits(words[0]), f64::from_bits(words[1]));
    let next = sum + term;
    let lost = if sum.abs() >= term.abs() { (sum - next) + term } else { (term - next) + sum };
    words[0] = next.to_bits();
    words[1] = (compensation + lost).to_bits();
}

#[inline]
fn add_float(words: &mut [u64; 6], value: f64, weight: i64) {
    if weight == 0 {
        return;
    }
    if value.is_finite() {
        add_finite(words, value * weight as f64);
    } else {
        let special = if value.is_nan() { 3 } else { 4 + usize::from(value < 0.0) };
        add_count(&mut words[special], weight);
    }
    add_count(&mut words[2], weight);
}

pub(super) fn float_moments(words: &[u64; 6]) -> FloatMoments {
    let [sum, sum_low, squares, squares_low] = [2, 3, 4, 5].map(|at: usize| f64::from_bits(words[at]));
    FloatMoments {
        count: words[0] as i64,
        not_finite: words[1] as i64,
        sum: Double(sum, sum_low),
        squares: Double(squares, squares_low),
    }
}

pub(super) fn float_words(moments: &FloatMoments) -> [u64; 6] {
    let FloatMoments { count, not_finite, sum, squares } = moments;
    let [a, b, c, d] = [sum.0, sum.1, squares.0, squares.1].map(f64::to_bits);
    [*count as u64, *not_finite as u64, a, b, c, d]
}

fn extreme_bytes(words: &mut [u64; 3], value: &[u8], weight: i64, max: bool, arena: &mut Arena) {
    let better = words[2] == 0 || {
        let old = arena.compare([words[0], words[1]], value);
        if max { old.is_lt() } else { old.is_gt() }
    };
    if better {
        arena.forget([words[0], words[1]]);
        words[..2].copy_from_slice(&arena.store(value));
    }
    add_count(&mut words[2], weight);
}

/// The values of a column of strings, byte strings or uuids.
fn bytes_of(column: &ArrayRef) -> BytesColumn {
    match column.data_type() {
        DataType::FixedSizeBinary(_) => {
            let binary = arrow::compute::cast(column, &DataType::Binary);
            BytesColumn::of(&binary.expect("a fixed-size binary is a binary"))
        }
        _ => BytesColumn::of(column),
    }
}

/// The weights that count for one call: 0 where its argument is NULL or its filter is not true. `None`: all are +1.
pub(super) fn effective_weights(
    rows: usize,
    weights: Option<&[i64]>,
    column: Option<&ArrayRef>,
    filter: Option<&ArrayRef>,
) -> Option<Vec<i64>> {
    let nulls = column.and_then(|c| c.nulls()).filter(|n| n.null_count() > 0);
    if nulls.is_none() && filter.is_none() {
        return None;
    }
    let mut effective = weights.map_or_else(|| vec![1; rows], <[i64]>::to_vec);
    if let Some(nulls) = nulls {
        effective.iter_mut().zip(nulls).for_each(|(w, valid)| *w = if valid { *w } else { 0 });
    }
    if let Some(filter) = filter {
        let filter = filter.as_boolean();
        for (row, weight) in effective.iter_mut().enumerate() {
            *weight = if filter.is_valid(row) && filter.value(row) { *weight } else { 0 };
        }
    }
    Some(effective)
}
