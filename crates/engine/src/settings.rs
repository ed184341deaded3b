//! Settings of a session (PostgreSQL 15, chapter 20, as far as they mean something here).
//!
//! A setting is in [`TABLE`] or it does not exist (42704). Where Millpond has only one behaviour, other values are refused
//! rather than taken and ignored.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond_functions::Zone;
use millpond_types::{SqlError, SqlState};

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Boolean,
    /// Milliseconds, with units as in PostgreSQL; 0 is "off".
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A time zone.
    Zone,
    /// These values mean what Millpond does anyway; others are refused.
    Only(&'static [&'static str]),
    /// Cannot be set by a client.
    Fixed,
}

struct Setting {
    name: &'static str,
    default: &'static str,
    kind: Kind,
    /// Sent to the client by ParameterStatus when it changes.
    reported: bool,
    description: &'static str,
}

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    description: &'static str,
) -> Setting {
    Setting { name, default, kind, reported: false, description }
}

const fn reported(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    description: &'static str,
) -> Setting {
    Setting { name, default, kind, reported: true, description }
}

pub const SERVER_VERSION: &str = "15.14";
const ISOLATION: &[&str] = &["read uncommitted", "read committed", "repeatable read", "serializable"];

const TABLE: &[Setting] = &[
    reported("application_name", "", Kind::Text, "name of the client program, shown in millpond.connections"),
    setting("bytea_output", "hex", Kind::Only(&["hex"]), "output format of bytea"),
    reported("client_encoding", "UTF8", Kind::Only(&["UTF8", "UTF-8", "UNICODE"]), "encoding of the client"),
    setting(
        "client_min_messages",
        "notice",
        Kind::Word(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"]),
        "least severity of messages that are sent",
    ),
    reported(
        "DateStyle",
        "ISO, MDY",
        Kind::Only(&["ISO, MDY", "ISO", "ISO,MDY", "ISO, YMD", "ISO,YMD"]),
        "form of dates",
    ),
    setting(
        "default_transaction_isolation",
        "repeatable read",
        Kind::Word(ISOLATION),
        "isolation of new transactions",
    ),
    reported("default_transaction_read_only", "off", Kind::Boolean, "whether new transactions only read"),
    setting(
        "extra_float_digits",
        "1",
        Kind::Only(&["1", "2", "3"]),
        "floats are printed with the digits that they need",
    ),
    setting(
        "idle_in_transaction_session_timeout",
        "0",
        Kind::Time,
        "end a session whose transaction stays idle",
    ),
    reported("in_hot_standby", "off", Kind::Fixed, "whether the server is a standby"),
    reported("integer_datetimes", "on", Kind::Fixed, "timestamps are integers"),
    reported("IntervalStyle", "postgres", Kind::Only(&["postgres"]), "form of intervals"),
    reported("is_superuser", "on", Kind::Fixed, "whether the user may do everything"),
    setting("jit", "off", Kind::Only(&["off", "false", "0", "no"]), "just-in-time compilation"),
    setting("lc_collate", "C.UTF-8", Kind::Fixed, "text is ordered by its bytes"),
    setting("lc_ctype", "C.UTF-8", Kind::Fixed, "character classes"),
    setting("lock_timeout", "0", Kind::Time, "longest wait for a lock"),
    setting("max_identifier_length", "63", Kind::Fixed, "longest identifier"),
    setting("max_index_keys", "32", Kind::Fixed, "most columns of an index"),
    setting(
        "millpond.read",
        "session",
        Kind::Word(&["session", "latest", "strict"]),
        "what a SELECT waits for: the session's own writes, nothing, or everything acknowledged to anybody",
    ),
    setting(
        "millpond.read_timeout",
        "10s",
        Kind::Time,
        "longest wait of a SELECT for the views that it names",
    ),
    setting(
        "rw_implicit_flush",
        "on",
        Kind::Only(&["on", "true", "1", "yes"]),
        "reads see the session's own writes",
    ),
    setting("row_security", "on", Kind::Boolean, "row security (there are no policies)"),
    setting(
        "search_path",
        "\"$user\", public",
        Kind::Text,
        "schemas that unqualified names are looked up in",
    ),
    reported("server_encoding", "UTF8", Kind::Fixed, "encoding of the server"),
    reported(
        "server_version",
        SERVER_VERSION,
        Kind::Fixed,
        "version of PostgreSQL whose behaviour is followed",
    ),
    setting("server_version_num", "150014", Kind::Fixed, "the same as a number"),
    reported("session_authorization", "millpond", Kind::Fixed, "user of the session"),
    reported(
        "standard_conforming_strings",
        "on",
        Kind::Only(&["on", "true", "1", "yes"]),
        "backslashes are plain in '...'",
    ),
    setting("statement_timeout", "0", Kind::Time, "longest run of a statement"),
    setting(
        "synchronize_seqscans",
        "on",
        Kind::Boolean,
        "scans may start anywhere (they start at the beginning here)",
    ),
    setting(
        "synchronous_commit",
        "on",
        Kind::Word(&["on", "off", "local", "remote_write", "remote_apply"]),
        "whether a write is acknowledged only when it is on disk",
    ),
    reported("TimeZone", "UTC", Kind::Zone, "zone in which timestamptz values are shown and read"),
    setting(
        "transaction_isolation",
        "repeatable read",
        Kind::Word(ISOLATION),
        "isolation of the transaction",
    ),
    setting("transaction_read_only", "off", Kind::Boolean, "whether the transaction only reads"),
];

/// The settings of one session.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
    /// What RESET returns to: the values of the startup packet.
    startup: BTreeMap<&'static str, String>,
    changed: Vec<&'static str>,
    /// In a block: the values at its start, for a rollback.
    before: Option<BTreeMap<&'static str, String>>,
    /// What SET LOCAL has covered, for the block's end.
    covered: BTreeMap<&'static str, String>,
}

