//! Text forms of interval: PostgreSQL's style on the way out; on the way in also SQL and ISO 8601.

use arrow::datatypes::IntervalMonthDayNano;
use millpond_types::{SqlError, SqlState};

use super::datetime::{fraction_micros, write_fraction, write_two};
use super::number::{trim, write_integer};
use crate::calendar::{DAY, HOUR, MINUTE, SECOND};

/// Months, days and microseconds: the three parts that PostgreSQL keeps apart, in its units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

impl From<IntervalMonthDayNano> for Parts {
    fn from(value: IntervalMonthDayNano) -> Self {
        Self { months: value.months, days: value.days, micros: value.nanoseconds / 1000 }
    }
}

impl Parts {
    /// # Errors
    /// 22008 if the time of day part has more than 292 years: Arrow counts it in nanoseconds.
    pub(crate) fn arrow(self) -> Result<IntervalMonthDayNano, SqlError> {
        let nanoseconds = self.micros.checked_mul(1000).ok_or_else(out_of_range)?;
        Ok(IntervalMonthDayNano { months: self.months, days: self.days, nanoseconds })
    }
}

pub(crate) fn out_of_range() -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

pub(crate) fn write_interval(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let Parts { months, days, micros } = value.into();
    let from = out.len();
    let mut before = false; // the part before was negative: a positive one then shows its sign
    for (amount, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if amount == 0 {
            continue;
        }
        if out.len() > from {
            out.push(b' ');
        }
        if before && amount > 0 {
            out.push(b'+');
        }
        write_integer(amount, out);
        out.push(b' ');
        out.extend_from_slice(unit.as_bytes());
        if amount != 1 {
            out.push(b's');
        }
        before = amount < 0;
    }
    if micros != 0 || out.len() == from {
        if out.len() > from {
            out.push(b' ');
        }
        if micros < 0 {
            out.push(b'-');
        } else if before {
            out.push(b'+');
        }
        let micros = micros.unsigned_abs() as i64;
        let hours = micros / HOUR;
        if hours < 100 {
            write_two(hours, out)
        } else {
            write_integer(hours, out)
        }
        out.push(b':');
        write_two(micros / MINUTE % 60, out);
        out.push(b':');
        write_two(micros / SECOND % 60, out);
        write_fraction(micros % SECOND, out);
    }
}

pub(crate) fn parse_interval(text: &str) -> Result<IntervalMonthDayNano, SqlError> {
    let trimmed = trim(text);
    let sum = match trimmed.as_bytes() {
        [] => None,
        [b'P' | b'p', rest @ ..] if !rest.is_empty() => iso(&trimmed[1..]),
        _ => verbose(trimmed),
    };
    let sum = sum.ok_or_else(|| {
        SqlError::new(
            SqlState::INVALID_DATETIME_FORMAT,
            format!("invalid input syntax for type interval: \"{text}\""),
        )
    })?;
    let parts = sum.parts().ok_or_else(|| {
        SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("interval field value out of range: \"{text}\""),
        )
    })?;
    parts.arrow()
}

/// A sum of amounts; fractions spill into the next smaller part as in PostgreSQL (a month has 30 days).
#[derive(Default)]
struct Sum {
    months: i128,
    days: i128,
    micros: i128,
}

/// An amount as written: whole part and millionths, both with its sign.
#[derive(Clone, Copy)]
struct Amount {
    whole: i128,
    millionths: i128,
}

impl Amount {
    fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.as_bytes() {
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let empty = whole.is_empty() && fraction.is_empty();
        if empty || whole.len() > 20 || !whole.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? };
        let millionths = i128::from(fraction_micros(fraction)?);
        let sign = if negative { -1 } else { 1 };
        Some(Self { whole: sign * whole, millionths: sign * millionths })
    }
}

