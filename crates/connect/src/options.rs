//! Options of WITH (…): a connector lists what it knows, and everything else is refused with a hint.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millpond_types::{SqlError, SqlState};

/// One option that a connector knows.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    /// Other spellings, mostly of other systems.
    pub aliases: &'static [&'static str],
    /// What it does and its default, in a phrase.
    pub help: &'static str,
}

/// The options of one statement, by the names that the connector gave them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Such as `connector "nexmark"`, for messages.
    owner: String,
    /// Canonical name to the name that the user wrote and the value.
    values: BTreeMap<&'static str, (String, String)>,
}

impl Options {
    /// Reads `given` against the list of known options. Names are compared without regard to case.
    ///
    /// # Errors
    /// 22023 for an unknown option, and for one that is given twice by two of its names.
    pub fn read(owner: &str, given: &BTreeMap<String, String>, known: &[Known]) -> Result<Self, SqlError> {
        let mut options = Self { owner: owner.to_owned(), values: BTreeMap::new() };
        for (name, value) in given {
            options.add(name, value, known)?;
        }
        Ok(options)
    }

    /// Adds one more option, as [`Options::read`] does.
    pub fn add(&mut self, name: &str, value: &str, known: &[Known]) -> Result<(), SqlError> {
        let lower = name.to_ascii_lowercase();
        let matches = |k: &&Known| k.name == lower || k.aliases.contains(&lower.as_str());
        let Some(option) = known.iter().find(matches) else {
            return Err(unknown_option(&self.owner, name, known));
        };
        if let Some((earlier, _)) = self.values.insert(option.name, (name.to_owned(), value.to_owned())) {
            return Err(invalid(format!("option \"{name}\" of {} is given twice", self.owner))
                .detail(format!("It is the same as \"{earlier}\".")));
        }
        Ok(())
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(_, value)| value.as_str())
    }

    pub fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// # Errors
    /// 22023 if it is not given; `hint` says what to write.
    pub fn required(&self, name: &str, hint: &str) -> Result<&str, SqlError> {
        self.text(name)
            .ok_or_else(|| invalid(format!("{} needs the option \"{name}\"", self.owner)).hint(hint))
    }

    /// An integer within bounds.
    pub fn integer(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, SqlError> {
        self.map(name, |text| {
            let value = text.replace('_', "").parse::<i64>().ok()?;
            (least..=most).contains(&value).then_some(value)
        })
        .map_err(|e| match (least, most) {
            (i64::MIN, i64::MAX) => e.hint("Give an integer."),
            (_, i64::MAX) => e.hint(format!("Give an integer of at least {least}.")),
            _ => e.hint(format!("Give an integer from {least} to {most}.")),
        })
    }

    /// A number that is finite and within bounds.
    pub fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, SqlError> {
        self.map(name, |text| text.parse::<f64>().ok().filter(|v| *v >= least && *v <= most)).map_err(|e| {
            if most == f64::MAX {
                e.hint(format!("Give a number of at least {least}."))
            } else {
                e.hint(format!("Give a number from {least} to {most}."))
            }
        })
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>, SqlError> {
        self.map(name, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "on" | "yes" | "1" => Some(true),
            "false" | "f" | "off" | "no" | "0" => Some(false),
            _ => None,
        })
        .map_err(|e| e.hint("Give true or false."))
    }

    /// A length of time such as `100 us`, `1.5s` or `2 minutes`; at least a nanosecond unless `zero` is allowed.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, SqlError> {
        self.map(name, parse_duration)
            .map_err(|e| e.hint("Give a number and a unit, such as '500 ms', '5s' or '2 minutes'."))
    }

    /// One of some words, in any case; gives its index.
    pub fn choice(&self, name: &str, words: &[&str]) -> Result<Option<usize>, SqlError> {
        self.map(name, |text| words.iter().position(|w| w.eq_ignore_ascii_case(text)))
            .map_err(|e| e.hint(format!("It may be {}.", quoted_list(words))))
    }

    /// Exactly one character, of one byte.
    pub fn character(&self, name: &str) -> Result<Option<u8>, SqlError> {
        self.map(name, |text| match text.as_bytes() {
            b"\\t" => Some(b'\t'),
            [one] if one.is_ascii() && !matches!(one, b'\n' | b'\r') => Some(*one),
            _ => None,
        })
        .map_err(|e| e.hint("Give a single one-byte character."))
    }

    /// Reads an option by a function that gives `None` for a value that it refuses.
    pub fn map<'a, T>(
        &'a self,
        name: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, SqlError> {
        let Some((written, value)) = self.values.get(name) else { return Ok(None) };
        match read(value.trim()) {
            Some(read) => Ok(Some(read)),
            None => {
                Err(invalid(format!("invalid value for option \"{written}\" of {}: \"{value}\"", self.owner)))
            }
        }
    }

    /// A refusal of what was given for `name`.
    pub fn refuse(&self, name: &str, why: &str) -> SqlError {
        let written = self.values.get(name).map_or(name, |(written, _)| written);
        invalid(format!("option \"{written}\" of {} {why}", self.owner))
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// The refusal of a name that is not among the known.
pub(crate) fn unknown_option(owner: &str, name: &str, known: &[Known]) -> SqlError {
    let names: BTreeSet<&str> = known.iter().map(|k| k.name).collect();
    let spellings = known.iter().flat_map(|k| std::iter::once(k.name).chain(k.aliases.iter().copied()));
    let list = names.iter().copied().collect::<Vec<_>>().join(", ");
    let error = invalid(format!("option \"{name}\" of {owner} does not exist"));
    if known.is_empty() {
        return error.hint("It has no options.");
    }
    match nearest(&name.to_ascii_lowercase(), spellings) {
        Some(near) => error.hint(format!("Perhaps you meant \"{near}\". The options are {list}.")),
        None => error.hint(format!("The options are {list}.")),
    }
}

/// A positive length of time with a unit, as Flink, RisingWave and PostgreSQL spell it.
fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))?;
    let number: f64 = text[..split].replace('_', "").parse().ok()?;
    let nanos = match text[split..].trim().to_ascii_lowercase().as_str() {
        "ns" | "nanosecond" | "nanoseconds" => 1.0,
        "us" | "µs" | "microsecond" | "microseconds" => 1e3,
        "ms" | "millisecond" | "milliseconds" => 1e6,
        "s" | "sec" | "second" | "seconds" => 1e9,
        "min" | "m" | "minute" | "minutes" => 60e9,
        "h" | "hour" | "hours" => 3_600e9,
        "d" | "day" | "days" => 86_400e9,
        _ => return None,
    };
    let total = (number * nanos).round();
    (total >= 1.0 && total < u64::MAX as f64).then(|| Duration::from_nanos(total as u64))
}

