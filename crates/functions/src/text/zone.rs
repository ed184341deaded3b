//! Time zones by name, abbreviation or offset.

use chrono::{NaiveDate, NaiveDateTime, Offset, TimeZone};

use super::datetime::in_range;
use super::interval::Parts;
use crate::calendar::{self, HOUR, MINUTE, SECOND};
use crate::operator::temporal::move_timestamp;

/// A time zone, as named in a text, in `AT TIME ZONE`, or by the setting TimeZone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Microseconds east of UTC.
    Fixed(i64),
    Named(chrono_tz::Tz),
}

/// Abbreviations of PostgreSQL's default set that are in common use, in hours east.
const ABBREVIATIONS: [(&str, i64); 20] = [
    ("utc", 0),
    ("gmt", 0),
    ("z", 0),
    ("zulu", 0),
    ("ut", 0),
    ("wet", 0),
    ("cet", 1),
    ("met", 1),
    ("west", 1),
    ("bst", 1),
    ("cest", 2),
    ("eet", 2),
    ("eest", 3),
    ("msk", 3),
    ("jst", 9),
    ("est", -5),
    ("edt", -4),
    ("cst", -6),
    ("pst", -8),
    ("pdt", -7),
];

/// Names under which PostgreSQL knows UTC.
const UTC_NAMES: [&str; 8] = ["UTC", "Etc/UTC", "GMT", "Etc/GMT", "Zulu", "Universal", "UCT", "Z"];

impl Zone {
    pub const UTC: Self = Self::Fixed(0);

    /// Reads a value of the setting TimeZone, and says how SHOW spells it: a name of the IANA database, hours east (`2`,
    /// `-7.5`), or POSIX's `NAME+hours`, where plus is west.
    pub fn of_setting(text: &str) -> Option<(Self, String)> {
        let text = text.trim();
        if let Some(name) = UTC_NAMES.iter().find(|name| name.eq_ignore_ascii_case(text)) {
            return Some((Self::UTC, (*name).to_owned()));
        }
        if let Some(Self::Named(zone)) = named(text) {
            return Some((Self::Named(zone), zone.name().to_owned()));
        }
        if let Ok(hours) = text.parse::<f64>() {
            let east = Some((hours * HOUR as f64) as i64).filter(|east| east.abs() < 16 * HOUR)?;
            return Some((Self::Fixed(east), if east == 0 { "UTC".to_owned() } else { text.to_owned() }));
        }
        let at = text.find(['+', '-'])?;
        let (name, offset) = text.split_at(at);
        let is_name = name.is_empty() || (name.len() >= 3 && name.bytes().all(|b| b.is_ascii_alphabetic()));
        let west = offset_of(&offset.as_bytes()[1..]).filter(|_| is_name)?;
        let east = if offset.starts_with('-') { west } else { -west };
        Some((Self::Fixed(east), if east == 0 { "UTC".to_owned() } else { text.to_owned() }))
    }