fn find(name: &str) -> Result<&'static Setting, SqlError> {
    let canonical = match name.to_ascii_lowercase().as_str() {
        "time zone" => "timezone".to_owned(),
        "names" => "client_encoding".to_owned(),
        other => other.to_owned(),
    };
    TABLE.iter().find(|s| s.name.eq_ignore_ascii_case(&canonical)).ok_or_else(|| {
        SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"{}\"", name.to_ascii_lowercase()),
        )
        .hint("SHOW ALL lists the settings that there are.")
    })
}

impl Settings {
    /// # Errors
    /// 42704 if there is no such setting.
    pub fn show(&self, name: &str) -> Result<String, SqlError> {
        let setting = find(name)?;
        Ok(self.value(setting).to_owned())
    }

    /// The canonical spelling of a setting's name, for the column that SHOW returns.
    pub fn canonical_name(name: &str) -> Result<&'static str, SqlError> {
        Ok(find(name)?.name)
    }

    fn value<'a>(&'a self, setting: &'a Setting) -> &'a str {
        self.values.get(setting.name).map_or(setting.default, String::as_str)
    }

    /// Name, value and description of each.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &str, &'static str)> {
        TABLE.iter().map(|s| (s.name, self.value(s), s.description))
    }

    /// Name and value of each setting that ParameterStatus reports.
    pub fn reported(&self) -> Vec<(String, String)> {
        TABLE.iter().filter(|s| s.reported).map(|s| (s.name.to_owned(), self.value(s).to_owned())).collect()
    }

    /// # Errors
    /// 42704 unknown; 22023 a bad value; 0A000 a value of PostgreSQL that Millpond does not follow; 55P02 not to be set.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let setting = find(name)?;
        let value = check(setting, value)?;
        self.covered.remove(setting.name);
        self.put(setting, value);
        Ok(())
    }

    fn put(&mut self, setting: &'static Setting, value: String) {
        if self.value(setting) != value {
            self.values.insert(setting.name, value);
            if setting.reported && !self.changed.contains(&setting.name) {
                self.changed.push(setting.name);
            }
        }
    }

    /// As [`Settings::set`], until the block ends.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn set_local(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let setting = find(name)?;
        let value = check(setting, value)?;
        let covered = self.value(setting).to_owned();
        self.covered.entry(setting.name).or_insert(covered);
        self.put(setting, value);
        Ok(())
    }

    /// As [`Settings::reset`], until the block ends.
    ///
    /// # Errors
    /// As [`Settings::reset`].
    pub fn reset_local(&mut self, name: &str) -> Result<(), SqlError> {
        let setting = find(name)?;
        let value = self.startup.get(setting.name).cloned().unwrap_or_else(|| setting.default.to_owned());
        self.set_local(setting.name, &value)
    }

    pub(crate) fn begin_block(&mut self) {
        if self.before.is_none() {
            self.before = Some(self.values.clone());
        }
    }

    /// The values that hold after a block: those of its SETs, or after a rollback those before it.
    pub(crate) fn end_block(&mut self, keep: bool) {
        let before = self.before.take();
        let covered = std::mem::take(&mut self.covered);
        match before {
            Some(before) if !keep => self.put_all(&before),
            _ => {
                for (name, value) in covered {
                    self.put(find(name).expect("it was set"), value);
                }
            }
        }
    }

    /// ROLLBACK TO: the values of an earlier moment of the same block.
    pub(crate) fn return_to(&mut self, earlier: &Self) {
        self.put_all(&earlier.values);
        self.covered.clone_from(&earlier.covered);
    }

    fn put_all(&mut self, values: &BTreeMap<&'static str, String>) {
        for setting in TABLE {
            let value = values.get(setting.name).map_or(setting.default, String::as_str).to_owned();
            self.put(setting, value);
        }
    }

    /// As [`Settings::set`], and RESET comes back to it.
    pub fn set_at_startup(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let setting = find(name)?;
        let value = check(setting, value)?;
        self.startup.insert(setting.name, value.clone());
        self.values.insert(setting.name, value);
        Ok(())
    }

    /// Sets what a client cannot: the user's name, say.
    pub(crate) fn force(&mut self, name: &'static str, value: &str) {
        self.values.insert(name, value.to_owned());
    }

    pub fn reset(&mut self, name: &str) -> Result<(), SqlError> {
        let setting = find(name)?;
        if matches!(setting.kind, Kind::Fixed) {
            return Err(cannot_change(setting));
        }
        let value = self.startup.get(setting.name).cloned().unwrap_or_else(|| setting.default.to_owned());
        self.set(setting.name, &value)
    }

    pub fn reset_all(&mut self) {
        for setting in TABLE {
            if !matches!(setting.kind, Kind::Fixed) {
                self.reset(setting.name).expect("a default is a legal value of its setting");
            }
        }
    }

    pub fn take_changes(&mut self) -> Vec<(String, String)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|n| (n.to_owned(), self.show(n).expect("only known settings change")))
            .collect()
    }

    /// The session's time zone.
    pub fn zone(&self) -> Zone {
        let name = self.values.get("TimeZone").map_or("UTC", String::as_str);
        Zone::of_setting(name).map_or(Zone::UTC, |(zone, _)| zone)
    }

    pub fn boolean(&self, name: &str) -> bool {
        self.show(name).is_ok_and(|v| v == "on")
    }

    /// A time setting; `None` where it is off.
    pub fn time(&self, name: &str) -> Option<Duration> {
        let millis = self.show(name).ok().and_then(|v| milliseconds(&v))?;
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// The schemas of search_path, with `"$user"` left out (there are no schemas of users).
    pub fn search_path(&self) -> Vec<String> {
        let text = self.show("search_path").expect("search_path is a setting");
        let names = text.split(',').map(|s| {
            let s = s.trim();
            match s.strip_prefix('"').and_then(|s| s.strip_suffix('"')) {
                Some(quoted) => quoted.replace("\"\"", "\""),
                None => s.trim_matches('\'').to_lowercase(),
            }
        });
        names.filter(|s| !s.is_empty() && s != "$user").collect()
    }
}

