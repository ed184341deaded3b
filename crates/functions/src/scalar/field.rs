//! The fields of dates and times, for extract, date_part and date_trunc.

use millpond_types::{SqlError, SqlState, SqlType};

use crate::calendar::{self, Civil, DAY, HOUR, MINUTE, SECOND, civil_from_days, days_from_civil};
use crate::operator::temporal::timestamp_range;
use crate::text::interval::Parts;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Dow,
    Isodow,
    Doy,
    Isoyear,
    Epoch,
    Julian,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
}

use Field::*;

impl Field {
    /// The field of a name, for values of type `ty`.
    ///
    /// # Errors
    /// 22023 for a name that PostgreSQL does not know.
    pub(crate) fn parse(name: &str, ty: &SqlType) -> Result<Self, SqlError> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "microseconds" | "microsecond" | "us" | "usec" | "usecs" | "useconds" => Microseconds,
            "milliseconds" | "millisecond" | "ms" | "msec" | "msecs" | "mseconds" => Milliseconds,
            "second" | "seconds" | "s" | "sec" | "secs" => Second,
            "minute" | "minutes" | "m" | "min" | "mins" => Minute,
            "hour" | "hours" | "h" | "hr" | "hrs" => Hour,
            "day" | "days" | "d" => Day,
            "week" | "weeks" | "w" => Week,
            "month" | "months" | "mon" | "mons" => Month,
            "quarter" | "qtr" => Quarter,
            "year" | "years" | "y" | "yr" | "yrs" => Year,
            "decade" | "decades" | "dec" | "decs" => Decade,
            "century" | "centuries" | "c" | "cent" => Century,
            "millennium" | "millennia" | "mil" | "mils" => Millennium,
            "dow" => Dow,
            "isodow" => Isodow,
            "doy" => Doy,
            "isoyear" => Isoyear,
            "epoch" => Epoch,
            "julian" | "jd" | "j" => Julian,
            "timezone" => Timezone,
            "timezone_hour" => TimezoneHour,
            "timezone_minute" => TimezoneMinute,
            _ => {
                let message = format!("unit \"{name}\" not recognized for type {ty}");
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
        })
    }

    /// Digits after the point that extract shows.
    pub(crate) fn scale(self) -> i8 {
        match self {
            Second | Epoch => 6,
            Milliseconds => 3,
            Julian => 16,
            _ => 0,
        }
    }

    /// The field's value in millionths. Microseconds come as whole numbers times a million, so in 128 bits.
    ///
    /// # Errors
    /// 0A000 for a field that the type does not have.
    pub(crate) fn of(self, ty: &SqlType, value: Moment) -> Result<i128, SqlError> {
        let found = match value {
            Moment::Instant(micros) => self.of_instant(micros, *ty == SqlType::Timestamptz),
            Moment::Date(days) => match self {
                Microseconds | Milliseconds | Second | Minute | Hour => None,
                Timezone | TimezoneHour | TimezoneMinute => None,
                Julian => Some((i128::from(days) + 2_440_588) * 1_000_000),
                _ => self.of_instant(i64::from(days) * DAY, false),
            },
            Moment::Time(micros) => match self {
                Microseconds | Milliseconds | Second | Minute | Hour => self.of_clock(micros),
                Epoch => Some(micros.into()),
                _ => None,
            },
            Moment::Span(parts) => self.of_span(parts),
        };
        found.ok_or_else(|| {
            let name = format!("{self:?}").to_lowercase();
            SqlError::unsupported(format!("unit \"{name}\" not supported for type {ty}"))
        })
    }

    fn of_clock(self, micros: i64) -> Option<i128> {
        let whole = |v: i64| Some(i128::from(v) * 1_000_000);
        match self {
            Microseconds => whole(micros % MINUTE),
            Milliseconds => Some(i128::from(micros % MINUTE) * 1000),
            Second => Some(i128::from(micros % MINUTE)),
            Minute => whole(micros / MINUTE % 60),
            Hour => whole(micros / HOUR),
            _ => None,
        }
    }

    fn of_instant(self, micros: i64, zoned: bool) -> Option<i128> {
        let (days, time) = calendar::split(micros);
        let Civil { year, month, day } = civil_from_days(days);
        let value = match self {
            Microseconds | Milliseconds | Second | Minute | Hour => return self.of_clock(time),
            Epoch => return Some(micros.into()),
            Julian => {
                return Some(
                    (i128::from(days) + 2_440_588) * 1_000_000
                        + i128::from(time) * 1_000_000 / i128::from(DAY),
                );
            }
            Day => day.into(),
            Week => calendar::iso_week(days).1,
            Month => month.into(),
            Quarter => (i64::from(month) + 2) / 3,
            // There is no year 0: 1 BC is -1.
            Year => {
                if year > 0 {
                    year
                } else {
                    year - 1
                }
            }
            Isoyear => {
                let year = calendar::iso_week(days).0;
                if year > 0 { year } else { year - 1 }
            }
            Decade => year.div_euclid(10),
            Century => counted(year, 100),
            Millennium => counted(year, 1000),
            Dow => calendar::iso_weekday(days) % 7,
            Isodow => calendar::iso_weekday(days),
            Doy => days - days_from_civil(year, 1, 1) + 1,
            Timezone | TimezoneHour | TimezoneMinute if zoned => 0,
            Timezone | TimezoneHour | TimezoneMinute => return None,
        };
        Some(i128::from(value) * 1_000_000)
    }

    fn of_span(self, parts: Parts) -> Option<i128> {
        let (years, months) = (parts.months / 12, parts.months % 12);
        let whole = |v: i32| Some(i128::from(v) * 1_000_000);
        match self {
            Microseconds | Milliseconds | Second | Minute | Hour => self.of_clock(parts.micros),
            Day => whole(parts.days),
            Month => whole(months),
            Quarter => whole(months / 3 + 1),
            Year => whole(years),
            Decade => whole(years / 10),
            Century => whole(years / 100),
            Millennium => whole(years / 1000),
            // A year has 365.25 days, a month 30.
            Epoch => {
                let days = i128::from(years) * 31_557_600
                    + (i128::from(months) * 30 + i128::from(parts.days)) * 86_400;
                Some(days * 1_000_000 + i128::from(parts.micros))
            }
            _ => None,
        }
    }

    /// The start of the unit that `micros` is in.
    ///
    /// # Errors
    /// 0A000 for a field that is no unit of time; 22008 out of range.
    pub(crate) fn truncate(self, micros: i64, ty: &SqlType) -> Result<i64, SqlError> {
        let floor = |unit: i64| micros.checked_sub(micros.rem_euclid(unit)).ok_or_else(timestamp_range);
        let (days, _) = calendar::split(micros);
        let Civil { year, month, .. } = civil_from_days(days);
        let first = |year: i64, month: u32| {
            days_from_civil(year, month, 1).checked_mul(DAY).ok_or_else(timestamp_range)
        };
        // The first year of a span of years that ends with a round number: 1901..2000.
        let span = |years: i64| first((year - 1).div_euclid(years) * years + 1, 1);
        match self {
            Microseconds => Ok(micros),
            Milliseconds => floor(1000),
            Second => floor(SECOND),
            Minute => floor(MINUTE),
            Hour => floor(HOUR),
            Day => floor(DAY),
            Week => (days - calendar::iso_weekday(days) + 1).checked_mul(DAY).ok_or_else(timestamp_range),
            Month => first(year, month),
            Quarter => first(year, (month - 1) / 3 * 3 + 1),
            Year => first(year, 1),
            Decade => first(year.div_euclid(10) * 10, 1),
            Century => span(100),
            Millennium => span(1000),
            _ => {
                let name = format!("{self:?}").to_lowercase();
                Err(SqlError::unsupported(format!("unit \"{name}\" not supported for type {ty}")))
            }
        }
    }

    /// As [`Field::truncate`], of an interval.
    pub(crate) fn truncate_span(self, parts: Parts) -> Result<Parts, SqlError> {
        let Parts { months, days, micros } = parts;
        let time = |unit: i64| Ok(Parts { months, days, micros: micros - micros % unit });
        let calendar = |unit: i32| Ok(Parts { months: months - months % unit, days: 0, micros: 0 });
        match self {
            Microseconds => Ok(parts),
            Milliseconds => time(1000),
            Second => time(SECOND),
            Minute => time(MINUTE),
            Hour => time(HOUR),
            Day => Ok(Parts { months, days, micros: 0 }),
            Month => calendar(1),
            Quarter => calendar(3),
            Year => calendar(12),
            Decade => calendar(120),
            Century => calendar(1200),
            Millennium => calendar(12_000),
            _ => {
                let name = format!("{self:?}").to_lowercase();
                Err(SqlError::unsupported(format!("unit \"{name}\" not supported for type interval")))
            }
        }
    }
}

/// The number of the century or millennium: the 1st begins with the year 1, the -1st ends with 1 BC (year 0).
fn counted(year: i64, years: i64) -> i64 {
    if year > 0 { (year - 1) / years + 1 } else { -((-year) / years + 1) }
}

/// A value that has fields.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    Instant(i64),
    Date(i32),
    Time(i64),
    Span(Parts),
}
