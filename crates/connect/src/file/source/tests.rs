use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Int64Type};
use arrow::util::display::array_value_to_string;
use millpond_env::Env;

use super::*;
use crate::{Encoding, open_source, validate_source};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    #[allow(clippy::disallowed_methods, reason = "a test makes the files that somebody else would")]
    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[allow(clippy::disallowed_methods, reason = "as above")]
    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).unwrap();
    }

    fn path(&self, name: &str) -> String {
        Path::new(self.0.path()).join(name).display().to_string()
    }

    fn spec(&self, name: &str, columns: &[Field], options: &[(&str, &str)]) -> SourceSpec {
        let mut all = vec![("path".to_owned(), self.path(name))];
        all.extend(options.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        SourceSpec {
            connector: "file".to_owned(),
            options: all.into_iter().collect(),
            columns: columns.to_vec(),
            encoding: None,
        }
    }
}

fn columns() -> Vec<Field> {
    vec![SqlType::Int8.field("id", false), SqlType::Text.field("name", true)]
}

/// All rows as text, rejected rows as `place: message [raw]`, and the position after each step.
struct Read {
    rows: Vec<String>,
    rejected: Vec<String>,
    positions: Vec<(usize, Bytes)>,
}

use bytes::Bytes;

async fn read(spec: &SourceSpec, position: Option<&[u8]>, size: usize) -> Read {
    let mut source = open_source(spec, &Env::os(), position).await.unwrap();
    drain(&mut *source, size).await
}

async fn drain(source: &mut dyn Source, size: usize) -> Read {
    let mut read = Read { rows: Vec::new(), rejected: Vec::new(), positions: Vec::new() };
    let mut batches = Vec::new();
    let mut count = 0;
    while let SourceStep::Rows(rows) = source.next(size).await.unwrap() {
        assert!(rows.batch.num_rows() + rows.rejected.len() <= size);
        count += rows.batch.num_rows() + rows.rejected.len();
        read.rejected.extend(rows.rejected.iter().map(|r| {
            let place = r.place.rsplit('/').next().unwrap();
            format!(
                "{place}: {} {} [{}]",
                r.error.state(),
                r.error,
                String::from_utf8_lossy(&r.raw).trim_end()
            )
        }));
        batches.push(rows.batch);
        read.positions.push((count, rows.position));
    }
    let all = concat_batches(&source.schema(), &batches).unwrap();
    for row in 0..all.num_rows() {
        let values = all.columns().iter().map(|c| match c.is_null(row) {
            true => "∅".to_owned(),
            false => array_value_to_string(c, row).unwrap(),
        });
        read.rows.push(values.collect::<Vec<_>>().join("|"));
    }
    read
}

#[tokio::test]
async fn csv_columns_are_found_by_name() {
    let folder = Folder::new();
    folder.put("a.csv", "\u{feff}name,extra,id\nx,1,1\n\"a,\"\"b\"\"\nc\",,2\n,,3\r\n\"\",2,4");
    let read = read(&folder.spec("a.csv", &columns(), &[]), None, 100).await;
    assert_eq!(read.rows, ["1|x", "2|a,\"b\"\nc", "3|∅", "4|"]);
    assert!(read.rejected.is_empty(), "{:?}", read.rejected);
}

#[tokio::test]
async fn bad_rows_are_kept_with_their_place() {
    let folder = Folder::new();
    let text =
        b"id,name\n1,a\nx1,b\n,c\n4\n5,e,f\n\n6,\"g\nh\"\n7,\xff\n99999999999999999999,z\n8,\"open\n9,k\n";
    folder.put("a.csv", text);
    for size in [1, 3, 100] {
        let read = read(&folder.spec("*.csv", &columns(), &[]), None, size).await;
        assert_eq!(read.rows, ["1|a", "6|g\nh", "9|k"]);
        assert_eq!(
            read.rejected,
            [
                "a.csv, line 3: 22P02 column \"id\": invalid input syntax for type bigint: \"x1\" [x1,b]",
                "a.csv, line 4: 23502 null value in column \"id\" violates not-null constraint [,c]",
                "a.csv, line 5: 22P04 missing data for column \"name\" [4]",
                "a.csv, line 6: 22P04 extra data after last expected column [5,e,f]",
                "a.csv, line 10: 22021 invalid byte sequence for encoding \"UTF8\": 0xff [7,\u{fffd}]",
                "a.csv, line 11: 22003 column \"id\": value \"99999999999999999999\" is out of range for type bigint [99999999999999999999,z]",
                "a.csv, line 12: 22P04 unterminated CSV quoted field [8,\"open]",
            ]
        );
    }
}

