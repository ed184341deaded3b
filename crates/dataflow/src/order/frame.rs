//! Which rows the frame of each row holds.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::*;

use super::spec::{Frame, FrameBound, FrameUnits};

/// Rows of some partitions, one after the other, each in its order.
pub(super) struct Layout {
    /// The rows of each partition (or of the part of it that is looked at).
    pub(super) segments: Vec<Range<usize>>,
    /// For each row the first of its peers, and one past the last.
    pub(super) peers: Vec<(usize, usize)>,
}

/// The values of the only order column, so that they ascend; `None` is NULL.
pub(super) fn order_values(column: &ArrayRef, descending: bool) -> Option<Vec<Option<i128>>> {
    macro_rules! values {
        ($type:ty) => {
            column.as_primitive::<$type>().iter().map(|v| v.map(i128::from)).collect()
        };
    }
    let mut values: Vec<Option<i128>> = match column.data_type() {
        DataType::Int16 => values!(Int16Type),
        DataType::Int32 => values!(Int32Type),
        DataType::Int64 => values!(Int64Type),
        DataType::Date32 => values!(Date32Type),
        DataType::Timestamp(TimeUnit::Microsecond, _) => values!(TimestampMicrosecondType),
        DataType::Decimal128(_, _) => values!(Decimal128Type),
        _ => return None,
    };
    if descending {
        values.iter_mut().flatten().for_each(|value| *value = value.saturating_neg());
    }
    Some(values)
}

impl Frame {
    /// The rows of each row's frame; empty ones begin where they end. `values` are those of [`order_values`], for a RANGE
    /// with offsets.
    pub(super) fn bounds(&self, layout: &Layout, values: Option<&[Option<i128>]>) -> Vec<(usize, usize)> {
        let mut bounds = Vec::with_capacity(layout.peers.len());
        for segment in &layout.segments {
            match self.units {
                FrameUnits::Rows => self.rows(segment, &mut bounds),
                FrameUnits::Groups => self.groups(segment, layout, &mut bounds),
                FrameUnits::Range => self.range(segment, layout, values, &mut bounds),
            }
        }
        bounds
    }

    fn rows(&self, segment: &Range<usize>, bounds: &mut Vec<(usize, usize)>) {
        let back = |row: usize, n: i128| match usize::try_from(n) {
            Ok(n) => row.saturating_sub(n).max(segment.start),
            Err(_) => segment.start,
        };
        let ahead = |row: usize, n: i128| match usize::try_from(n) {
            Ok(n) => row.saturating_add(n).min(segment.end),
            Err(_) => segment.end,
        };
        for row in segment.clone() {
            let start = match self.start {
                FrameBound::UnboundedPreceding => segment.start,
                FrameBound::Preceding(n) => back(row, n),
                FrameBound::CurrentRow => row,
                FrameBound::Following(n) => ahead(row, n),
                FrameBound::UnboundedFollowing => segment.end,
            };
            let end = match self.end {
                FrameBound::UnboundedPreceding => segment.start,
                // The row that is so far back is the last of the frame; there may be none.
                FrameBound::Preceding(n) => match usize::try_from(n) {
                    Ok(n) if n <= row - segment.start => row - n + 1,
                    _ => segment.start,
                },
                FrameBound::CurrentRow => row + 1,
                FrameBound::Following(n) => ahead(row + 1, n),
                FrameBound::UnboundedFollowing => segment.end,
            };
            bounds.push((start, end.max(start)));
        }
    }

    fn groups(&self, segment: &Range<usize>, layout: &Layout, bounds: &mut Vec<(usize, usize)>) {
        let mut firsts: Vec<usize> = Vec::new();
        let mut row = segment.start;
        while row < segment.end {
            firsts.push(row);
            row = layout.peers[row].1;
        }
        let count = firsts.len() as i128;
        let first = |group: i128| match group {
            group if group < 0 => segment.start,
            group if group >= count => segment.end,
            group => firsts[group as usize],
        };
        for group in 0..count {
            let start = match self.start {
                FrameBound::UnboundedPreceding => segment.start,
                FrameBound::Preceding(n) => first(group - n),
                FrameBound::CurrentRow => first(group),
                FrameBound::Following(n) => first(group.saturating_add(n)),
                FrameBound::UnboundedFollowing => segment.end,
            };
            let end = match self.end {
                FrameBound::UnboundedPreceding => segment.start,
                FrameBound::Preceding(n) => first(group - n + 1),
                FrameBound::CurrentRow => first(group + 1),
                FrameBound::Following(n) => first(group.saturating_add(n).saturating_add(1)),
                FrameBound::UnboundedFollowing => segment.end,
            };
            let rows = first(group + 1) - first(group);
            bounds.extend(std::iter::repeat_n((start, end.max(start)), rows));
        }
    }

