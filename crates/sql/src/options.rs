//! `WITH (name = value, …)`: a bag of options, taken out one by one by whoever knows them, so that none is ignored.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use millpond_types::{SqlError, SqlState};

use crate::name::nearest;

/// Options as written. Take what is known, then [`Options::finish`] refuses what is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    entries: Vec<OptionEntry>,
    /// Names that were asked for, for the hint.
    known: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionEntry {
    /// Lower case unless quoted; dots kept: `properties.bootstrap.server`.
    pub name: String,
    pub value: OptionValue,
    pub position: usize,
    pub value_position: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// `'text'`
    String(String),
    /// `12`, `-1.5`
    Number(String),
    Boolean(bool),
    /// A bare word, folded.
    Word(String),
    /// The name alone, which for a boolean means true.
    None,
}

impl OptionValue {
    /// The value as text, however it was written; a bare name is `true`.
    pub fn as_text(&self) -> &str {
        match self {
            Self::String(s) | Self::Number(s) | Self::Word(s) => s,
            Self::Boolean(true) | Self::None => "true",
            Self::Boolean(false) => "false",
        }
    }
}

impl Options {
    pub fn new(entries: Vec<OptionEntry>) -> Self {
        Self { entries, known: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What has not been taken, in the order written.
    pub fn entries(&self) -> &[OptionEntry] {
        &self.entries
    }

    /// The options as the catalog keeps them: name to text.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.entries.iter().map(|e| (e.name.clone(), e.value.as_text().to_owned())).collect()
    }

    /// Takes an option out, whatever its value is.
    pub fn take(&mut self, name: &str) -> Option<OptionEntry> {
        self.known.push(name.to_owned());
        let at = self.entries.iter().position(|e| e.name == name)?;
        Some(self.entries.remove(at))
    }

    /// # Errors
    /// 22023 for a value that is not a text (a number is not a text).
    pub fn take_string(&mut self, name: &str) -> Result<Option<String>, SqlError> {
        self.take_as(name, "a text in quotes", |value| match value {
            OptionValue::String(text) | OptionValue::Word(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// # Errors
    /// 22023 for a value that is not `true`, `false`, `on`, `off`, `yes`, `no`, 1 or 0.
    pub fn take_bool(&mut self, name: &str) -> Result<Option<bool>, SqlError> {
        self.take_as(name, "a Boolean value", |value| match value.as_text().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Some(true),
            "false" | "off" | "no" | "0" => Some(false),
            _ => None,
        })
    }

    /// # Errors
    /// 22023 for a value that is not a whole number, or outside of `range`.
    pub fn take_integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, SqlError> {
        let Some(entry) = self.take(name) else { return Ok(None) };
        let number =
            Some(&entry.value).filter(|v| **v != OptionValue::None).and_then(|v| v.as_text().parse().ok());
        let Some(number) = number else { return Err(entry.invalid("a whole number")) };
        if range.contains(&number) {
            return Ok(Some(number));
        }
        let (low, high) = (range.start(), range.end());
        let message = format!("{number} is outside the valid range for option \"{name}\" ({low} .. {high})");
        Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message).at(entry.value_position))
    }

    /// # Errors
    /// 22023 for a value that is not a finite number.
    pub fn take_float(&mut self, name: &str) -> Result<Option<f64>, SqlError> {
        self.take_as(name, "a number", |value| match value {
            OptionValue::String(text) | OptionValue::Number(text) => {
                text.parse().ok().filter(|n: &f64| n.is_finite())
            }
            _ => None,
        })
    }

    /// A length of time in microseconds: `'7 days'`, `'1 hour 30 minutes'`, `'30s'`, `'500ms'`.
    ///
    /// # Errors
    /// 22023 for anything else, months and years among it: they have no fixed length.
    pub fn take_duration(&mut self, name: &str) -> Result<Option<i64>, SqlError> {
        self.take_as(name, "a length of time such as '7 days', '30s' or '500 ms'", |value| match value {
            OptionValue::String(text) => parse_duration(text),
            _ => None,
        })
    }

    /// A size in bytes: `'10 GB'`, `'64kB'`, `1048576`; units are powers of 1024, as in PostgreSQL.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn take_bytes(&mut self, name: &str) -> Result<Option<u64>, SqlError> {
        self.take_as(name, "a size such as '10 GB', '64 MB' or a number of bytes", |value| match value {
            OptionValue::String(text) | OptionValue::Number(text) => parse_bytes(text),
            _ => None,
        })
    }

    /// One of a few words, compared without case.
    ///
    /// # Errors
    /// 22023 for another, naming those that work.
    pub fn take_choice<'a>(&mut self, name: &str, choices: &[&'a str]) -> Result<Option<&'a str>, SqlError> {
        let Some(entry) = self.take(name) else { return Ok(None) };
        match choices.iter().find(|choice| choice.eq_ignore_ascii_case(entry.value.as_text())) {
            Some(choice) => Ok(Some(choice)),
            None => {
                let quoted: Vec<_> = choices.iter().map(|choice| format!("'{choice}'")).collect();
                Err(entry.invalid(&format!("one of {}", quoted.join(", "))))
            }
        }
    }

    /// Everything under a prefix (`nexmark.` takes `nexmark.seed` as `seed`), for a reader of its own.
    pub fn take_prefixed(&mut self, prefix: &str) -> Options {
        let (taken, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.entries).into_iter().partition(|e| e.name.starts_with(prefix));
        self.entries = rest;
        let strip = |e: OptionEntry| OptionEntry { name: e.name[prefix.len()..].to_owned(), ..e };
        Options::new(taken.into_iter().map(strip).collect())
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// 42704 naming the first option left, with its place and the nearest known name as a hint.
    pub fn finish(self) -> Result<(), SqlError> {
        let Some(entry) = self.entries.first() else { return Ok(()) };
        let message = format!("unrecognized option \"{}\"", entry.name);
        let error = SqlError::new(SqlState::UNDEFINED_OBJECT, message).at(entry.position);
        match nearest(&entry.name, self.known.iter().map(String::as_str)) {
            Some(known) => Err(error.hint(format!("Perhaps you meant the option \"{known}\"."))),
            None if self.known.is_empty() => Err(error.hint("No options are known here.")),
            None => {
                let mut known = self.known;
                known.sort();
                known.dedup();
                Err(error.hint(format!("The options known here are {}.", known.join(", "))))
            }
        }
    }

    fn take_as<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&OptionValue) -> Option<T>,
    ) -> Result<Option<T>, SqlError> {
        let Some(entry) = self.take(name) else { return Ok(None) };
        match read(&entry.value) {
            Some(value) => Ok(Some(value)),
            None => Err(entry.invalid(expected)),
        }
    }
}

