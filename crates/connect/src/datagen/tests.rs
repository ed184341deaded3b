use std::collections::HashSet;

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use millpond_env::sim::Sim;
use millpond_types::SqlType;

use super::*;
use crate::{open_source, validate_source};

fn spec(columns: &[Field], options: &[(&str, &str)]) -> SourceSpec {
    let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    SourceSpec { connector: "datagen".to_owned(), options, columns: columns.to_vec(), encoding: None }
}

async fn read(spec: &SourceSpec, position: Option<&[u8]>, size: usize) -> (RecordBatch, Vec<Bytes>) {
    let mut source = open_source(spec, &Sim::new(0).env(), position).await.unwrap();
    let (mut batches, mut positions) = (Vec::new(), Vec::new());
    while let SourceStep::Rows(rows) = source.next(size).await.unwrap() {
        batches.push(rows.batch);
        positions.push(rows.position);
    }
    (concat_batches(&source.schema(), &batches).unwrap(), positions)
}

fn all_types() -> Vec<Field> {
    let types = [
        SqlType::Boolean,
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric(10, 2),
        SqlType::Numeric(50, 3),
        SqlType::Text,
        SqlType::Varchar(Some(4)),
        SqlType::Char(3),
        SqlType::Bytea,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::Timestamptz,
        SqlType::Uuid,
    ];
    types.iter().enumerate().map(|(i, ty)| ty.field(format!("c{i}"), true)).collect()
}

#[tokio::test]
async fn opening_at_any_position_goes_on_exactly_there() {
    let mut options = vec![("rows".to_owned(), "200".to_owned())];
    options.extend((0..17).map(|i| (format!("fields.c{i}.null_rate"), "0.2".to_owned())));
    let options: Vec<(&str, &str)> = options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let spec = spec(&all_types(), &options);
    let (whole, positions) = read(&spec, None, 23).await;
    assert_eq!(whole.num_rows(), 200);
    for column in whole.columns() {
        assert!((15..70).contains(&column.null_count()), "{} of {}", column.null_count(), column.data_type());
        let values: HashSet<_> = (0..200).map(|i| array_value_to_string(column, i).unwrap()).collect();
        assert!(values.len() >= 3, "{}", column.data_type());
    }
    for (i, position) in positions.iter().enumerate().filter(|(i, _)| 23 * (i + 1) < 200) {
        let from = 23 * (i + 1);
        assert_eq!(read(&spec, Some(position), 7).await.0, whole.slice(from, 200 - from));
    }
}

#[tokio::test]
async fn rules_decide_values() {
    let columns = [
        SqlType::Int8.field("id", false),
        SqlType::Int4.field("n", true),
        SqlType::Numeric(6, 2).field("price", true),
        SqlType::Text.field("word", true),
        SqlType::Text.field("name", true),
        SqlType::Timestamp.field("at", true),
        SqlType::Date.field("day", true),
        SqlType::Float8.field("f", true),
    ];
    let options = [
        ("fields.id.kind", "sequence"),
        ("fields.id.start", "5"),
        ("fields.id.end", "104"),
        ("FIELDS.n.min", "-3"),
        ("fields.n.max", "3"),
        ("fields.price.min", "1.50"),
        ("fields.price.max", "1.52"),
        ("fields.word.length", "3"),
        ("fields.name.kind", "sequence"),
        ("fields.at.start", "2026-01-01 00:00:00"),
        ("fields.at.step", "1 s"),
        ("fields.day.kind", "sequence"),
        ("fields.day.start", "2026-01-31"),
        ("fields.f.min", "2"),
        ("fields.f.max", "2.5"),
    ];
    let spec = spec(&columns, &options);
    assert!(validate_source(&spec, &Sim::new(0).env()).await.unwrap().bounded);
    let (rows, _) = read(&spec, None, 64).await;
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &(5..105).collect::<Vec<_>>()[..]);
    let n: HashSet<i32> = rows.column(1).as_primitive::<Int32Type>().values().iter().copied().collect();
    assert_eq!(n, (-3..=3).collect());
    let texts = |column: usize| -> HashSet<String> {
        (0..rows.num_rows()).map(|i| array_value_to_string(rows.column(column), i).unwrap()).collect()
    };
    assert_eq!(texts(2), ["1.50", "1.51", "1.52"].map(str::to_owned).into());
    assert!(texts(3).iter().all(|w| w.len() == 3 && w.bytes().all(|b| b.is_ascii_lowercase())));
    assert_eq!(rows.column(4).as_string::<i32>().value(99), "99");
    let at = rows.column(5).as_primitive::<TimestampMicrosecondType>();
    assert_eq!((at.value(0), at.value(99) - at.value(0)), (1_767_225_600_000_000, 99_000_000));
    assert_eq!(array_value_to_string(rows.column(6), 1).unwrap(), "2026-02-01");
    assert!(texts(7).iter().all(|f| (2.0..2.5).contains(&f.parse::<f64>().unwrap())));
}

