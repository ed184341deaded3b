use super::*;
use crate::text::parse_column;

fn array_of(element: SqlType) -> SqlType {
    SqlType::Array(Box::new(element))
}

/// Text in, cast, text out; errors as `SQLSTATE message`.
fn cast(text: &str, from: &SqlType, to: &SqlType) -> String {
    let column = parse_column([Some(text)], from).unwrap();
    match cast_array(&column, from, to, CastContext::Explicit) {
        Ok(cast) => {
            assert_eq!(*cast.data_type(), to.arrow());
            format_array(&cast, to, crate::Zone::UTC).unwrap().value(0).to_owned()
        }
        Err(error) => format!("{} {}", error.state(), error.message()),
    }
}

/// Expected values are PostgreSQL 15's.
#[test]
fn casts_answer_as_postgresql() {
    use SqlType::*;
    let cases = [
        ("2.5", Float8, Int4, "2"),
        ("3.5", Float8, Int4, "4"),
        ("-2.5", Float8, Int4, "-2"),
        ("2147483647.4", Float8, Int4, "2147483647"),
        ("2147483647.5", Float8, Int4, "22003 integer out of range"),
        ("NaN", Float8, Int8, "22003 bigint out of range"),
        ("9.3e18", Float8, Int8, "22003 bigint out of range"),
        ("2.5", Numeric(10, 2), Int4, "3"),
        ("-2.5", Numeric(10, 2), Int4, "-3"),
        ("40000", Numeric(10, 2), Int2, "22003 smallint out of range"),
        ("40000", Int4, Int2, "22003 smallint out of range"),
        ("7", Int4, Boolean, "t"),
        ("t", Boolean, Int4, "1"),
        ("t", Boolean, Text, "true"),
        ("t", Boolean, Int8, "42846 cannot cast type boolean to bigint"),
        ("1", Int8, Boolean, "42846 cannot cast type bigint to boolean"),
        ("123.456", Numeric(10, 3), Numeric(5, 2), "123.46"),
        ("999.995", Numeric(10, 3), Numeric(5, 2), "22003 numeric field overflow"),
        ("-0.005", Numeric(10, 3), Numeric(5, 2), "-0.01"),
        ("123", Int4, Numeric(5, 2), "123.00"),
        ("1234", Int4, Numeric(5, 2), "22003 numeric field overflow"),
        ("0.1", Float8, Numeric(20, 18), "0.100000000000000000"),
        ("1e20", Float8, Numeric(38, 2), "100000000000000000000.00"),
        ("0.1", Float4, Numeric(20, 18), "0.100000000000000000"),
        ("0.1", Numeric(10, 1), Float8, "0.1"),
        ("12345678901234567890.12", Numeric(38, 2), Float8, "1.2345678901234567e+19"),
        ("0.3", Float4, Float8, "0.30000001192092896"),
        ("1e300", Float8, Float4, "22003 value out of range: overflow"),
        ("12", Text, Int4, "12"),
        ("x", Text, Int4, "22P02 invalid input syntax for type integer: \"x\""),
        ("abcdef", Text, Varchar(Some(3)), "abc"),
        ("ab", Text, Char(4), "ab  "),
        ("ab", Char(4), Text, "ab"),
        ("2024-02-29", Date, Timestamp, "2024-02-29 00:00:00"),
        ("1969-12-31 23:59:59", Timestamp, Date, "1969-12-31"),
        ("1969-12-31 23:59:59", Timestamp, Time, "23:59:59"),
        ("2024-02-29 10:00:00", Timestamp, Timestamptz, "2024-02-29 10:00:00+00"),
        ("5874897-01-01", Date, Timestamp, "22008 date out of range for timestamp"),
        ("1 day 25:00", Interval, Time, "01:00:00"),
        ("01:02:03", Time, Interval, "01:02:03"),
        ("2024-01-01", Date, Int4, "42846 cannot cast type date to integer"),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", Text, Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("\\xff", Bytea, Text, "\\xff"),
        ("{\"b\":1}", Json, Jsonb, "{\"b\": 1}"),
        ("{1,NULL}", array_of(Int4), array_of(Text), "{1,NULL}"),
        ("{1,NULL}", array_of(Int4), Text, "{1,NULL}"),
        ("-1", Int4, Oid, "4294967295"),
    ];
    for (text, from, to, expected) in cases {
        assert_eq!(cast(text, &from, &to), expected, "{text}: {from} to {to}");
    }
}

#[test]
fn a_text_too_long_is_cut_only_when_asked() {
    let texts = parse_column([Some("abcd")], &SqlType::Text).unwrap();
    let stored = cast_array(&texts, &SqlType::Text, &SqlType::Varchar(Some(3)), CastContext::Assignment);
    assert_eq!(stored.unwrap_err().state(), SqlState::STRING_DATA_RIGHT_TRUNCATION);
}