impl OptionEntry {
    /// 22023 at the value: for readers that look into it themselves. `expected` is what would work: "a number".
    pub fn invalid(&self, expected: &str) -> SqlError {
        let message = match &self.value {
            OptionValue::None => format!("option \"{}\" requires a value", self.name),
            value => format!("invalid value for option \"{}\": \"{}\"", self.name, value.as_text()),
        };
        SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
            .hint(format!("Give {expected}."))
            .at(self.value_position)
    }
}

/// Microseconds in `'1 hour 30 minutes'`, `'30s'`, `'-5 s'`, `'00:05:00'`; `None` if it is no fixed length of time.
pub fn parse_duration(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut total = 0_i128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        let unit = match unit.to_ascii_lowercase().as_str() {
            "us" | "usec" | "usecs" | "microsecond" | "microseconds" => 1,
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 1_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, unit)?)?;
        rest = after.trim_start();
    }
    i64::try_from(total).ok()
}

/// Bytes in `'10 GB'`, `'64kB'`, `'1024'`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit, after) = number_and_unit(text.trim())?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" | "byte" | "bytes" => 0,
        "kb" | "kib" => 10,
        "mb" | "mib" => 20,
        "gb" | "gib" => 30,
        "tb" | "tib" => 40,
        "pb" | "pib" => 50,
        _ => return None,
    };
    if !after.is_empty() {
        return None;
    }
    u64::try_from(scaled(number, 1 << shift)?).ok()
}

