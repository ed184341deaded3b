//! Arithmetic of numeric(p,s): result types by PostgreSQL's rules, kernels over Decimal128 and Decimal256.

use millpond_types::SqlType;

/// Most digits that a numeric can hold.
pub const PRECISION_MAX: u8 = 76;
/// Significant digits that a quotient has at least.
pub const DIVISION_DIGITS: u8 = 16;

/// The type of `a + b` and `a - b`: the larger scale, and a digit for the carry.
pub fn sum_of(a: (u8, i8), b: (u8, i8)) -> SqlType {
    let scale = a.1.max(b.1);
    let whole = (i16::from(a.0) - i16::from(a.1)).max(i16::from(b.0) - i16::from(b.1));
    bounded(whole + 1, scale)
}

fn bounded(whole: i16, scale: i8) -> SqlType {
    let precision = (whole + i16::from(scale)).clamp(1, i16::from(PRECISION_MAX)) as u8;
    SqlType::Numeric(precision, scale)
}
