//! Text forms of numbers.

use std::io::Write;

use arrow::datatypes::i256;
use millpond_types::{SqlError, SqlState};

/// PostgreSQL's error for a text that `type_name` cannot read.
pub(crate) fn invalid(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

/// What PostgreSQL's isspace() skips around a value.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

pub(crate) fn write_integer(value: impl Into<i128>, out: &mut Vec<u8>) {
    let value: i128 = value.into();
    if value < 0 {
        out.push(b'-');
    }
    write_digits(value.unsigned_abs(), out);
}

fn write_digits(mut value: u128, out: &mut Vec<u8>) {
    let mut digits = [0u8; 40];
    let mut at = digits.len();
    while value > u128::from(u64::MAX) {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    let mut small = value as u64;
    loop {
        at -= 1;
        digits[at] = b'0' + (small % 10) as u8;
        small /= 10;
        if small == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A signed integer type that [`parse_integer`] reads.
pub(crate) trait Integer: TryFrom<i128> {
    const NAME: &'static str;
}
impl Integer for i16 {
    const NAME: &'static str = "smallint";
}
impl Integer for i32 {
    const NAME: &'static str = "integer";
}
impl Integer for i64 {
    const NAME: &'static str = "bigint";
}

pub(crate) fn parse_integer<T: Integer>(text: &str) -> Result<T, SqlError> {
    let trimmed = trim(text);
    let (negative, digits) = match trimmed.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid(T::NAME, text));
    }
    let mut value: i128 = 0;
    for digit in digits {
        value = (value * 10 + i128::from(digit - b'0')).min(1 << 100);
    }
    T::try_from(if negative { -value } else { value }).map_err(|_| {
        let message = format!("value \"{text}\" is out of range for type {}", T::NAME);
        SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
    })
}

/// PostgreSQL's shortest exact form: fixed notation for exponents -4..15.
pub(crate) fn write_float8(value: f64, out: &mut Vec<u8>) {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        return write_digits(value.abs() as u128, out);
    }
    write_float(
        &Shortest::of(|buffer| write!(buffer, "{value:e}")),
        value.is_nan(),
        value.is_infinite(),
        15,
        out,
    );
}

/// As [`write_float8`]; fixed notation for exponents -4..6.
pub(crate) fn write_float4(value: f32, out: &mut Vec<u8>) {
    write_float(
        &Shortest::of(|buffer| write!(buffer, "{value:e}")),
        value.is_nan(),
        value.is_infinite(),
        6,
        out,
    );
}

/// Rust's shortest round-trip form `-d.ddde-x`, on the stack.
struct Shortest {
    bytes: [u8; 40],
    len: usize,
}

impl Shortest {
    fn of(write: impl Fn(&mut &mut [u8]) -> std::io::Result<()>) -> Self {
        let mut bytes = [0u8; 40];
        let mut rest = &mut bytes[..];
        write(&mut rest).expect("the shortest form of a float has under 40 characters");
        let len = 40 - rest.len();
        Self { bytes, len }
    }

    /// Sign, digits, exponent.
    fn parts(&self) -> (bool, Vec<u8>, i32) {
        let text = &self.bytes[..self.len];
        let negative = text[0] == b'-';
        let at = text.iter().position(|b| *b == b'e').unwrap_or(text.len());
        let exponent = std::str::from_utf8(&text[at + 1..]).ok().and_then(|e| e.parse().ok()).unwrap_or(0);
        let digits = text[usize::from(negative)..at].iter().copied().filter(u8::is_ascii_digit).collect();
        (negative, digits, exponent)
    }
}

fn write_float(shortest: &Shortest, nan: bool, infinite: bool, fixed_below: i32, out: &mut Vec<u8>) {
    if nan {
        return out.extend_from_slice(b"NaN");
    }
    let negative = shortest.bytes[0] == b'-';
    if negative {
        out.push(b'-');
    }
    if infinite {
        return out.extend_from_slice(b"Infinity");
    }
    let (_, digits, exponent) = shortest.parts();
    if !(-4..fixed_below).contains(&exponent) {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", exponent.abs()).expect("a Vec takes every write");
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        out.extend_from_slice(&digits);
    } else {
        let whole = exponent as usize + 1;
        for place in 0..whole.max(digits.len()) {
            if place == whole {
                out.push(b'.');
            }
            out.push(digits.get(place).copied().unwrap_or(b'0'));
        }
    }
}

pub(crate) fn parse_float8(text: &str) -> Result<f64, SqlError> {
    let value: f64 = float_syntax(text, "double precision")?;
    if out_of_range(value.is_infinite(), value == 0.0, text) {
        return Err(float_range(text, "double precision"));
    }
    Ok(value)
}

pub(crate) fn parse_float4(text: &str) -> Result<f32, SqlError> {
    let value: f32 = float_syntax(text, "real")?;
    if out_of_range(value.is_infinite(), value == 0.0, text) {
        return Err(float_range(text, "real"));
    }
    Ok(value)
}

fn float_syntax<T: std::str::FromStr>(text: &str, type_name: &str) -> Result<T, SqlError> {
    trim(text).parse().map_err(|_| invalid(type_name, text))
}

/// Whether a finite, non-zero text became infinite or zero.
fn out_of_range(infinite: bool, zero: bool, text: &str) -> bool {
    (infinite && !text.bytes().any(|b| matches!(b, b'n' | b'N')))
        || (zero && text.bytes().take_while(|b| !matches!(b, b'e' | b'E')).any(|b| matches!(b, b'1'..=b'9')))
}

fn float_range(text: &str, type_name: &str) -> SqlError {
    let message = format!("\"{}\" is out of range for type {type_name}", trim(text));
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
}

/// A decimal: `value` / 10^`scale`.
pub(crate) fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let from = out.len();
    write_digits(value.unsigned_abs(), out);
    place_point(from, scale, out);
}