impl Sum {
    /// Adds `amount` of `unit`; `None` for a unit that is not known.
    fn add(&mut self, amount: Amount, unit: &str) -> Option<()> {
        const MILLION: i128 = 1_000_000;
        let months = |months: i128| Unit::Months(months);
        let unit = match unit {
            "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" => {
                Unit::Micros(1)
            }
            "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" => {
                Unit::Micros(1000)
            }
            "s" | "sec" | "secs" | "second" | "seconds" => Unit::Micros(SECOND.into()),
            "m" | "min" | "mins" | "minute" | "minutes" => Unit::Micros(MINUTE.into()),
            "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Micros(HOUR.into()),
            "d" | "day" | "days" => Unit::Days(1),
            "w" | "week" | "weeks" => Unit::Days(7),
            "mon" | "mons" | "month" | "months" => months(1),
            "y" | "yr" | "yrs" | "year" | "years" => months(12),
            "dec" | "decs" | "decade" | "decades" => months(120),
            "c" | "cent" | "century" | "centuries" => months(1200),
            "mil" | "mils" | "millennium" | "millennia" => months(12_000),
            _ => return None,
        };
        match unit {
            Unit::Micros(size) => self.micros += amount.whole * size + amount.millionths * size / MILLION,
            Unit::Days(size) => {
                self.days += amount.whole * size;
                self.add_fraction_days(amount.millionths * size);
            }
            // Of a year and more the fraction rounds to months; of a month it becomes days and time.
            Unit::Months(1) => {
                self.months += amount.whole;
                self.add_fraction_days(amount.millionths * 30);
            }
            Unit::Months(size) => {
                let scaled = amount.millionths * size;
                let rounded = (scaled.abs() + MILLION / 2) / MILLION * scaled.signum();
                self.months += amount.whole * size + rounded;
            }
        }
        Some(())
    }

    fn add_fraction_days(&mut self, millionths: i128) {
        self.days += millionths / 1_000_000;
        self.micros += millionths % 1_000_000 * i128::from(DAY) / 1_000_000;
    }

    fn parts(&self) -> Option<Parts> {
        Some(Parts {
            months: i32::try_from(self.months).ok()?,
            days: i32::try_from(self.days).ok()?,
            micros: i64::try_from(self.micros).ok()?,
        })
    }

    fn negate(&mut self) {
        (self.months, self.days, self.micros) = (-self.months, -self.days, -self.micros);
    }
}

enum Unit {
    Months(i128),
    Days(i128),
    Micros(i128),
}

/// `1 year 2 mons -3 days 04:05:06`, `1-2 3 4:05:06`, `5m`, `@ 1 day ago`.
fn verbose(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut pending: Option<Amount> = None;
    let mut ago = false;
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_prefix('@').unwrap_or(&lower);
    let mut seen = false;
    for token in lower.split([' ', '\t', '\n', ',']).filter(|t| !t.is_empty()) {
        if ago {
            return None;
        }
        let first = token.as_bytes()[0];
        if first.is_ascii_alphabetic() {
            if token == "ago" {
                ago = true;
                continue;
            }
            sum.add(pending.take()?, token)?;
            continue;
        }
        seen = true;
        if let Some((_, sign)) = clock(token) {
            // A number before the time counts days: '3 4:05:06'.
            if let Some(days) = pending.take() {
                sum.add(days, "day")?;
            }
            let (micros, _) = clock(token)?;
            sum.micros += micros * sign;
            continue;
        }
        if pending.is_some() {
            return None;
        }
        if let Some((sign, years, months)) = years_months(token) {
            sum.months += sign * (years * 12 + months);
            continue;
        }
        // '5m', '1.5h'
        match token.find(|c: char| c.is_ascii_alphabetic()) {
            Some(at) => sum.add(Amount::parse(&token[..at])?, &token[at..])?,
            None => pending = Some(Amount::parse(token)?),
        }
    }
    if let Some(seconds) = pending {
        sum.add(seconds, "second")?;
    }
    if ago {
        sum.negate();
    }
    seen.then_some(sum)
}

