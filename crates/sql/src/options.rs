//! `WITH (name = value, …)`: a bag of options, taken out one by one by whoever knows them, so that none is ignored.

use std::collections::BTreeMap;

use millpond_types::SqlError;

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
    pub fn take_string(&mut self, _name: &str) -> Result<Option<String>, SqlError> {
        unimplemented!()
    }

    /// # Errors
    /// 22023 for a value that is not `true`, `false`, `on`, `off`, `yes`, `no`, 1 or 0.
    pub fn take_bool(&mut self, _name: &str) -> Result<Option<bool>, SqlError> {
        unimplemented!()
    }

    /// # Errors
    /// 22023 for a value that is not a whole number, or outside of `range`.
    pub fn take_integer(
        &mut self,
        _name: &str,
        _range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, SqlError> {
        unimplemented!()
    }

    /// # Errors
    /// 22023 for a value that is not a finite number.
    pub fn take_float(&mut self, _name: &str) -> Result<Option<f64>, SqlError> {
        unimplemented!()
    }

    /// A length of time in microseconds: `'7 days'`, `'1 hour 30 minutes'`, `'30s'`, `'500ms'`.
    ///
    /// # Errors
    /// 22023 for anything else, months and years among it: they have no fixed length.
    pub fn take_duration(&mut self, _name: &str) -> Result<Option<i64>, SqlError> {
        unimplemented!()
    }

    /// A size in bytes: `'10 GB'`, `'64kB'`, `1048576`; units are powers of 1024, as in PostgreSQL.
    ///
    /// # Errors
    /// 22023 for anything else.
    pub fn take_bytes(&mut self, _name: &str) -> Result<Option<u64>, SqlError> {
        unimplemented!()
    }

    /// One of a few words.
    ///
    /// # Errors
    /// 22023 for another, naming those that work.
    pub fn take_choice<'a>(
        &mut self,
        _name: &str,
        _choices: &[&'a str],
    ) -> Result<Option<&'a str>, SqlError> {
        unimplemented!()
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
        unimplemented!()
    }
}