    /// Reads `UTC`, `Europe/Berlin`, `EST`, `+02:30`; the sign of a bare number is east, as in timestamps.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if let Some((_, hours)) = ABBREVIATIONS.iter().find(|(name, _)| *name == lower) {
            return Some(Self::Fixed(hours * HOUR));
        }
        match lower.as_str() {
            "cdt" => return Some(Self::Fixed(-5 * HOUR)),
            "mst" => return Some(Self::Fixed(-7 * HOUR)),
            "mdt" => return Some(Self::Fixed(-6 * HOUR)),
            "ist" => return Some(Self::Fixed(2 * HOUR)),
            _ => {}
        }
        if let [sign @ (b'+' | b'-'), rest @ ..] = text.as_bytes()
            && rest.is_ascii()
        {
            return offset_of(rest).map(|o| Self::Fixed(if *sign == b'-' { -o } else { o }));
        }
        named(text)
    }

    /// The instant that is `span` after `utc`: months and days by the zone's calendar, hours as they pass.
    pub fn later(self, utc: i64, span: arrow::datatypes::IntervalMonthDayNano) -> Option<i64> {
        let span = Parts::from(span);
        self.moved(utc, span, 1)
    }

    pub(crate) fn moved(self, utc: i64, span: Parts, sign: i64) -> Option<i64> {
        let days = Parts { micros: 0, ..span };
        let local = move_timestamp(self.to_local(utc)?, days, sign)?;
        self.to_utc(local)?.checked_add(span.micros.checked_mul(sign)?).filter(|t| in_range(*t))
    }

    /// A spelling that [`Zone::parse`] reads.
    pub(crate) fn spelled(self) -> String {
        match self {
            Self::Named(zone) => zone.name().to_owned(),
            Self::Fixed(east) => {
                let (sign, length) = (if east < 0 { '-' } else { '+' }, east.abs());
                let (hours, minutes, seconds) = (length / HOUR, length / MINUTE % 60, length / SECOND % 60);
                format!("{sign}{hours:02}:{minutes:02}:{seconds:02}")
            }
        }
    }

    /// The instant (UTC) at which clocks of the zone show `local`. A time that is skipped counts from the offset before
    /// the change; one that occurs twice means the second, standard time: both as in PostgreSQL.
    pub fn to_utc(self, local: i64) -> Option<i64> {
        match self {
            Self::Fixed(offset) => local.checked_sub(offset),
            Self::Named(zone) => {
                let naive = naive(local)?;
                let offset = match zone.offset_from_local_datetime(&naive) {
                    chrono::LocalResult::Single(offset) => offset.fix().local_minus_utc(),
                    chrono::LocalResult::Ambiguous(_, later) => later.fix().local_minus_utc(),
                    chrono::LocalResult::None => {
                        let before = naive.checked_sub_signed(chrono::TimeDelta::days(1))?;
                        zone.offset_from_local_datetime(&before).earliest()?.fix().local_minus_utc()
                    }
                };
                local.checked_sub(i64::from(offset) * SECOND)
            }
        }
    }

    /// What clocks of the zone show at the instant `utc`.
    pub fn to_local(self, utc: i64) -> Option<i64> {
        match self {
            Self::Fixed(offset) => utc.checked_add(offset),
            Self::Named(zone) => {
                let offset = zone.offset_from_utc_datetime(&naive(utc)?).fix().local_minus_utc();
                utc.checked_add(i64::from(offset) * SECOND)
            }
        }
    }
}

fn named(text: &str) -> Option<Zone> {
    let exact = text.parse::<chrono_tz::Tz>().ok();
    let alike = || chrono_tz::TZ_VARIANTS.iter().find(|z| z.name().eq_ignore_ascii_case(text)).copied();
    exact.or_else(alike).map(Zone::Named)
}

fn naive(micros: i64) -> Option<NaiveDateTime> {
    let (days, time) = calendar::split(micros);
    let date = NaiveDate::from_num_days_from_ce_opt(i32::try_from(days + 719_163).ok()?)?;
    date.and_hms_micro_opt(0, 0, 0, 0)?.checked_add_signed(chrono::TimeDelta::microseconds(time))
}

/// `2`, `02`, `0230`, `2:30`, `02:30:15` in microseconds.
fn offset_of(digits: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(digits).ok()?;
    let (hours, minutes, seconds) = match text.split(':').collect::<Vec<_>>()[..] {
        [h] if h.len() <= 2 => (h, "0", "0"),
        [hm] if hm.len() <= 4 => (&hm[..hm.len() - 2], &hm[hm.len() - 2..], "0"),
        [h, m] => (h, m, "0"),
        [h, m, s] => (h, m, s),
        _ => return None,
    };
    let number = |part: &str, max: i64| {
        let plain = !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<i64>().ok().filter(|v| plain && *v <= max)
    };
    Some(number(hours, 15)? * HOUR + number(minutes, 59)? * MINUTE + number(seconds, 59)? * SECOND)
}