#[tokio::test]
async fn a_sequence_ends_where_its_type_ends() {
    let columns = [SqlType::Int2.field("n", false)];
    let options = [("fields.n.kind", "sequence"), ("fields.n.start", "32760"), ("fields.n.step", "3")];
    assert_eq!(read(&spec(&columns, &options), None, 10).await.0.num_rows(), 3);
    let options = [("fields.n.kind", "sequence"), ("fields.n.end", "-4"), ("fields.n.step", "-2")];
    assert_eq!(read(&spec(&columns, &options), None, 10).await.0.num_rows(), 3);
}

#[tokio::test]
async fn now_is_the_time_of_the_first_opening() {
    let columns = [SqlType::Timestamptz.field("at", false)];
    let spec = spec(&columns, &[("fields.at.start", "now"), ("rate", "2"), ("rows", "3")]);
    let sim = Sim::new(0);
    let first = sim.env().clock.now_micros();
    let mut source = open_source(&spec, &sim.env(), None).await.unwrap();
    let (mut times, mut waits) = (Vec::new(), 0);
    loop {
        match source.next(10).await.unwrap() {
            SourceStep::Wait(wait) => {
                sim.clock.advance(wait);
                waits += 1;
            }
            SourceStep::Rows(rows) => {
                times.extend_from_slice(
                    rows.batch.column(0).as_primitive::<TimestampMicrosecondType>().values(),
                );
                source = open_source(&spec, &sim.env(), Some(&rows.position)).await.unwrap();
            }
            SourceStep::End => break,
        }
    }
    assert_eq!(times, [first, first + 500_000, first + 1_000_000]);
    assert_eq!(waits, 3);
}

#[tokio::test]
async fn wrong_rules_are_refused() {
    let columns = [
        SqlType::Int4.field("id", false),
        SqlType::Text.field("name", true),
        SqlType::Interval.field("i", true),
    ];
    let cases: &[(usize, (&str, &str), &str)] = &[
        (
            2,
            ("fields.idd.kind", "random"),
            "option \"fields.idd.kind\" names the column \"idd\", which does not exist",
        ),
        (2, ("fields.id", "random"), "option \"fields.id\" of connector \"datagen\" names no rule"),
        (2, ("fields.id.knid", "random"), "option \"knid\" of column \"id\" does not exist"),
        (
            2,
            ("fields.id.kind", "constant"),
            "invalid value for option \"kind\" of column \"id\": \"constant\"",
        ),
        (
            2,
            ("fields.id.max", "3000000000"),
            "invalid value for option \"max\" of column \"id\": \"3000000000\"",
        ),
        (2, ("fields.id.max", "x"), "invalid value for option \"max\" of column \"id\": \"x\""),
        (2, ("fields.id.start", "3"), "option \"start\" of column \"id\" goes with kind = 'sequence' only"),
        (2, ("fields.id.null_rate", "0.5"), "option \"null_rate\" of column \"id\" contradicts NOT NULL"),
        (2, ("fields.name.min", "a"), "option \"min\" of column \"name\" does not go with the type text"),
        (2, ("rwos", "1"), "option \"rwos\" of connector \"datagen\" does not exist"),
        (3, ("rows", "1"), "connector \"datagen\" cannot make values of the type interval"),
        (0, ("rows", "1"), "connector \"datagen\" needs columns"),
    ];
    for (count, option, message) in cases {
        let error =
            validate_source(&spec(&columns[..*count], &[*option]), &Sim::new(0).env()).await.unwrap_err();
        assert_eq!(error.message(), *message);
        assert!(
            error.hint_text().is_some()
                || error.detail_text().is_some()
                || error.message().contains("NOT NULL")
                || error.message().contains("go"),
            "{error}"
        );
    }
}
