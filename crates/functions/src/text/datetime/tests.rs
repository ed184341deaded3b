use super::*;

fn shown(write: fn(i64, &mut Vec<u8>), value: i64) -> String {
    let mut out = Vec::new();
    write(value, &mut out);
    String::from_utf8(out).unwrap()
}

/// Expected values are PostgreSQL 15's.
#[test]
fn timestamps_read_as_in_postgresql() {
    for (text, expected) in [
        ("2024-02-29 12:34:56.789", "2024-02-29 12:34:56.789"),
        ("2024-02-29T12:34:56.1234567", "2024-02-29 12:34:56.123457"),
        ("2024-2-9", "2024-02-09 00:00:00"),
        ("20240229", "2024-02-29 00:00:00"),
        ("20240229 123456", "2024-02-29 12:34:56"),
        ("20240229T1234", "2024-02-29 12:34:00"),
        ("1/8/1999", "1999-01-08 00:00:00"),
        ("1/8/99 4:05 PM", "1999-01-08 16:05:00"),
        ("January 8, 1999", "1999-01-08 00:00:00"),
        ("8 Jan 1999 04:05:06", "1999-01-08 04:05:06"),
        ("1999-Jan-08", "1999-01-08 00:00:00"),
        ("Jan-08-1999", "1999-01-08 00:00:00"),
        ("08-Jan-1999", "1999-01-08 00:00:00"),
        ("Mon Jan 08 1999 04:05:06", "1999-01-08 04:05:06"),
        ("1999.008", "1999-01-08 00:00:00"),
        ("J2451187", "1999-01-08 00:00:00"),
        ("0044-03-15 BC", "0044-03-15 00:00:00 BC"),
        ("epoch", "1970-01-01 00:00:00"),
        ("2024-01-01 24:00:00", "2024-01-02 00:00:00"),
        ("2024-01-01 23:59:60", "2024-01-02 00:00:00"),
        ("2024-01-01 12:00 AM", "2024-01-01 00:00:00"),
        ("2024-01-01 12:00:00+05", "2024-01-01 12:00:00"),
        ("  2024-01-01  ", "2024-01-01 00:00:00"),
        ("12024-01-01", "12024-01-01 00:00:00"),
    ] {
        assert_eq!(
            parse_timestamp(text).map(|t| shown(write_timestamp, t)),
            Ok(expected.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn zones_shift_to_utc() {
    for (text, expected) in [
        ("2024-01-01 12:00:00+05:30", "2024-01-01 06:30:00+00"),
        ("2024-01-01 12:00:00-0800", "2024-01-01 20:00:00+00"),
        ("2024-01-01T12:00:00Z", "2024-01-01 12:00:00+00"),
        ("2024-01-01 12:00:00 PST", "2024-01-01 20:00:00+00"),
        ("2024-07-01 12:00:00 Europe/Berlin", "2024-07-01 10:00:00+00"),
        ("2024-01-01 12:00", "2024-01-01 12:00:00+00"),
        ("2024-03-31 02:30 Europe/Berlin", "2024-03-31 01:30:00+00"),
        ("2024-10-27 02:30 Europe/Berlin", "2024-10-27 01:30:00+00"),
    ] {
        assert_eq!(
            parse_timestamptz(text, Zone::UTC)
                .map(|t| shown(|t, out| write_timestamptz(t, Zone::UTC, out), t)),
            Ok(expected.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn bad_times_have_their_codes() {
    for (text, state) in [
        ("2024-02-30", "22008"),
        ("2024-13-01", "22008"),
        ("2024-01-01 25:00:00", "22008"),
        ("", "22007"),
        ("garbage", "22007"),
        ("2024-01", "22007"),
        ("12:00", "22007"),
        ("2024-01-01 12:00:00 12:00:00", "22007"),
        ("now", "0A000"),
        ("infinity", "0A000"),
        ("2024-01-01é", "22007"),
        ("300000-01-01", "22008"),
    ] {
        assert_eq!(parse_timestamp(text).unwrap_err().state().as_str(), state, "{text}");
    }
    assert_eq!(
        parse_timestamp("garbage").unwrap_err().message(),
        "invalid input syntax for type timestamp: \"garbage\""
    );
}

#[test]
fn dates_and_times_read_and_print() {
    let mut out = Vec::new();
    write_date(parse_date("1999-01-08").unwrap(), &mut out);
    assert_eq!(out, b"1999-01-08");
    assert_eq!(parse_date("5874898-01-01").unwrap_err().state(), SqlState::DATETIME_FIELD_OVERFLOW);
    for (text, expected) in [
        ("04:05:06.7", "04:05:06.7"),
        ("04:05 PM", "16:05:00"),
        ("040506", "04:05:06"),
        ("24:00", "24:00:00"),
    ] {
        assert_eq!(parse_time(text).map(|t| shown(write_time, t)), Ok(expected.to_owned()), "{text}");
    }
}