pub(crate) fn quoted_list(names: &[&str]) -> String {
    names.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ")
}

/// The known name that `name` is probably a slip of: at most a third of its letters differ.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Known] = &[
        Known { name: "events", aliases: &["nexmark.event.num"], help: "" },
        Known { name: "interval", aliases: &[], help: "" },
        Known { name: "header", aliases: &[], help: "" },
    ];

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Options, SqlError> {
        Options::read("connector \"nexmark\"", &given(pairs), KNOWN)
    }

    #[test]
    fn an_unknown_option_is_refused_with_what_there_is() {
        let error = read(&[("evnets", "1")]).unwrap_err();
        assert_eq!(error.state(), SqlState::INVALID_PARAMETER_VALUE);
        assert_eq!(error.message(), "option \"evnets\" of connector \"nexmark\" does not exist");
        let hint = "Perhaps you meant \"events\". The options are events, header, interval.";
        assert_eq!(error.hint_text(), Some(hint));
        let error = read(&[("compression", "1")]).unwrap_err();
        assert_eq!(error.hint_text(), Some("The options are events, header, interval."));
    }

    #[test]
    fn an_alias_is_the_option_and_may_not_repeat_it() {
        let options = read(&[("NEXMARK.event.num", "7")]).unwrap();
        assert_eq!(options.integer("events", 0, 10), Ok(Some(7)));
        let error = read(&[("events", "1"), ("nexmark.event.num", "2")]).unwrap_err();
        assert_eq!(error.message(), "option \"nexmark.event.num\" of connector \"nexmark\" is given twice");
    }

    #[test]
    fn values_are_checked() {
        let error = read(&[("events", "11")]).unwrap().integer("events", 0, 10).unwrap_err();
        assert_eq!(error.message(), "invalid value for option \"events\" of connector \"nexmark\": \"11\"");
        assert_eq!(error.hint_text(), Some("Give an integer from 0 to 10."));
        assert!(read(&[("header", "maybe")]).unwrap().boolean("header").is_err());
        assert_eq!(read(&[("header", "ON")]).unwrap().boolean("header"), Ok(Some(true)));
    }

    #[test]
    fn durations_have_units() {
        let cases = [
            ("100 us", Some(100_000)),
            ("1.5s", Some(1_500_000_000)),
            ("2 minutes", Some(120_000_000_000)),
            ("5", None),
            ("0s", None),
            ("x", None),
            ("5 parsecs", None),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_duration(text), nanos.map(Duration::from_nanos), "{text}");
        }
    }
}