#[tokio::test]
async fn json_lines_are_read_like_csv() {
    let folder = Folder::new();
    folder.put(
        "a.jsonl",
        "{\"id\": 1, \"name\": \"a\\tb\"}\n\n{\"name\": null, \"id\": \"2\"}\n{\"id\": }\n{\"id\": 3.5}\n[]",
    );
    let columns = [columns(), vec![SqlType::Numeric(30, 10).field("n", true)]].concat();
    folder.put("b.jsonl", "{\"id\": 4, \"n\": 12345678901234567890.0123456789, \"other\": {}}");
    let read = read(&folder.spec("*.jsonl", &columns, &[]), None, 100).await;
    assert_eq!(read.rows, ["1|a\tb|∅", "2|∅|∅", "4|∅|12345678901234567890.0123456789"]);
    let states: Vec<&str> = read.rejected.iter().map(|r| &r[..22]).collect();
    assert_eq!(states, ["a.jsonl, line 4: 22P02", "a.jsonl, line 5: 22P02", "a.jsonl, line 6: 22P02"]);
}

#[tokio::test]
async fn opening_at_any_position_goes_on_exactly_there() {
    let folder = Folder::new();
    let mut csv = "id,name\n".to_owned();
    let mut json = String::new();
    for i in 0..120 {
        let bad = if i % 17 == 3 { "x" } else { "" };
        csv += &format!("{bad}{i},\"n\n{i}\"\n");
        json += &format!("{{\"id\":\"{bad}{i}\",\"name\":\"{i}\"}}\n");
    }
    folder.put("csv/b.csv", &csv);
    folder.put("csv/a.csv", &csv);
    folder.put("csv/c/empty.csv", "");
    folder.put("csv/c/head.csv", "id,name\n");
    folder.put("json/a.json", json.trim_end());
    folder.put("json/b.json", &json);
    for (name, format) in [("csv", "csv"), ("json/", "json")] {
        let spec = folder.spec(name, &columns(), &[("format", format)]);
        let whole = read(&spec, None, 1000).await;
        assert_eq!((whole.rows.len(), whole.rejected.len()), (226, 14));
        let pieces = read(&spec, None, 7).await;
        assert_eq!((&pieces.rows, &pieces.rejected), (&whole.rows, &whole.rejected));
        for (count, position) in &pieces.positions {
            let rest = read(&spec, Some(position), 50).await;
            assert_eq!(rest.rows.len() + rest.rejected.len(), 240 - count);
            assert_eq!(rest.rows, whole.rows[226 - rest.rows.len()..]);
            assert_eq!(rest.rejected, whole.rejected[14 - rest.rejected.len()..]);
        }
    }
}

#[tokio::test]
async fn a_bounded_source_keeps_to_the_files_of_its_beginning() {
    let folder = Folder::new();
    folder.put("1.csv", "id,name\n1,a\n");
    folder.put("2.csv", "id,name\n2,b\n");
    let spec = folder.spec("", &columns(), &[("format", "csv")]);
    let first = read(&spec, None, 1).await;
    assert_eq!(first.rows, ["1|a", "2|b"]);
    folder.put("3.csv", "id,name\n3,c\n");
    assert_eq!(read(&spec, Some(&first.positions[0].1), 10).await.rows, ["2|b"]);
    assert_eq!(read(&spec, Some(&first.positions[1].1), 10).await.rows, [""; 0]);
}

#[tokio::test]
async fn new_files_are_followed_and_late_ones_reported() {
    let folder = Folder::new();
    let spec = folder.spec("*.csv", &columns(), &[("follow", "true"), ("poll_interval", "1s")]);
    assert!(!validate_source(&spec, &Env::os()).await.unwrap().bounded, "no file is needed yet");
    let mut source = open_source(&spec, &Env::os(), None).await.unwrap();
    let wait = source.next(10).await.unwrap();
    assert!(matches!(wait, SourceStep::Wait(interval) if interval == Duration::from_secs(1)));
    folder.put("2.csv", "id,name\n1,a\n");
    assert_eq!(drain(&mut *source, 10).await.rows, ["1|a"]);
    folder.put("1.csv", "id,name\n2,b\n");
    folder.put("3.csv", "id,name\n3,c\n");
    let more = drain(&mut *source, 10).await;
    assert_eq!(more.rows, ["3|c"]);
    assert_eq!(more.rejected.len(), 1);
    assert!(
        more.rejected[0].ends_with("files came after \"2.csv\" was read, and sort before it [1.csv]"),
        "{:?}",
        more.rejected
    );

    // A late file that came while nobody looked is counted, and reported once.
    folder.put("0.csv", "id,name\n4,d\n");
    let position = &more.positions.last().unwrap().1;
    let again = read(&spec, Some(position), 10).await;
    assert!(again.rejected[0].ends_with("[1 files]"), "{:?}", again.rejected);
    assert!(read(&spec, Some(&again.positions.last().unwrap().1), 10).await.rejected.is_empty());
    // Files may be cleared away once they have been read.
    folder.remove("3.csv");
    folder.put("4.csv", "id,name\n5,e\n");
    let rest = read(&spec, Some(&again.positions.last().unwrap().1), 10).await;
    assert_eq!((rest.rows, rest.rejected.len()), (vec!["5|e".to_owned()], 0));
}

