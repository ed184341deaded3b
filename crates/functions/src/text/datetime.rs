//! Text forms of date, time, timestamp and timestamptz: ISO on the way out; on the way in what PostgreSQL takes with
//! `DateStyle = 'ISO, mdy'` and `TimeZone = 'UTC'`.

use millpond_types::{SqlError, SqlState};

use super::number::trim;
use super::zone::Zone;
use crate::calendar::{self, Civil, DAY, HOUR, MINUTE, SECOND, civil_from_days, days_from_civil};

/// Last year that PostgreSQL's dates reach.
const DATE_YEAR_MAX: i64 = 5_874_897;
/// First day of PostgreSQL's calendar: 4714-11-24 BC.
const FIRST_DAY: i64 = -2_440_588;

pub(crate) fn write_date(days: i32, out: &mut Vec<u8>) {
    let civil = civil_from_days(days.into());
    write_civil(civil, out);
    write_era(civil, out);
}

pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    // 24:00:00 is a time; what else is not within a day comes from elsewhere and is brought into it.
    let micros = if (0..=DAY).contains(&micros) { micros } else { micros.rem_euclid(DAY) };
    write_two(micros / HOUR, out);
    out.push(b':');
    write_two(micros / MINUTE % 60, out);
    out.push(b':');
    write_two(micros / SECOND % 60, out);
    write_fraction(micros % SECOND, out);
}

pub(crate) fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    let civil = write_instant(micros, out);
    write_era(civil, out);
}

pub(crate) fn write_timestamptz(micros: i64, zone: Zone, out: &mut Vec<u8>) {
    // Beyond the calendar of the zone's rules there is only UTC.
    let local = zone.to_local(micros).unwrap_or(micros);
    let civil = write_instant(local, out);
    let east = local - micros;
    out.push(if east < 0 { b'-' } else { b'+' });
    let (hours, minutes, seconds) = (east.abs() / HOUR, east.abs() / MINUTE % 60, east.abs() / SECOND % 60);
    write_two(hours, out);
    if minutes != 0 || seconds != 0 {
        out.push(b':');
        write_two(minutes, out);
    }
    if seconds != 0 {
        out.push(b':');
        write_two(seconds, out);
    }
    write_era(civil, out);
}

fn write_instant(micros: i64, out: &mut Vec<u8>) -> Civil {
    let (days, time) = calendar::split(micros);
    let civil = civil_from_days(days);
    write_civil(civil, out);
    out.push(b' ');
    write_time(time, out);
    civil
}

fn write_civil(civil: Civil, out: &mut Vec<u8>) {
    let year = if civil.year > 0 { civil.year } else { 1 - civil.year };
    if year < 10_000 {
        write_two(year / 100, out);
        write_two(year % 100, out);
    } else {
        super::number::write_integer(year, out);
    }
    out.push(b'-');
    write_two(civil.month.into(), out);
    out.push(b'-');
    write_two(civil.day.into(), out);
}

fn write_era(civil: Civil, out: &mut Vec<u8>) {
    if civil.year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

pub(crate) fn write_two(value: i64, out: &mut Vec<u8>) {
    out.push(b'0' + (value / 10 % 10) as u8);
    out.push(b'0' + (value % 10) as u8);
}

/// `.5`, `.000001`: without trailing zeros.
pub(crate) fn write_fraction(micros: i64, out: &mut Vec<u8>) {
    if micros == 0 {
        return;
    }
    out.push(b'.');
    let mut place = SECOND / 10;
    let mut rest = micros;
    while rest > 0 {
        out.push(b'0' + (rest / place) as u8);
        rest %= place;
        place /= 10;
    }
}

pub(crate) fn parse_date(text: &str) -> Result<i32, SqlError> {
    if let Some(days) = fast_date(text.as_bytes()) {
        return Ok(days as i32);
    }
    let fields = Fields::read(text, "date")?;
    let days = fields.days(text, "date")?;
    if days < FIRST_DAY || civil_from_days(days).year > DATE_YEAR_MAX {
        return Err(SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("date out of range: \"{text}\""),
        ));
    }
    Ok(days as i32)
}

pub(crate) fn parse_time(text: &str) -> Result<i64, SqlError> {
    let fields = Fields::read(text, "time")?;
    match fields.time {
        // '2024-01-01 04:05' and a zone are taken, and mean nothing, as in PostgreSQL.
        Some(time) => Ok(time),
        None => Err(invalid("time", text)),
    }
}

