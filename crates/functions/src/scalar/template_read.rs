//! Templates of dates and times the other way: to_date and to_timestamp (PostgreSQL 15, table 9.27).

use millpond_types::{SqlError, SqlState};

use super::template::Part;
use crate::calendar::{self, DAY, HOUR, MINUTE, SECOND, days_from_civil, days_in_month};
use crate::text::datetime::{MONTHS, WEEKDAYS};

/// What a text says about a time.
#[derive(Default)]
struct Read {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: i64,
    /// AM is false, PM is true.
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    micros: i64,
    before_christ: bool,
}

/// The time that `text` says by the template, in microseconds since 1970-01-01.
///
/// # Errors
/// 22007 where the text does not fit the template, 22008 for what no calendar has, 0A000 for patterns that are not read.
pub(super) fn read(parts: &[Part], text: &str) -> Result<i64, SqlError> {
    let mut read = Read::default();
    let mut rest = text.trim_start();
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Text(template) => {
                for c in template.chars() {
                    rest = match c {
                        // A separator stands for any other, and for none.
                        c if !c.is_alphanumeric() => {
                            rest.strip_prefix(|c: char| !c.is_alphanumeric()).unwrap_or(rest)
                        }
                        // A letter for any character.
                        _ => rest.strip_prefix(|_: char| true).unwrap_or(rest),
                    };
                }
            }
            Part::Pattern { pattern, .. } => {
                rest = rest.trim_start();
                // What follows tells where a number ends; without that, its width does.
                let glued = matches!(parts.get(at + 1), Some(Part::Pattern { .. }));
                rest = field(pattern, rest, glued, &mut read)?;
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    resolve(&read).ok_or_else(|| {
        let message = format!("date/time field value out of range: \"{text}\"");
        SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, message)
    })
}

fn field<'a>(pattern: &str, text: &'a str, glued: bool, read: &mut Read) -> Result<&'a str, SqlError> {
    let number = |width: usize| number(pattern, text, if glued { width } else { usize::MAX });
    let one_of = |names: &[&str], letters: usize| {
        names.iter().position(|name| {
            let name = if letters > 0 { &name[..letters] } else { name };
            text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        })
    };
    let mut rest = text;
    let mut take = |(value, after): (i64, &'a str)| {
        rest = after;
        value
    };
    match pattern {
        "YYYY" => read.year = Some(take(number(4)?)),
        "YYY" | "YY" | "Y" => {
            let (value, after) = number(pattern.len())?;
            let digits = text.len() - after.len();
            // The year that is nearest to 2020.
            let year = match digits {
                0..=2 if value < 70 => value + 2000,
                0..=2 => value + 1900,
                3 if value < 520 => value + 2000,
                3 => value + 1000,
                _ => value,
            };
            read.year = Some(take((year, after)));
        }
        "MM" => read.month = Some(take(number(2)?)),
        "DD" => read.day = Some(take(number(2)?)),
        "DDD" => read.day_of_year = Some(take(number(3)?)),
        "J" => read.julian = Some(take(number(usize::MAX)?)),
        "HH24" | "HH12" | "HH" => {
            read.hour = take(number(2)?);
            if pattern != "HH24" && read.afternoon.is_none() && !(1..=12).contains(&read.hour) {
                let text = format!("hour \"{}\" is invalid for the 12-hour clock", read.hour);
                return Err(SqlError::new(SqlState::INVALID_DATETIME_FORMAT, text)
                    .hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
        }
        "MI" => read.minute = take(number(2)?),
        "SS" => read.second = take(number(2)?),
        "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
            let width = match pattern {
                "MS" => 3,
                "US" => 6,
                _ => usize::from(pattern.as_bytes()[2] - b'0'),
            };
            let (_, after) = number(width)?;
            let digits = &text[..text.len() - after.len()];
            let digits = &digits[..digits.len().min(6)];
            let scaled = format!("{digits:0<6}");
            read.micros = take((scaled.parse().unwrap_or(0), after));
        }
        "AM" | "PM" | "am" | "pm" | "A.M." | "P.M." | "a.m." | "p.m." => {
            let found = one_of(&["am", "pm", "a.m.", "p.m."], 0).ok_or_else(|| invalid(pattern, text))?;
            read.afternoon = Some(found % 2 == 1);
            rest = &text[if found < 2 { 2 } else { 4 }..];
        }
        "BC" | "AD" | "bc" | "ad" | "B.C." | "A.D." => {
            let found = one_of(&["ad", "bc", "a.d.", "b.c."], 0).ok_or_else(|| invalid(pattern, text))?;
            read.before_christ = found % 2 == 1;
            rest = &text[if found < 2 { 2 } else { 4 }..];
        }
        "MONTH" | "Month" | "month" => {
            let found = one_of(&MONTHS, 0).ok_or_else(|| invalid(pattern, text))?;
            read.month = Some(found as i64 + 1);
            rest = &text[MONTHS[found].len()..];
        }
        "MON" | "Mon" | "mon" => {
            let found = one_of(&MONTHS, 3).ok_or_else(|| invalid(pattern, text))?;
            read.month = Some(found as i64 + 1);
            rest = &text[3..];
        }
        // The day of the week follows from the date.
        "DAY" | "Day" | "day" => {
            let found = one_of(&WEEKDAYS, 0).ok_or_else(|| invalid(pattern, text))?;
            rest = &text[WEEKDAYS[found].len()..];
        }
        "DY" | "Dy" | "dy" => {
            one_of(&WEEKDAYS, 3).ok_or_else(|| invalid(pattern, text))?;
            rest = &text[3..];
        }
        other => {
            let text = format!("the pattern \"{other}\" is not supported for input");
            return Err(SqlError::unsupported(text)
                .hint("Use YYYY, MM, DD, HH24, MI, SS, MS, US and names of months."));
        }
    }
    Ok(rest)
}