fn cannot_change(setting: &Setting) -> SqlError {
    SqlError::new(
        SqlState::CANT_CHANGE_RUNTIME_PARAM,
        format!("parameter \"{}\" cannot be changed", setting.name),
    )
}

fn check(setting: &Setting, value: &str) -> Result<String, SqlError> {
    let invalid = || {
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{}\": \"{value}\"", setting.name),
        )
    };
    match setting.kind {
        Kind::Text => Ok(value.to_owned()),
        Kind::Boolean => boolean(value).map(|b| if b { "on" } else { "off" }.to_owned()).ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("parameter \"{}\" requires a Boolean value", setting.name),
            )
        }),
        Kind::Time => milliseconds(value).map(|_| value.to_owned()).ok_or_else(|| {
            invalid()
                .hint("Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\".")
        }),
        Kind::Word(words) => match words.iter().find(|w| w.eq_ignore_ascii_case(value)) {
            Some(word) => Ok((*word).to_owned()),
            // "on" and "off" have PostgreSQL's other spellings too.
            None => match boolean(value) {
                Some(true) if words.contains(&"on") => Ok("on".to_owned()),
                Some(false) if words.contains(&"off") => Ok("off".to_owned()),
                _ => Err(invalid().hint(format!("Available values: {}.", words.join(", ")))),
            },
        },
        Kind::Zone => Zone::of_setting(value)
            .map(|(_, name)| name)
            .ok_or_else(|| invalid().hint("Give a name such as 'Europe/Berlin', or hours east of UTC.")),
        Kind::Only(values) => {
            if values.iter().any(|v| v.eq_ignore_ascii_case(value)) {
                Ok(setting.default.to_owned())
            } else {
                Err(SqlError::unsupported(format!(
                    "setting \"{}\" to \"{value}\" is not supported",
                    setting.name
                ))
                .hint(format!("The supported value is \"{}\".", setting.default)))
            }
        }
        Kind::Fixed => Err(cannot_change(setting)),
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => Some(true),
        "off" | "false" | "no" | "0" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// A time with PostgreSQL's units; without one, milliseconds.