#[tokio::test]
async fn a_file_that_changed_or_went_is_noticed() {
    let folder = Folder::new();
    folder.put("a.csv", "id,name\n1,a\n2,b\n");
    let spec = folder.spec("a.csv", &columns(), &[("follow", "true")]);
    let position = read(&spec, None, 1).await.positions[0].1.clone();
    folder.put("a.csv", "id,name\n1,a\n2,b\n3,c\n");
    let error = open_source(&spec, &Env::os(), Some(&position)).await.err().unwrap();
    assert_eq!(error.state(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert!(error.message().ends_with("a.csv\" has changed while it was being read"), "{error}");
    folder.remove("a.csv");
    let error = open_source(&spec, &Env::os(), Some(&position)).await.err().unwrap();
    assert_eq!(error.state(), SqlState::UNDEFINED_FILE);
}

#[tokio::test]
async fn lines_longer_than_any_record_are_passed_over() {
    let folder = Folder::new();
    let long = "x".repeat(RECORD_BYTES_MAX + 5_000_000);
    folder.put("a.csv", format!("id,name\n1,a\n2,{long}\n3,c\n"));
    let read = read(&folder.spec("a.csv", &columns(), &[]), None, 10).await;
    assert_eq!(read.rows, ["1|a", "3|c"]);
    assert!(read.rejected[0].starts_with("a.csv, line 3: 54000 a line is longer than 16 MiB [2,xxx"));
}

use super::super::chunks::RECORD_BYTES_MAX;

#[tokio::test]
async fn the_dialect_is_the_users() {
    let folder = Folder::new();
    folder.put("a.txt", "1|'it''s'\n2|\\N\n");
    let options =
        [("format", "csv"), ("without_header", "true"), ("delimiter", "|"), ("quote", "'"), ("null", "\\N")];
    let mut spec = folder.spec("a.txt", &columns(), &options);
    assert_eq!(read(&spec, None, 10).await.rows, ["1|it's", "2|∅"]);
    let moved = ["without_header", "delimiter", "quote", "null"]
        .map(|k| (k.to_owned(), spec.options.remove(k).unwrap()));
    spec.options.remove("format");
    let options = moved.into_iter().collect();
    spec.encoding = Some(Encoding { format: "PLAIN".to_owned(), encode: "CSV".to_owned(), options });
    assert_eq!(read(&spec, None, 10).await.rows, ["1|it's", "2|∅"]);
}

#[tokio::test]
async fn parquet_is_converted_to_the_declared_types() {
    use arrow::array::{Int32Array, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::{DataType, TimeUnit};
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int32, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
    ]));
    let rows = 20_000;
    let ids: Int32Array = (0..rows).map(|i| if i == 7 { None } else { Some(i) }).collect();
    let names = StringArray::from_iter_values(
        (0..rows).map(|i| if i == 9 { "nine".to_owned() } else { i.to_string() }),
    );
    let times = TimestampNanosecondArray::from_iter_values((0..i64::from(rows)).map(|i| i * 1_000_001));
    let batch =
        RecordBatch::try_new(schema.clone(), vec![Arc::new(ids), Arc::new(names), Arc::new(times)]).unwrap();
    let mut bytes = Vec::new();
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(3000))
        .build();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let folder = Folder::new();
    folder.put("a.parquet", &bytes);

    let inferred = validate_source(&folder.spec("*.parquet", &[], &[]), &Env::os()).await.unwrap();
    assert_eq!(*inferred.schema.field(2), SqlType::Timestamp.field("at", true));
    let all = read(&folder.spec("a.parquet", &[], &[]), None, 100_000).await;
    assert_eq!(all.rows.len(), 20_000);
    assert_eq!(all.rows[1], "1|1|1970-01-01T00:00:00.001");

    let declared = [SqlType::Int8.field("name", true), SqlType::Int8.field("id", false)];
    let spec = folder.spec("a.parquet", &declared, &[]);
    let whole = read(&spec, None, 700).await;
    assert_eq!(whole.rows[0], "0|0");
    assert_eq!(whole.rows.len(), 19_998);
    assert_eq!(
        whole.rejected,
        [
            "a.parquet, row 8: 23502 null value in column \"id\" violates not-null constraint [,7]",
            "a.parquet, row 10: 22P02 column \"name\": invalid input syntax for type bigint: \"nine\" [9,nine]"
        ]
    );
    for (count, position) in whole.positions.iter().step_by(5) {
        let rest = read(&spec, Some(position), 10_000).await;
        assert_eq!(rest.rows, whole.rows[count - 2..]);
    }

    let error = |columns: Vec<Field>| {
        let spec = folder.spec("a.parquet", &columns, &[]);
        async move { open_source(&spec, &Env::os(), None).await.unwrap().next(1).await.unwrap_err().to_string() }
    };
    assert!(
        error(vec![SqlType::Int8.field("idd", true)]).await.starts_with("column \"idd\" does not exist in")
    );
    assert!(error(vec![SqlType::Boolean.field("at", true)]).await.ends_with("is not of that type"));
    folder.put("b.parquet", "not parquet");
    let broken = open_source(&folder.spec("b.parquet", &columns(), &[]), &Env::os(), None).await;
    let ConnectError::Refused(error) = broken.unwrap().next(1).await.unwrap_err() else {
        panic!("it is no use to retry")
    };
    assert_eq!(error.state(), SqlState::DATA_CORRUPTED);
}