fn invalid(pattern: &str, text: &str) -> SqlError {
    let shown: String = text.chars().take(pattern.len()).collect();
    SqlError::new(SqlState::INVALID_DATETIME_FORMAT, format!("invalid value \"{shown}\" for \"{pattern}\""))
}

/// A whole number of at most so many digits, and what is behind it.
fn number<'a>(pattern: &str, text: &'a str, width: usize) -> Result<(i64, &'a str), SqlError> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let count = digits.bytes().take_while(u8::is_ascii_digit).take(width).count();
    if count == 0 {
        return Err(invalid(pattern, text).detail("Value must be an integer."));
    }
    let value: i64 = digits[..count].parse().map_err(|_| {
        let text = format!("value for \"{pattern}\" in source string is out of range");
        SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, text)
    })?;
    Ok((sign * value, &digits[count..]))
}

fn resolve(read: &Read) -> Option<i64> {
    let year = match read.year.unwrap_or(1) {
        // There is no year 0: it is 1 BC, and so are negative ones.
        year if read.before_christ => 1 - year.abs(),
        0 => 0,
        year if year < 0 => year + 1,
        year => year,
    };
    let days = match (read.julian, read.day_of_year) {
        (Some(julian), _) => julian - 2_440_588,
        (None, Some(day)) if read.month.is_none() => {
            let days = if calendar::is_leap(year) { 366 } else { 365 };
            (1..=days).contains(&day).then(|| days_from_civil(year, 1, 1) + day - 1)?
        }
        _ => {
            let (month, day) = (read.month.unwrap_or(1), read.day.unwrap_or(1));
            let month = u32::try_from(month).ok().filter(|m| (1..=12).contains(m))?;
            let fits = (1..=i64::from(days_in_month(year, month))).contains(&day) && year.abs() < 1_000_000;
            fits.then(|| days_from_civil(year, month, day as u32))?
        }
    };
    let hour = match (read.afternoon, read.hour) {
        (Some(afternoon), hour) if (1..=12).contains(&hour) => hour % 12 + if afternoon { 12 } else { 0 },
        (_, hour) => hour,
    };
    let fits = (0..24).contains(&hour) && (0..60).contains(&read.minute) && (0..60).contains(&read.second);
    let time = fits.then(|| hour * HOUR + read.minute * MINUTE + read.second * SECOND + read.micros)?;
    days.checked_mul(DAY)?.checked_add(time).filter(|micros| crate::text::datetime::in_range(*micros))
}