pub(crate) fn parse_timestamp(text: &str) -> Result<i64, SqlError> {
    if let Some((micros, None)) = fast_instant(text.as_bytes()) {
        return Ok(micros);
    }
    let fields = Fields::read(text, "timestamp")?;
    instant(fields.days(text, "timestamp")?, fields.time.unwrap_or(0), text)
}

/// Without a zone in the text it is a time of `zone`.
pub(crate) fn parse_timestamptz(text: &str, zone: Zone) -> Result<i64, SqlError> {
    const NAME: &str = "timestamp with time zone";
    let to_utc =
        |zone: Zone, local| zone.to_utc(local).filter(|t| in_range(*t)).ok_or_else(|| timestamp_range(text));
    match fast_instant(text.as_bytes()) {
        Some((micros, Some(offset))) => return Ok(micros - offset),
        Some((micros, None)) => return to_utc(zone, micros),
        None => {}
    }
    let fields = Fields::read(text, NAME)?;
    let local = instant(fields.days(text, NAME)?, fields.time.unwrap_or(0), text)?;
    to_utc(fields.zone.unwrap_or(zone), local)
}

fn instant(days: i64, time: i64, text: &str) -> Result<i64, SqlError> {
    let micros = days.checked_mul(DAY).and_then(|d| d.checked_add(time));
    micros.filter(|t| in_range(*t)).ok_or_else(|| timestamp_range(text))
}

/// Whether PostgreSQL's timestamps reach so far back; the far end is that of 64 bits.
pub(crate) fn in_range(micros: i64) -> bool {
    micros >= FIRST_DAY * DAY && micros != i64::MAX
}

fn timestamp_range(text: &str) -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("timestamp out of range: \"{text}\""))
}

fn invalid(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_DATETIME_FORMAT,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

fn field_range(text: &str) -> SqlError {
    SqlError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("date/time field value out of range: \"{text}\""),
    )
}

/// `2024-05-06`, nothing around it.
fn fast_date(text: &[u8]) -> Option<i64> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let year = two(text, 0)? * 100 + two(text, 2)?;
    let (month, day) = (two(text, 5)? as u32, two(text, 8)? as u32);
    let exists =
        year > 0 && (1..=12).contains(&month) && day >= 1 && day <= calendar::days_in_month(year, month);
    exists.then(|| days_from_civil(year, month, day))
}

