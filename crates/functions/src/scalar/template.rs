//! Templates of to_char for dates, times and intervals (PostgreSQL 15, table 9.27).

use std::fmt::Write;

use millpond_types::SqlError;

use super::datetime::civil;
use crate::calendar::{self, HOUR, MINUTE, SECOND};
use crate::text::datetime::{MONTHS, WEEKDAYS};
use crate::text::interval::Parts;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Pattern { pattern: &'static str, fill: bool, ordinal: Option<bool> },
}

/// Longest first among those that begin alike.
const PATTERNS: [&str; 64] = [
    "HH24", "HH12", "HH", "MI", "SSSSS", "SSSS", "SS", "MS", "US", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6",
    "AM", "PM", "am", "pm", "A.M.", "P.M.", "a.m.", "p.m.", "Y,YYY", "YYYY", "YYY", "YY", "Y", "IYYY", "IYY",
    "IY", "IDDD", "ID", "IW", "I", "BC", "AD", "bc", "ad", "B.C.", "A.D.", "MONTH", "Month", "month", "MON",
    "Mon", "mon", "MM", "DAY", "Day", "day", "DDD", "DD", "DY", "Dy", "dy", "D", "WW", "W", "CC", "J", "Q",
    "RM", "TZH",
];
const REFUSED: [&str; 8] = ["TZM", "OF", "TM", "SP", "rm", "b.c.", "a.d.", "FX"];
const ZONES: [&str; 2] = ["TZ", "tz"];

pub(crate) fn parse(format: &str) -> Result<Vec<Part>, SqlError> {
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = format;
    let mut fill = true;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            parts.push(Part::Text(quoted[..end].to_owned()));
            rest = quoted.get(end + 1..).unwrap_or_default();
        } else if let Some(after) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            (fill, rest) = (false, after);
        } else if let Some(pattern) = find(rest) {
            rest = &rest[pattern.len()..];
            let ordinal = ["TH", "th"].iter().position(|suffix| rest.starts_with(suffix)).map(|i| i == 0);
            if ordinal.is_some() {
                rest = &rest[2..];
            }
            parts.push(Part::Pattern { pattern, fill, ordinal });
            fill = true;
        } else if let Some(refused) = REFUSED.iter().find(|p| rest.starts_with(**p)) {
            return Err(SqlError::unsupported(format!("the to_char pattern \"{refused}\" is not supported")));
        } else {
            match parts.last_mut() {
                Some(Part::Text(text)) => text.push(first),
                _ => parts.push(Part::Text(first.to_string())),
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    Ok(parts)
}

/// The pattern at the start of `rest`: as written, or numeric ones in lower case.
fn find(rest: &str) -> Option<&'static str> {
    let exact = PATTERNS.iter().chain(&ZONES).filter(|p| rest.starts_with(**p)).max_by_key(|p| p.len());
    let upper = || {
        let numeric = |p: &&&str| {
            !p.contains(['.', ',']) && !matches!(p.as_bytes()[0], b'A' | b'P' | b'B') || **p == "Y,YYY"
        };
        PATTERNS
            .iter()
            .filter(numeric)
            .filter(|p| rest.get(..p.len()).is_some_and(|text| text == p.to_ascii_lowercase()))
            .max_by_key(|p| p.len())
    };
    let longest = |a: Option<&'static &'static str>, b: Option<&'static &'static str>| match (a, b) {
        (Some(a), Some(b)) if b.len() > a.len() => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    };
    longest(exact, upper()).copied()
}

/// What a template shows.
pub(crate) struct Shown {
    year: i64,
    month: i64,
    day: i64,
    /// Days since 1970-01-01; none of an interval.
    days: Option<i64>,
    hour: i64,
    micros: i64,
    zoned: bool,
}

impl Shown {
    pub(crate) fn of_instant(micros: i64, zoned: bool) -> Self {
        let (date, days, time) = civil(micros);
        Self {
            year: date.year,
            month: date.month.into(),
            day: date.day.into(),
            days: Some(days),
            hour: time / HOUR,
            micros: time % HOUR,
            zoned,
        }
    }

    pub(crate) fn of_span(span: Parts) -> Self {
        Self {
            year: (span.months / 12).into(),
            month: (span.months % 12).into(),
            day: span.days.into(),
            days: None,
            hour: span.micros / HOUR,
            micros: span.micros % HOUR,
            zoned: false,
        }
    }