/// `"1.5 hours and more"` is `("1.5", "hours", " and more")`.
fn number_and_unit(text: &str) -> Option<(&str, &str, &str)> {
    let number_end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    let rest = rest.trim_start();
    let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    (!number.is_empty()).then_some((number, unit, rest))
}

/// `number * unit` exactly, cut toward zero: `"1.5"` and 60 are 90.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(12)];
    let parts = 10_i128.pow(fraction.len() as u32);
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let total = whole.checked_mul(unit)?.checked_add(fraction.checked_mul(unit)? / parts)?;
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(entries: &[(&str, OptionValue)]) -> Options {
        let entry = |(at, (name, value)): (usize, &(&str, OptionValue))| OptionEntry {
            name: (*name).to_owned(),
            value: value.clone(),
            position: at * 10 + 1,
            value_position: at * 10 + 5,
        };
        Options::new(entries.iter().enumerate().map(entry).collect())
    }

    fn text(value: &str) -> OptionValue {
        OptionValue::String(value.to_owned())
    }

    #[test]
    fn durations_and_sizes() {
        for (given, expected) in [
            ("7 days", Some(604_800_000_000)),
            ("30s", Some(30_000_000)),
            ("500ms", Some(500_000)),
            ("1 hour 30 minutes", Some(5_400_000_000)),
            ("1.5 h", Some(5_400_000_000)),
            ("-5 s", Some(-5_000_000)),
            ("0.0000001s", Some(0)),
            ("1 month", None),
            ("5", None),
            ("", None),
            ("s", None),
            ("1..5 s", None),
            ("99999999999999999999 days", None),
            ("9223372036854775808 us", None),
        ] {
            assert_eq!(parse_duration(given), expected, "{given}");
        }
        for (given, expected) in [
            ("10 GB", Some(10 << 30)),
            ("64kB", Some(64 << 10)),
            ("1048576", Some(1 << 20)),
            ("1.5MB", Some(3 << 19)),
            ("-1", None),
            ("10 GB 5 MB", None),
            ("10 XB", None),
            ("99999999999 PB", None),
        ] {
            assert_eq!(parse_bytes(given), expected, "{given}");
        }
    }

    #[test]
    fn what_is_known_is_taken_and_the_rest_refused() {
        let mut bag =
            options(&[("partitions", OptionValue::Number("4".into())), ("retension", text("7 days"))]);
        assert_eq!(bag.take_integer("partitions", 1..=1024), Ok(Some(4)));
        assert_eq!(bag.take_duration("retention"), Ok(None));
        let error = bag.finish().unwrap_err();
        assert_eq!(error.state(), SqlState::UNDEFINED_OBJECT);
        assert_eq!(error.message(), "unrecognized option \"retension\"");
        assert_eq!(error.hint_text(), Some("Perhaps you meant the option \"retention\"."));
        assert_eq!(error.position(), Some(11));
    }

    #[test]
    fn a_wrong_value_says_what_would_work() {
        let mut bag =
            options(&[("a", text("soon")), ("b", OptionValue::Number("0".into())), ("c", text("Json"))]);
        let error = bag.take_duration("a").unwrap_err();
        assert_eq!(error.state(), SqlState::INVALID_PARAMETER_VALUE);
        assert_eq!(error.message(), "invalid value for option \"a\": \"soon\"");
        assert_eq!(error.position(), Some(5));
        let error = bag.take_integer("b", 1..=8).unwrap_err();
        assert_eq!(error.message(), "0 is outside the valid range for option \"b\" (1 .. 8)");
        assert_eq!(bag.take_choice("c", &["csv", "json"]), Ok(Some("json")));
        assert_eq!(bag.finish(), Ok(()));
    }

    #[test]
    fn prefixed_options_keep_their_places() {
        let mut bag = options(&[("nexmark.seed", OptionValue::Number("7".into())), ("rate", text("1"))]);
        let mut nexmark = bag.take_prefixed("nexmark.");
        assert_eq!(nexmark.take("seed").map(|e| (e.name, e.position)), Some(("seed".to_owned(), 1)));
        assert_eq!(bag.entries().len(), 1);
        assert_eq!(bag.to_map().get("rate").map(String::as_str), Some("1"));
    }
}