/// `2024-05-06 07:08:09[.123456][Z|+02|+02:00]`, with a space or T: the local time and the zone's offset.
fn fast_instant(text: &[u8]) -> Option<(i64, Option<i64>)> {
    if text.len() < 19 || !matches!(text[10], b' ' | b'T') || text[13] != b':' || text[16] != b':' {
        return None;
    }
    let days = fast_date(&text[..10])?;
    let (hour, minute, second) = (two(text, 11)?, two(text, 14)?, two(text, 17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = days * DAY + hour * HOUR + minute * MINUTE + second * SECOND;
    let mut rest = &text[19..];
    if let [b'.', tail @ ..] = rest {
        let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 || digits > 6 {
            return None;
        }
        let value = tail[..digits].iter().fold(0, |v, d| v * 10 + i64::from(d - b'0'));
        micros += value * 10i64.pow(6 - digits as u32);
        rest = &tail[digits..];
    }
    let offset = match rest {
        [] => None,
        [b'Z'] => Some(0),
        [sign @ (b'+' | b'-'), zone @ ..] => {
            let minutes = match zone {
                [_, _] => 0,
                [_, _, b':', m, n] if m.is_ascii_digit() && n.is_ascii_digit() => two(zone, 3)?,
                _ => return None,
            };
            let hours = two(zone, 0)?;
            if hours > 15 || minutes > 59 {
                return None;
            }
            let offset = hours * HOUR + minutes * MINUTE;
            Some(if *sign == b'-' { -offset } else { offset })
        }
        _ => return None,
    };
    Some((micros, offset))
}

fn two(text: &[u8], at: usize) -> Option<i64> {
    let (a, b) = (text[at], text[at + 1]);
    (a.is_ascii_digit() && b.is_ascii_digit()).then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
}

/// What a text says, field by field.
#[derive(Default)]
struct Fields {
    year: Option<i64>,
    month: Option<u32>,
    day: Option<u32>,
    day_of_year: Option<u32>,
    julian_day: Option<i64>,
    time: Option<i64>,
    zone: Option<Zone>,
    bc: bool,
}

impl Fields {
    fn read(text: &str, type_name: &str) -> Result<Self, SqlError> {
        let trimmed = trim(text);
        if !trimmed.is_ascii() {
            return Err(invalid(type_name, text));
        }
        if let Some(error) = special(trimmed, type_name) {
            return Err(error);
        }
        if trimmed.eq_ignore_ascii_case("epoch") {
            return Ok(Self { julian_day: Some(0), time: Some(0), ..Self::default() });
        }
        let mut reader =
            Reader { text, type_name, fields: Self::default(), meridiem: None, numbers: Vec::new() };
        for token in tokens(trimmed) {
            reader.token(token)?;
        }
        reader.finish()
    }

    fn days(&self, text: &str, type_name: &str) -> Result<i64, SqlError> {
        if let Some(day) = self.julian_day {
            return Ok(day);
        }
        let year = self.year.ok_or_else(|| invalid(type_name, text))?;
        if year <= 0 && self.bc {
            return Err(field_range(text));
        }
        let year = if self.bc { 1 - year } else { year };
        if let Some(day) = self.day_of_year {
            let last = if calendar::is_leap(year) { 366 } else { 365 };
            let exists = (1..=last).contains(&day);
            return exists
                .then(|| days_from_civil(year, 1, 1) + i64::from(day) - 1)
                .ok_or_else(|| field_range(text));
        }
        let (Some(month), Some(day)) = (self.month, self.day) else {
            return Err(invalid(type_name, text));
        };
        if year > DATE_YEAR_MAX || (year == 0 && !self.bc) {
            return Err(field_range(text));
        }
        if !(1..=12).contains(&month) || day == 0 || day > calendar::days_in_month(year, month) {
            let error = field_range(text);
            let swapped = month > 12 && day <= 12;
            return Err(match swapped {
                true => error.hint("Perhaps you need a different \"datestyle\" setting."),
                false => error,
            });
        }
        Ok(days_from_civil(year, month, day))
    }
}

/// Texts that PostgreSQL takes and that a pure function cannot mean, or that 64-bit times do not hold here.
fn special(text: &str, type_name: &str) -> Option<SqlError> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "now" | "today" | "tomorrow" | "yesterday" => Some(
            SqlError::unsupported(format!("the {type_name} value \"{text}\" depends on the clock"))
                .hint("Use now() or current_date."),
        ),
        "infinity" | "-infinity" => Some(
            SqlError::unsupported(format!("the {type_name} value \"{text}\" is not supported"))
                .hint("Use NULL, or a time far away such as '9999-12-31'."),
        ),
        _ => None,
    }
}

/// Splits at spaces and commas, at the T between date and time, and before a zone that touches the time.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in text.split([' ', '\t', '\n', '\r', ',']).filter(|w| !w.is_empty()) {
        let bytes = word.as_bytes();
        let t = (1..bytes.len().saturating_sub(1)).find(|i| {
            matches!(bytes[*i], b'T' | b't') && bytes[i - 1].is_ascii_digit() && bytes[i + 1].is_ascii_digit()
        });
        match t {
            Some(t) => {
                found.push(&word[..t]);
                split_zone(&word[t + 1..], &mut found);
            }
            None => split_zone(word, &mut found),
        }
    }
    found
}

/// `12:30+02` and `12:30Z` are two tokens.
fn split_zone<'a>(word: &'a str, found: &mut Vec<&'a str>) {
    let zone = word.find(':').and_then(|colon| {
        word[colon..].find(|c: char| matches!(c, '+' | '-') || c.is_ascii_alphabetic()).map(|at| colon + at)
    });
    match zone {
        Some(at) if word.as_bytes()[0].is_ascii_digit() => found.extend([&word[..at], &word[at..]]),
        _ => found.push(word),
    }
}