/// `[-]1-2` as sign, years, months.
fn years_months(token: &str) -> Option<(i128, i128, i128)> {
    let (sign, digits) = match token.as_bytes()[0] {
        b'-' => (-1, &token[1..]),
        b'+' => (1, &token[1..]),
        _ => (1, token),
    };
    let (years, months) = digits.split_once('-')?;
    let number = |part: &str| part.parse::<u32>().ok().map(i128::from);
    let months = number(months).filter(|m| *m < 12)?;
    Some((sign, number(years)?, months))
}

/// `[-]hh:mm[:ss[.ffffff]]`, or `mm:ss.fff`, as microseconds without sign, and the sign.
fn clock(token: &str) -> Option<(i128, i128)> {
    let (sign, digits) = match token.as_bytes()[0] {
        b'-' => (-1, &token[1..]),
        b'+' => (1, &token[1..]),
        _ => (1, token),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let parts: Vec<&str> = whole.split(':').collect();
    let (h, m, s) = match parts[..] {
        [m, s] if digits.contains('.') => ("0", m, s),
        [h, m] => (h, m, "0"),
        [h, m, s] => (h, m, s),
        _ => return None,
    };
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<i64>().ok().filter(|_| digits).map(i128::from)
    };
    let (h, m, s) = (number(h)?, number(m).filter(|m| *m < 60)?, number(s).filter(|s| *s <= 60)?);
    let micros = h * i128::from(HOUR) + m * i128::from(MINUTE) + s * i128::from(SECOND);
    Some((micros + i128::from(fraction_micros(fraction)?), sign))
}

/// ISO 8601 after the P: `1Y2M3W4DT5H6M7.5S`.
fn iso(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut time = false;
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(['T', 't']) {
            if time || after.is_empty() {
                return None;
            }
            time = true;
            rest = after;
            continue;
        }
        let at = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let amount = Amount::parse(&rest[..at])?;
        let unit = match (rest.as_bytes()[at].to_ascii_uppercase(), time) {
            (b'Y', false) => "year",
            (b'M', false) => "month",
            (b'W', false) => "week",
            (b'D', false) => "day",
            (b'H', true) => "hour",
            (b'M', true) => "minute",
            (b'S', true) => "second",
            _ => return None,
        };
        sum.add(amount, unit)?;
        rest = &rest[at + 1..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are PostgreSQL 15's.
    #[test]
    fn intervals_read_and_print_as_in_postgresql() {
        for (text, expected) in [
            ("1 year 2 months 3 days 4 hours 5 minutes 6 seconds", "1 year 2 mons 3 days 04:05:06"),
            ("1 day", "1 day"),
            ("-1 day", "-1 days"),
            ("90 minutes", "01:30:00"),
            ("1.5 days", "1 day 12:00:00"),
            ("1.5 months", "1 mon 15 days"),
            ("1.5 years", "1 year 6 mons"),
            ("2 weeks", "14 days"),
            ("1-2", "1 year 2 mons"),
            ("3 4:05:06", "3 days 04:05:06"),
            ("P1Y2M3DT4H5M6.789S", "1 year 2 mons 3 days 04:05:06.789"),
            ("-1 year -2 mons +3 days -04:05:06", "-1 years -2 mons +3 days -04:05:06"),
            ("1 mon -1 day", "1 mon -1 days"),
            ("-1 mon 1 hour", "-1 mons +01:00:00"),
            ("@ 1 day 2 hours ago", "-1 days -02:00:00"),
            ("5", "00:00:05"),
            ("5m", "00:05:00"),
            ("100:00:00", "100:00:00"),
            ("0", "00:00:00"),
            ("500 ms", "00:00:00.5"),
            ("12:30", "12:30:00"),
        ] {
            let mut out = Vec::new();
            write_interval(parse_interval(text).unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
        }
        for text in ["", "x", "1 fortnight", "1 day ago 2 hours", "day", "1 2", "P", "1:60"] {
            assert_eq!(parse_interval(text).unwrap_err().state().as_str(), "22007", "{text}");
        }
        assert_eq!(parse_interval("9999999999 years").unwrap_err().state().as_str(), "22008");
    }
}