fn milliseconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let split = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..split].parse().ok()?;
    match value[split..].trim() {
        "us" => Some(number / 1000),
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_reset() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("nope", "1").unwrap_err().state(), SqlState::UNDEFINED_OBJECT);
        for bad in ["Mars", "", "nan", "-inf", "1e300", "-16", "UTC+99", "a+1", "+", "\u{e9}-1"] {
            let error = settings.set("TimeZone", bad).unwrap_err();
            assert_eq!(error.state(), SqlState::INVALID_PARAMETER_VALUE, "{bad}");
        }
        for (given, shown) in [
            ("europe/berlin", "Europe/Berlin"),
            ("gmt", "GMT"),
            ("-7.5", "-7.5"),
            ("UTC+3", "UTC+3"),
            ("0", "UTC"),
        ] {
            settings.set("TimeZone", given).unwrap();
            assert_eq!(settings.show("timezone").unwrap(), shown);
        }
        settings.take_changes();
        assert_eq!(
            settings.set("server_version", "9").unwrap_err().state(),
            SqlState::CANT_CHANGE_RUNTIME_PARAM
        );
        settings.set("statement_timeout", "2s").unwrap();
        assert_eq!(settings.time("statement_timeout"), Some(Duration::from_secs(2)));
        settings.set("application_name", "psql").unwrap();
        assert_eq!(settings.take_changes(), [("application_name".to_owned(), "psql".to_owned())]);
        settings.reset_all();
        assert_eq!(settings.time("statement_timeout"), None);
        settings.set("search_path", "a, \"B c\"").unwrap();
        assert_eq!(settings.search_path(), ["a", "B c"]);
    }
}