struct Reader<'a> {
    text: &'a str,
    type_name: &'a str,
    fields: Fields,
    meridiem: Option<bool>,
    /// Bare numbers that wait for their meaning (`8`, `1999` of `January 8, 1999`).
    numbers: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn bad(&self) -> SqlError {
        invalid(self.type_name, self.text)
    }

    fn token(&mut self, token: &'a str) -> Result<(), SqlError> {
        let first = token.as_bytes()[0];
        if first.is_ascii_digit() && token.contains(':') {
            return self.clock(token);
        }
        if matches!(first, b'+' | b'-') && (self.fields.time.is_some() || !self.numbers.is_empty()) {
            return self.zone(token);
        }
        if first.is_ascii_digit() {
            return self.number(token);
        }
        self.word(token)
    }

    fn zone(&mut self, token: &str) -> Result<(), SqlError> {
        let zone = Zone::parse(token).ok_or_else(|| {
            let message = format!("time zone \"{token}\" not recognized");
            if token.contains('/') {
                SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
            } else {
                self.bad()
            }
        })?;
        match self.fields.zone.replace(zone) {
            None => Ok(()),
            Some(_) => Err(self.bad()),
        }
    }

    fn word(&mut self, token: &'a str) -> Result<(), SqlError> {
        let lower = token.to_ascii_lowercase();
        match lower.as_str() {
            "bc" => self.fields.bc = true,
            "ad" => {}
            "am" => self.meridiem = Some(false),
            "pm" => self.meridiem = Some(true),
            "t" | "at" | "on" => {}
            _ => {
                if let Some(month) = month(&lower) {
                    return match self.fields.month.replace(month) {
                        None => Ok(()),
                        Some(_) => Err(self.bad()),
                    };
                }
                if weekday(&lower) {
                    return Ok(());
                }
                if let Some(day) = lower.strip_prefix('j').and_then(|d| d.parse::<u32>().ok()) {
                    self.fields.julian_day = Some(i64::from(day) - 2_440_588);
                    return Ok(());
                }
                // Jan-08-1999
                if token.contains('-') && month(lower.split('-').next().unwrap_or_default()).is_some() {
                    return self.dashed(token);
                }
                return self.zone(token);
            }
        }
        Ok(())
    }

    fn number(&mut self, token: &'a str) -> Result<(), SqlError> {
        if let Some((digits, half)) = token.split_at_checked(token.len().saturating_sub(2))
            && matches!(half.to_ascii_lowercase().as_str(), "am" | "pm")
            && digits.bytes().all(|b| b.is_ascii_digit())
        {
            self.meridiem = Some(half.eq_ignore_ascii_case("pm"));
            return self.clock(digits);
        }
        if token.contains('-') {
            return self.dashed(token);
        }
        if token.contains('/') {
            return self.dated(token.split('/').collect());
        }
        let all_digits = token.bytes().all(|b| b.is_ascii_digit());
        match token.split_once('.') {
            Some((year, day)) if year.len() == 4 && day.len() == 3 && self.fields.year.is_none() => {
                self.fields.year = Some(self.integer(year)?);
                self.fields.day_of_year = Some(self.integer(day)? as u32);
                Ok(())
            }
            Some((d, rest)) if rest.contains('.') && d.len() <= 2 => self.dated(token.split('.').collect()),
            Some((time, _)) if self.has_date() && time.len() == 6 => self.clock(token),
            None if all_digits && self.awaits_time() && matches!(token.len(), 4 | 6) => self.clock(token),
            None if all_digits && self.fields.month.is_none() && token.len() >= 8 => {
                let (year, rest) = token.split_at(token.len() - 4);
                self.ymd(year, &rest[..2], &rest[2..])
            }
            None if all_digits && self.fields.month.is_none() && token.len() == 6 => {
                self.ymd(&token[..2], &token[2..4], &token[4..])
            }
            None if all_digits => {
                self.numbers.push(token);
                Ok(())
            }
            _ => Err(self.bad()),
        }
    }

    fn awaits_time(&self) -> bool {
        self.fields.time.is_none() && (self.has_date() || self.type_name == "time")
    }

    fn has_date(&self) -> bool {
        let f = &self.fields;
        f.julian_day.is_some() || (f.year.is_some() && (f.day.is_some() || f.day_of_year.is_some()))
    }

    /// `1999-01-08`, `1999-Jan-08`, `08-Jan-1999`, `Jan-08-1999`, `01-08-1999`, `1999-008`.
    fn dashed(&mut self, token: &'a str) -> Result<(), SqlError> {
        let parts: Vec<&str> = token.split('-').collect();
        match parts[..] {
            [year, day] if year.len() >= 4 && day.len() == 3 => {
                self.fields.year = Some(self.integer(year)?);
                self.fields.day_of_year = Some(self.integer(day)? as u32);
                Ok(())
            }
            [_, _, _] => self.dated(parts),
            _ => Err(self.bad()),
        }
    }

    fn dated(&mut self, parts: Vec<&str>) -> Result<(), SqlError> {
        let [a, b, c] = parts[..] else { return Err(self.bad()) };
        let name = |part: &str| month(&part.to_ascii_lowercase());
        if let Some(month) = name(b) {
            let (year, day) = if a.len() > 2 { (a, c) } else { (c, a) };
            return self.ymd(year, &month.to_string(), day);
        }
        if let Some(month) = name(a) {
            return self.ymd(c, &month.to_string(), b);
        }
        if a.len() > 2 { self.ymd(a, b, c) } else { self.ymd(c, a, b) }
    }

    fn ymd(&mut self, year: &str, month: &str, day: &str) -> Result<(), SqlError> {
        if self.fields.year.is_some() || self.fields.month.is_some() {
            return Err(self.bad());
        }
        self.fields.year = Some(self.year(year)?);
        self.fields.month = Some(self.integer(month)? as u32);
        self.fields.day = Some(self.integer(day)? as u32);
        Ok(())
    }

    /// Two digits mean 1970 to 2069.
    fn year(&self, digits: &str) -> Result<i64, SqlError> {
        let year = self.integer(digits)?;
        Ok(match digits.len() {
            1 | 2 if year < 70 => year + 2000,
            1 | 2 => year + 1900,
            _ => year,
        })
    }

    fn integer(&self, digits: &str) -> Result<i64, SqlError> {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.bad());
        }
        digits.parse::<i64>().ok().filter(|v| *v <= 10_000_000).ok_or_else(|| field_range(self.text))
    }

    /// `04:05`, `04:05:06.789`, `040506`, `0405`.
    fn clock(&mut self, token: &str) -> Result<(), SqlError> {
        if self.fields.time.is_some() {
            return Err(self.bad());
        }
        let (whole, fraction) = token.split_once('.').map_or((token, None), |(w, f)| (w, Some(f)));
        let parts: Vec<&str> = match whole.split(':').collect::<Vec<_>>()[..] {
            [digits] if digits.len() == 6 => vec![&digits[..2], &digits[2..4], &digits[4..]],
            [digits] if digits.len() == 4 => vec![&digits[..2], &digits[2..]],
            [digits] if self.meridiem.is_some() => vec![digits, "0"],
            ref parts => parts.to_vec(),
        };
        let (hour, minute, second) = match parts[..] {
            [h, m] if fraction.is_none() => (self.integer(h)?, self.integer(m)?, 0),
            // mm:ss.fff of an interval style is no time of day.
            [h, m, s] => (self.integer(h)?, self.integer(m)?, self.integer(s)?),
            _ => return Err(self.bad()),
        };
        let micros = match fraction {
            None => 0,
            Some(digits) => fraction_micros(digits).ok_or_else(|| self.bad())?,
        };
        let in_day = hour * HOUR + minute * MINUTE + second * SECOND + micros;
        if hour > 24 || minute > 59 || second > 60 || in_day > DAY {
            return Err(field_range(self.text));
        }
        self.fields.time = Some(in_day);
        Ok(())
    }

    fn finish(mut self) -> Result<Fields, SqlError> {
        self.place_numbers()?;
        if let Some(afternoon) = self.meridiem {
            let time = self.fields.time.ok_or_else(|| self.bad())?;
            if time >= 13 * HOUR {
                return Err(field_range(self.text));
            }
            let noon = time >= 12 * HOUR;
            self.fields.time = Some(match (afternoon, noon) {
                (true, false) => time + 12 * HOUR,
                (false, true) => time - 12 * HOUR,
                _ => time,
            });
        }
        Ok(self.fields)
    }

    /// Numbers beside a month's name: a day and a year; the longer is the year.
    fn place_numbers(&mut self) -> Result<(), SqlError> {
        let numbers = std::mem::take(&mut self.numbers);
        match (&numbers[..], self.fields.month, self.fields.year) {
            ([], _, _) => Ok(()),
            ([a, b], Some(_), None) => {
                let (year, day) = if a.len() > 2 { (a, b) } else { (b, a) };
                self.fields.year = Some(self.year(year)?);
                self.fields.day = Some(self.integer(day)? as u32);
                Ok(())
            }
            _ => Err(self.bad()),
        }
    }
}

/// The digits after a point as microseconds, rounded half up.
pub(crate) fn fraction_micros(digits: &str) -> Option<i64> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut micros = 0;
    for place in 0..6 {
        micros = micros * 10 + digits.as_bytes().get(place).map_or(0, |d| i64::from(d - b'0'));
    }
    Some(micros + i64::from(digits.as_bytes().get(6).is_some_and(|d| *d >= b'5')))
}

pub(crate) const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
pub(crate) const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

fn month(lower: &str) -> Option<u32> {
    let exact = |name: &str| name == lower || name[..3] == *lower || (lower == "sept" && name == "september");
    MONTHS.iter().position(|name| exact(name)).map(|m| m as u32 + 1)
}

fn weekday(lower: &str) -> bool {
    WEEKDAYS.iter().any(|name| *name == lower || name[..3] == *lower)
}

#[cfg(test)]
mod tests;