    fn range(
        &self,
        segment: &Range<usize>,
        layout: &Layout,
        values: Option<&[Option<i128>]>,
        bounds: &mut Vec<(usize, usize)>,
    ) {
        // Values that are not NULL lie together, NULLs before or behind them.
        let known = values.map_or(segment.clone(), |values| {
            let start = segment.clone().find(|row| values[*row].is_some()).unwrap_or(segment.end);
            let end = (start..segment.end).find(|row| values[*row].is_none()).unwrap_or(segment.end);
            start..end
        });
        // Bounds never go back from one row to the next.
        let (mut low, mut high) = (known.start, known.start);
        for row in segment.clone() {
            let value = values.and_then(|values| values[row]);
            let distance = |bound: FrameBound| match bound {
                FrameBound::Preceding(n) => Some(n.saturating_neg()),
                FrameBound::Following(n) => Some(n),
                _ => None,
            };
            let start = match (self.start, distance(self.start), value) {
                (FrameBound::UnboundedPreceding, ..) => segment.start,
                (FrameBound::UnboundedFollowing, ..) => segment.end,
                (_, Some(n), Some(value)) => {
                    let least = Some(value.saturating_add(n));
                    while low < known.end && values.is_some_and(|values| values[low] < least) {
                        low += 1;
                    }
                    low
                }
                // The offset of a NULL is its peers.
                _ => layout.peers[row].0,
            };
            let end = match (self.end, distance(self.end), value) {
                (FrameBound::UnboundedPreceding, ..) => segment.start,
                (FrameBound::UnboundedFollowing, ..) => segment.end,
                (_, Some(n), Some(value)) => {
                    let most = Some(value.saturating_add(n));
                    while high < known.end && values.is_some_and(|values| values[high] <= most) {
                        high += 1;
                    }
                    high
                }
                _ => layout.peers[row].1,
            };
            bounds.push((start, end.max(start)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FrameBound::*;

    fn check(units: FrameUnits, start: FrameBound, end: FrameBound, expected: &[(usize, usize)]) {
        // One partition: NULL, NULL, 1, 2, 2, 5.
        let values = [None, None, Some(1), Some(2), Some(2), Some(5)];
        let peers = vec![(0, 2), (0, 2), (2, 3), (3, 5), (3, 5), (5, 6)];
        let layout = Layout { segments: std::iter::once(0..6).collect(), peers };
        let bounds = Frame { units, start, end }.bounds(&layout, Some(&values));
        assert_eq!(bounds, expected, "{units:?} {start:?} {end:?}");
    }

    #[test]
    fn frames_are_those_of_postgresql() {
        let rows = FrameUnits::Rows;
        check(rows, Preceding(1), CurrentRow, &[(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)]);
        check(rows, Preceding(2), Preceding(1), &[(0, 0), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5)]);
        check(rows, Following(1), Following(2), &[(1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (6, 6)]);
        let groups = FrameUnits::Groups;
        check(groups, Preceding(1), CurrentRow, &[(0, 2), (0, 2), (0, 3), (2, 5), (2, 5), (3, 6)]);
        check(groups, Following(1), Following(1), &[(2, 3), (2, 3), (3, 5), (5, 6), (5, 6), (6, 6)]);
        let range = FrameUnits::Range;
        check(range, UnboundedPreceding, CurrentRow, &[(0, 2), (0, 2), (0, 3), (0, 5), (0, 5), (0, 6)]);
        check(range, Preceding(1), Following(0), &[(0, 2), (0, 2), (2, 3), (2, 5), (2, 5), (5, 6)]);
        check(range, Preceding(3), Preceding(1), &[(0, 2), (0, 2), (2, 2), (2, 3), (2, 3), (3, 5)]);
        check(range, CurrentRow, Following(3), &[(0, 2), (0, 2), (2, 5), (3, 6), (3, 6), (5, 6)]);
    }
}