#[tokio::test]
async fn wrong_options_are_refused() {
    let folder = Folder::new();
    folder.put("a.csv", "id,nam\n1,a\n");
    folder.put("a.csv.gz", "");
    let gone = folder.path("gone/*.csv");
    let columns = columns();
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [Field], &'a str, &'a str);
    let cases: &[Case] = &[
        (
            "a.csv",
            &[("heder", "true")],
            &columns,
            "22023",
            "option \"heder\" of connector \"file\" does not exist",
        ),
        (
            "a.csv",
            &[("delimiter", ";;")],
            &columns,
            "22023",
            "invalid value for option \"delimiter\" of connector \"file\": \";;\"",
        ),
        ("a.txt", &[], &columns, "22023", "connector \"file\" needs to know the format of its files"),
        (
            "a.json",
            &[("header", "true")],
            &columns,
            "22023",
            "option \"header\" of connector \"file\" goes with the format csv only",
        ),
        (
            "a.csv",
            &[("poll_interval", "1s")],
            &columns,
            "22023",
            "option \"poll_interval\" of connector \"file\" goes with follow = true only",
        ),
        ("a.csv", &[], &[], "42601", "connector \"file\" needs columns for the format csv"),
        (
            "gone/*.csv",
            &[],
            &columns,
            "58P01",
            &format!("could not open \"{gone}\": there is no folder \"{}\"", folder.path("gone/")),
        ),
        ("b.csv", &[], &columns, "58P01", &format!("there is no file at \"{}\"", folder.path("b.csv"))),
    ];
    for (name, options, columns, state, message) in cases {
        let error = validate_source(&folder.spec(name, columns, options), &Env::os()).await.unwrap_err();
        assert_eq!((error.state().as_str(), error.message()), (*state, *message));
        assert!(error.hint_text().is_some() || state == &"22023", "{error}");
    }
    let mut source = open_source(&folder.spec("a.csv", &columns, &[]), &Env::os(), None).await.unwrap();
    let SqlStateOf(state, message) = refused(&mut *source).await;
    assert_eq!(state, "42703");
    assert!(message.starts_with("column \"name\" is not in the header of"), "{message}");
    let spec = folder.spec("*.gz", &columns, &[("format", "csv")]);
    let SqlStateOf(state, _) = refused(&mut *open_source(&spec, &Env::os(), None).await.unwrap()).await;
    assert_eq!(state, "0A000");
    assert!(!Path::new(&folder.path("gone")).exists(), "looking for a folder does not make it");
}

struct SqlStateOf(String, String);

async fn refused(source: &mut dyn Source) -> SqlStateOf {
    let ConnectError::Refused(error) = source.next(1).await.unwrap_err() else { panic!("not refused") };
    SqlStateOf(error.state().to_string(), error.message().to_owned())
}

#[tokio::test]
async fn a_batch_has_the_declared_schema() {
    let folder = Folder::new();
    folder.put("a.csv", "id,name\n1,a\n");
    let spec = folder.spec("a.csv", &columns(), &[]);
    let mut source = open_source(&spec, &Env::os(), None).await.unwrap();
    let SourceStep::Rows(rows) = source.next(1).await.unwrap() else { panic!("there is a row") };
    assert_eq!(rows.batch.schema(), validate_source(&spec, &Env::os()).await.unwrap().schema);
    assert_eq!(rows.batch.column(0).as_primitive::<Int64Type>().value(0), 1);
    assert!(matches!(source.next(1).await.unwrap(), SourceStep::End));
    assert!(matches!(source.next(1).await.unwrap(), SourceStep::End));
}