    fn number(&self, pattern: &str) -> Option<(i64, usize)> {
        let second = self.micros / SECOND % 60;
        let fraction = self.micros % SECOND;
        let shown_year = if self.year > 0 || self.days.is_none() { self.year } else { 1 - self.year };
        let days = self.days.unwrap_or(0);
        let (iso_year, iso_week) = calendar::iso_week(days);
        let of_year = days - calendar::days_from_civil(self.year, 1, 1) + 1;
        Some(match pattern {
            "HH24" => (self.hour, 2),
            "HH12" | "HH" => ((self.hour + 11).rem_euclid(12) + 1, 2),
            "MI" => (self.micros / MINUTE, 2),
            "SS" => (second, 2),
            "SSSS" | "SSSSS" => ((self.hour * HOUR + self.micros) / SECOND, 1),
            "MS" | "FF3" => (fraction / 1000, 3),
            "US" | "FF6" => (fraction, 6),
            "FF1" => (fraction / 100_000, 1),
            "FF2" => (fraction / 10_000, 2),
            "FF4" => (fraction / 100, 4),
            "FF5" => (fraction / 10, 5),
            "YYYY" => (shown_year, 4),
            "YYY" => (shown_year % 1000, 3),
            "YY" => (shown_year % 100, 2),
            "Y" => (shown_year % 10, 1),
            "IYYY" => (iso_year, 4),
            "IYY" => (iso_year % 1000, 3),
            "IY" => (iso_year % 100, 2),
            "I" => (iso_year % 10, 1),
            "MM" => (self.month, 2),
            "DD" => (self.day, 2),
            "DDD" => (of_year, 3),
            "IDDD" => ((iso_week - 1) * 7 + calendar::iso_weekday(days), 3),
            "D" => (calendar::iso_weekday(days) % 7 + 1, 1),
            "ID" => (calendar::iso_weekday(days), 1),
            "WW" => ((of_year - 1) / 7 + 1, 2),
            "W" => ((self.day - 1) / 7 + 1, 1),
            "IW" => (iso_week, 2),
            "CC" => (if self.year > 0 { (self.year - 1) / 100 + 1 } else { -((-self.year) / 100 + 1) }, 2),
            "J" => (days + 2_440_588, 1),
            "Q" => ((self.month - 1) / 3 + 1, 1),
            _ => return None,
        })
    }
}

pub(crate) fn write(parts: &[Part], value: &Shown, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Pattern { pattern, fill, ordinal } => {
                let from = out.len();
                match value.number(pattern) {
                    Some((number, width)) => write_number(number, if *fill { width } else { 1 }, out),
                    None => write_word(pattern, *fill, value, out),
                }
                if let Some(upper) = ordinal {
                    let suffix = suffix_of(&out[from..]);
                    out.push_str(&if *upper { suffix.to_uppercase() } else { suffix.to_owned() });
                }
            }
        }
    }
}

fn write_number(number: i64, width: usize, out: &mut String) {
    let sign = if number < 0 { "-" } else { "" };
    write!(out, "{sign}{:0width$}", number.unsigned_abs()).expect("a String takes every write");
}

fn suffix_of(digits: &str) -> &'static str {
    let digits = digits.as_bytes();
    let tens = digits.len() > 1 && digits[digits.len() - 2] == b'1';
    match digits.last() {
        Some(b'1') if !tens => "st",
        Some(b'2') if !tens => "nd",
        Some(b'3') if !tens => "rd",
        _ => "th",
    }
}

fn write_word(pattern: &str, fill: bool, value: &Shown, out: &mut String) {
    const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];
    let month = MONTHS[(value.month - 1).clamp(0, 11) as usize];
    let weekday = WEEKDAYS[(calendar::iso_weekday(value.days.unwrap_or(0)) - 1) as usize];
    let afternoon = value.hour.rem_euclid(24) >= 12;
    let (name, width) = match pattern {
        "MONTH" | "Month" | "month" => (month, 9),
        "MON" | "Mon" | "mon" => (&month[..3], 0),
        "DAY" | "Day" | "day" => (weekday, 9),
        "DY" | "Dy" | "dy" => (&weekday[..3], 0),
        "RM" => (ROMAN[(value.month - 1).clamp(0, 11) as usize], 4),
        "AM" | "PM" | "am" | "pm" => (if afternoon { "pm" } else { "am" }, 0),
        "A.M." | "P.M." | "a.m." | "p.m." => (if afternoon { "p.m." } else { "a.m." }, 0),
        "BC" | "AD" | "bc" | "ad" => (if value.year > 0 { "ad" } else { "bc" }, 0),
        "B.C." | "A.D." => (if value.year > 0 { "a.d." } else { "b.c." }, 0),
        "TZ" | "tz" => (if value.zoned { "utc" } else { "" }, 0),
        "TZH" => ("+00", 0),
        "Y,YYY" => {
            write!(out, "{},{:03}", value.year / 1000, value.year % 1000)
                .expect("a String takes every write");
            return;
        }
        _ => return,
    };
    let cased = match pattern.as_bytes() {
        [first, second, ..] if first.is_ascii_uppercase() && second.is_ascii_lowercase() => {
            format!("{}{}", name[..1].to_uppercase(), &name[1..])
        }
        [first, ..] if first.is_ascii_uppercase() => name.to_uppercase(),
        _ => name.to_owned(),
    };
    out.push_str(&cased);
    if fill {
        out.extend(std::iter::repeat_n(' ', usize::saturating_sub(width, cased.len())));
    }
}