/// As [`write_decimal`], for 256 bits.
pub(crate) fn write_decimal256(value: i256, scale: i8, out: &mut Vec<u8>) {
    if value < i256::ZERO {
        out.push(b'-');
    }
    let from = out.len();
    match value.to_i128() {
        Some(small) => write_digits(small.unsigned_abs(), out),
        None => write!(out, "{}", value.wrapping_abs()).expect("a Vec takes every write"),
    }
    place_point(from, scale, out);
}

/// Puts the decimal point into the digits from `from` on.
fn place_point(from: usize, scale: i8, out: &mut Vec<u8>) {
    let Ok(scale) = usize::try_from(scale) else {
        return out.extend(std::iter::repeat_n(b'0', scale.unsigned_abs().into()));
    };
    if scale == 0 {
        return;
    }
    let digits = out.len() - from;
    if digits <= scale {
        out.splice(from..from, std::iter::repeat_n(b'0', scale + 1 - digits));
    }
    let point = out.len() - scale;
    out.insert(point, b'.');
}

/// PostgreSQL's error for a value that numeric(p,s) cannot hold.
pub(crate) fn field_overflow(precision: u8, scale: i8) -> SqlError {
    let whole = i16::from(precision) - i16::from(scale);
    let limit = if whole == 0 { "1".to_owned() } else { format!("10^{whole}") };
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than {limit}."
    ))
}

/// Reads a numeric, rounded half away from zero to `scale`.
pub(crate) fn parse_decimal256(text: &str, precision: u8, scale: i8) -> Result<i256, SqlError> {
    let number = Digits::read(text)?;
    let mut value = i256::ZERO;
    let ten = i256::from_i128(10);
    let limit = power_of_ten(precision);
    // Places from the left, up to the last that is kept; `weight` is the power of ten of a digit.
    let last = -i64::from(scale);
    let mut weight = number.top;
    let mut digits = number.digits.iter();
    while weight >= last {
        let digit = digits.next().map_or(0, |d| d - b'0');
        value = value.wrapping_mul(ten).wrapping_add(i256::from_i128(digit.into()));
        if value >= limit {
            return Err(field_overflow(precision, scale));
        }
        if value == i256::ZERO && digits.len() == 0 {
            break;
        }
        weight -= 1;
    }
    let rounds_up = weight == last - 1 && digits.next().is_some_and(|d| *d >= b'5');
    if rounds_up {
        value = value.wrapping_add(i256::ONE);
        if value >= limit {
            return Err(field_overflow(precision, scale));
        }
    }
    Ok(if number.negative { value.wrapping_neg() } else { value })
}

/// As [`parse_decimal256`], for at most 38 digits.
pub(crate) fn parse_decimal128(text: &str, precision: u8, scale: i8) -> Result<i128, SqlError> {
    if let Some(value) = parse_plain_decimal(text, precision, scale) {
        return Ok(value);
    }
    let value = parse_decimal256(text, precision, scale)?;
    value.to_i128().ok_or_else(|| field_overflow(precision, scale))
}

/// The common case: `-123.45` of at most 18 digits with no more places than `scale`.
fn parse_plain_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (negative, body) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if body.len() > 19 {
        return None;
    }
    let (mut value, mut places, mut seen) = (0i64, None, false);
    for byte in body {
        match byte {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(i64::from(byte - b'0'))?;
                places = places.map(|p: i8| p + 1);
                seen = true;
            }
            b'.' if places.is_none() => places = Some(0),
            _ => return None,
        }
    }
    let missing = scale - places.unwrap_or(0);
    if !seen || !(0..=19).contains(&missing) {
        return None;
    }
    let value = i128::from(value) * 10i128.pow(missing as u32);
    (value < 10i128.pow(precision.min(38).into())).then_some(if negative { -value } else { value })
}

pub(crate) fn power_of_ten(exponent: u8) -> i256 {
    i256::from_i128(10).wrapping_pow(exponent.into())
}

/// The significant digits of a number as written, without leading zeros.
pub(crate) struct Digits {
    negative: bool,
    pub(crate) digits: Vec<u8>,
    /// The power of ten of the first digit.
    pub(crate) top: i64,
}

impl Digits {
    pub(crate) fn read(text: &str) -> Result<Self, SqlError> {
        let trimmed = trim(text);
        let bytes = trimmed.as_bytes();
        let (negative, body) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let end = body.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(body.len());
        let (mantissa, exponent) = body.split_at(end);
        let exponent: i64 = match exponent {
            [] => 0,
            [_, rest @ ..] => {
                let unsigned = rest.strip_prefix(b"-").or(rest.strip_prefix(b"+")).unwrap_or(rest);
                if unsigned.is_empty() || !unsigned.iter().all(u8::is_ascii_digit) {
                    return Err(invalid_numeric(text));
                }
                std::str::from_utf8(rest)
                    .ok()
                    .and_then(|e| e.parse().ok())
                    .ok_or_else(|| invalid_numeric(text))?
            }
        };
        let mut parts = mantissa.splitn(2, |b| *b == b'.');
        let whole = parts.next().unwrap_or_default();
        let fraction = parts.next().unwrap_or_default();
        if whole.len() + fraction.len() == 0 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
            return Err(invalid_numeric(text));
        }
        let zeros = whole.iter().chain(fraction).take_while(|b| **b == b'0').count();
        let digits: Vec<u8> = whole.iter().chain(fraction).skip(zeros).copied().collect();
        let top = (whole.len() as i64 - 1 - zeros as i64).saturating_add(exponent);
        // A zero has no first digit; any power will do, and exponents beyond reason end as overflow or as zero.
        let top = if digits.is_empty() { 0 } else { top.clamp(-100_000, 100_000) };
        Ok(Self { negative, digits, top })
    }
}

fn invalid_numeric(text: &str) -> SqlError {
    let special = ["nan", "infinity", "inf", "-infinity", "+infinity", "-inf", "+inf"];
    if special.contains(&trim(text).to_ascii_lowercase().as_str()) {
        return SqlError::unsupported(format!("a numeric cannot hold \"{}\"", trim(text)))
            .hint("Use double precision, which has NaN and infinities.");
    }
    invalid("numeric", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_print_as_in_postgresql() {
        let cases: [(f64, &str); 16] = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (100000000000000.0, "100000000000000"),
            (1e15, "1e+15"),
            (1e20, "1e+20"),
            (1.2345678901234568e17, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e-300, "1e-300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (123456.789, "123456.789"),
            (-12345678.125, "-12345678.125"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(|out| write_float8(value, out)), expected);
        }
        let cases: [(f32, &str); 6] = [
            (1e6, "1e+06"),
            (123456.0, "123456"),
            (0.1, "0.1"),
            (3.4028235e38, "3.4028235e+38"),
            (0.0, "0"),
            (-2.5, "-2.5"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(|out| write_float4(value, out)), expected);
        }
    }

    #[test]
    fn decimals_read_and_print() {
        for (input, p, s, expected) in [
            ("1.005", 5, 2, "1.01"),
            ("-1.005", 5, 2, "-1.01"),
            ("999.994", 5, 2, "999.99"),
            (" 12 ", 5, 2, "12.00"),
            ("1e2", 5, 2, "100.00"),
            ("1.5e-1", 5, 2, "0.15"),
            (".5", 5, 2, "0.50"),
            ("5.", 5, 2, "5.00"),
            ("0.004", 5, 2, "0.00"),
            ("0.005", 5, 2, "0.01"),
            ("0.0049", 5, 2, "0.00"),
            ("0e9999999", 5, 2, "0.00"),
            ("1e-9999999", 5, 2, "0.00"),
            ("00000000000000000000000000001.5", 5, 2, "1.50"),
            ("12345678901234567890.123456789012345678", 38, 18, "12345678901234567890.123456789012345678"),
        ] {
            let value = parse_decimal128(input, p, s).unwrap();
            assert_eq!(text(|out| write_decimal(value, s, out)), expected, "{input}");
            let value = parse_decimal256(input, p, s).unwrap();
            assert_eq!(text(|out| write_decimal256(value, s, out)), expected, "{input}");
        }
        for (input, state) in [
            ("999.995", "22003"),
            ("1e4", "22003"),
            ("1e99999999999999999999", "22P02"),
            ("", "22P02"),
            (".", "22P02"),
            ("1.2.3", "22P02"),
            ("1e", "22P02"),
            ("NaN", "0A000"),
            ("x", "22P02"),
        ] {
            assert_eq!(parse_decimal128(input, 5, 2).unwrap_err().state().as_str(), state, "{input}");
        }
    }

    #[test]
    fn integers_read_as_in_postgresql() {
        assert_eq!(parse_integer::<i32>(" -42 "), Ok(-42));
        assert_eq!(parse_integer::<i64>("-9223372036854775808"), Ok(i64::MIN));
        let error = |text| parse_integer::<i32>(text).unwrap_err();
        assert_eq!(error("x").message(), "invalid input syntax for type integer: \"x\"");
        assert_eq!(error("2147483648").message(), "value \"2147483648\" is out of range for type integer");
        assert_eq!(error("1.5").state(), SqlState::INVALID_TEXT_REPRESENTATION);
        assert_eq!(error("").state(), SqlState::INVALID_TEXT_REPRESENTATION);
        assert_eq!(error(&"9".repeat(500)).state(), SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    }

    #[test]
    fn floats_out_of_range_are_refused() {
        assert_eq!(
            parse_float8("1e400").unwrap_err().message(),
            "\"1e400\" is out of range for type double precision"
        );
        assert_eq!(parse_float8("1e-400").unwrap_err().state(), SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
        assert_eq!(parse_float8("-Infinity"), Ok(f64::NEG_INFINITY));
        assert_eq!(parse_float8("0e5"), Ok(0.0));
        assert_eq!(parse_float4("1e40").unwrap_err().state(), SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    }
}
