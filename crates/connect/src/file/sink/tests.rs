use std::collections::BTreeMap;

use arrow::array::{AsArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, StringArray};
use arrow::array::{BooleanArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Int64Type, IntervalMonthDayNanoType};
use millpond_env::sim::Sim;
use millpond_types::sql_type::UTC;
use object_store::ObjectStoreExt;

use super::super::location::Pattern;
use super::super::source::FileSource;
use super::*;
use crate::{Source, SourceSpec, SourceStep, open_sink, prepare_sink, validate_sink};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![SqlType::Int8.field("k", false), SqlType::Text.field("v", true)]))
}

fn spec(format: &str, append_only: bool, schema: &SchemaRef, options: &[(&str, &str)]) -> SinkSpec {
    let mut all =
        BTreeMap::from([("path".to_owned(), "memory:".to_owned()), ("format".to_owned(), format.to_owned())]);
    all.extend(options.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    SinkSpec {
        connector: "file".to_owned(),
        options: all,
        schema: schema.clone(),
        append_only,
        encoding: None,
    }
}

fn location(sim: &Sim) -> Location {
    Location { store: sim.env().objects.unwrap(), root: "sim:/".to_owned(), pattern: Pattern::All }
}

async fn open(sim: &Sim, spec: &SinkSpec, known: u64) -> FileSink {
    FileSink::open(spec, location(sim), Commit(known)).await.unwrap()
}

fn delta(rows: &[(i64, &str)], weights: Option<&[i64]>) -> Delta {
    let keys = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let values = StringArray::from_iter_values(rows.iter().map(|r| r.1));
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values)]).unwrap();
    Delta::new(batch, weights.map(|w| Int64Array::from(w.to_vec())))
}

async fn names(sim: &Sim) -> Vec<String> {
    let mut names: Vec<String> =
        location(sim).store.list(None).map_ok(|m| m.location.to_string()).try_collect().await.unwrap();
    names.sort();
    names
}

async fn text(sim: &Sim, name: &str) -> String {
    let bytes = location(sim).store.get(&Path::from(name)).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn rows_and_changes_are_written_as_documented() {
    let sim = Sim::new(0);
    let mut sink = open(&sim, &spec("csv", true, &schema(), &[]), 0).await;
    sink.write(Commit(0), Commit(3), &[delta(&[(1, "a"), (2, "b,\"c\"")], None)]).await.unwrap();
    sink.write(Commit(3), Commit(7), &[delta(&[(3, ""), (4, "x")], Some(&[2, 1]))]).await.unwrap();
    sink.commit(Commit(7)).await.unwrap();
    sink.write(Commit(7), Commit(9), &[]).await.unwrap();
    sink.commit(Commit(9)).await.unwrap();
    assert_eq!((sink.committed(), sink.rows_written()), (Commit(9), 5));
    let name = "00000000000000000000-00000000000000000007.csv";
    assert_eq!(names(&sim).await, [name], "an empty range makes no file");
    assert_eq!(text(&sim, name).await, "k,v\n1,a\n2,\"b,\"\"c\"\"\"\n3,\"\"\n3,\"\"\n4,x\n");

    let sim = Sim::new(0);
    let mut sink = open(&sim, &spec("json", false, &schema(), &[]), 0).await;
    sink.write(Commit(0), Commit(1), &[delta(&[(1, "a")], None)]).await.unwrap();
    sink.write(Commit(1), Commit(2), &[delta(&[(1, "a"), (1, "b")], Some(&[-1, 1]))]).await.unwrap();
    sink.commit(Commit(2)).await.unwrap();
    assert_eq!(
        text(&sim, &names(&sim).await[0]).await,
        "{\"mp_epoch\":1,\"mp_diff\":1,\"k\":1,\"v\":\"a\"}\n\
         {\"mp_epoch\":2,\"mp_diff\":-1,\"k\":1,\"v\":\"a\"}\n\
         {\"mp_epoch\":2,\"mp_diff\":1,\"k\":1,\"v\":\"b\"}\n"
    );
}

/// Drives a sink through epochs with a crash at every call of the object store, and checks that each row is there once.
#[tokio::test]
async fn every_row_is_written_once_wherever_it_crashes() {
    let epochs = 12u64;
    for crash_at in 0..20 {
        for before in [true, false] {
            let sim = Sim::new(crash_at);
            let spec = spec("csv", true, &schema(), &[("header", "false")]);
            let mut checkpoint = 0;
            let mut calls = 0;
            let mut run = 0;
            'again: loop {
                run += 1;
                assert!(run < 4, "one crash, one more run");
                let mut sink = open(&sim, &spec, checkpoint).await;
                let done = sink.committed().0;
                // Replay from the checkpoint: one epoch for all up to what the sink has, then as they come.
                let mut at = checkpoint;
                if done > at {
                    sink.write(Commit(at), Commit(done), &[delta(&[(-1, "skipped")], None)]).await.unwrap();
                    at = done;
                }
                while at < epochs {
                    let next = at + 1;
                    let rows = [(next as i64, "x")];
                    sink.write(Commit(at), Commit(next), &[delta(&rows, None)]).await.unwrap();
                    at = next;
                    if at % 3 == 0 {
                        calls += 1;
                        if run == 1 && calls == crash_at && before {
                            continue 'again;
                        }
                        sink.commit(Commit(at)).await.unwrap();
                        // The process may die after the file is there and before the checkpoint is.
                        calls += 1;
                        if run == 1 && calls == crash_at {
                            continue 'again;
                        }
                        checkpoint = at;
                    }
                }
                break;
            }
            let mut rows = Vec::new();
            for name in names(&sim).await {
                rows.extend(text(&sim, &name).await.lines().map(str::to_owned));
            }
            let expected: Vec<String> = (1..=epochs).map(|k| format!("{k},x")).collect();
            assert_eq!(rows, expected, "crash at {crash_at}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_there_already_is_not_written_again() {
    let sim = Sim::new(0);
    let spec = spec("csv", true, &schema(), &[]);
    let mut first = open(&sim, &spec, 0).await;
    let mut second = open(&sim, &spec, 0).await;
    for sink in [&mut first, &mut second] {
        sink.write(Commit(0), Commit(5), &[delta(&[(1, "a")], None)]).await.unwrap();
        sink.commit(Commit(5)).await.unwrap();
        assert_eq!(sink.committed(), Commit(5));
    }
    assert_eq!(names(&sim).await.len(), 1);
    first.write(Commit(5), Commit(9), &[delta(&[(2, "b")], None)]).await.unwrap();
    first.commit(Commit(9)).await.unwrap();
    for (known, committed) in [(0, 9), (5, 9), (9, 9), (12, 12)] {
        assert_eq!(open(&sim, &spec, known).await.committed(), Commit(committed));
    }
}

#[tokio::test]
async fn the_order_of_epochs_is_checked() {
    let sim = Sim::new(0);
    let mut sink = open(&sim, &spec("csv", true, &schema(), &[("file_bytes", "1000")]), 4).await;
    sink.write(Commit(2), Commit(4), &[delta(&[(1, "a")], None)]).await.unwrap();
    assert_eq!(sink.rows_written(), 0, "the target has it");
    assert!(sink.write(Commit(3), Commit(6), &[]).await.is_err(), "an epoch across the committed place");
    assert!(sink.write(Commit(5), Commit(6), &[]).await.is_err(), "a gap");
    sink.write(Commit(4), Commit(6), &[delta(&[(1, "a")], None)]).await.unwrap();
    assert!(sink.commit(Commit(5)).await.is_err(), "not the end of an epoch");
    assert!(!sink.wants_commit());
    let long = "x".repeat(2000);
    sink.write(Commit(6), Commit(7), &[delta(&[(1, &long)], None)]).await.unwrap();
    assert!(sink.wants_commit());
    assert!(
        sink.write(Commit(7), Commit(8), &[delta(&[(1, "a")], Some(&[-1]))]).await.is_err(),
        "a row disappears"
    );
}

/// All types through all formats, read again by the source.
#[tokio::test]
async fn what_is_written_can_be_read() {
    let types = [
        SqlType::Boolean,
        SqlType::Float8,
        SqlType::Numeric(12, 3),
        SqlType::Text,
        SqlType::Jsonb,
        SqlType::Timestamp,
        SqlType::Timestamptz,
        SqlType::Uuid,
        SqlType::Interval,
    ];
    let fields: Vec<Field> =
        types.iter().enumerate().map(|(i, ty)| ty.field(format!("c {i}"), true)).collect();
    let times = || TimestampMicrosecondArray::from(vec![Some(1_767_225_600_123_456), None, Some(-1)]);
    let uuids = vec![Some([7u8; 16]), None, Some([255; 16])];
    let intervals = vec![
        Some(IntervalMonthDayNanoType::make_value(14, 3, 4_000_000_000)),
        None,
        Some(Default::default()),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Float64Array::from(vec![Some(0.1), None, Some(f64::NEG_INFINITY)])),
        Arc::new(
            Decimal128Array::from(vec![Some(-12_345_678), None, Some(0)])
                .with_precision_and_scale(12, 3)
                .unwrap(),
        ),
        Arc::new(StringArray::from(vec![Some(" \"ä\",\n"), None, Some("")])),
        Arc::new(StringArray::from(vec![Some("{\"a\": [1, null, \"x\"]}"), None, Some("5")])),
        Arc::new(times()),
        Arc::new(times().with_timezone(UTC)),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids.into_iter(), 16).unwrap()),
        Arc::new(IntervalMonthDayNanoArray::from(intervals)),
    ];
    for (format, count) in [("csv", 9), ("json", 9), ("parquet", 8)] {
        let schema = Arc::new(Schema::new(fields[..count].to_vec()));
        let batch = RecordBatch::try_new(schema.clone(), columns[..count].to_vec()).unwrap();
        let sim = Sim::new(0);
        let mut sink = open(&sim, &spec(format, true, &schema, &[]), 0).await;
        sink.write(Commit(0), Commit(1), &[Delta::insert(batch.clone())]).await.unwrap();
        sink.commit(Commit(1)).await.unwrap();

        let options = BTreeMap::from(
            [("path", "memory:"), ("format", format)].map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let columns = if format == "parquet" { Vec::new() } else { fields[..count].to_vec() };
        let spec = SourceSpec { connector: "file".to_owned(), options, columns, encoding: None };
        let mut source = FileSource::open(&spec, location(&sim), None).await.unwrap();
        let mut batches = Vec::new();
        while let SourceStep::Rows(rows) = source.next(2).await.unwrap() {
            assert!(rows.rejected.is_empty(), "{format}: {:?}", rows.rejected);
            batches.push(rows.batch);
        }
        assert_eq!(concat_batches(&schema, &batches).unwrap(), batch, "{format}");
    }
}

#[tokio::test]
async fn changes_in_parquet_have_their_epoch() {
    let sim = Sim::new(0);
    let mut sink = open(&sim, &spec("parquet", false, &schema(), &[("compression", "none")]), 0).await;
    sink.write(Commit(0), Commit(2), &[delta(&[(1, "a"), (2, "b")], Some(&[1, -2]))]).await.unwrap();
    sink.commit(Commit(2)).await.unwrap();
    let options = BTreeMap::from(
        [("path", "memory:"), ("format", "parquet")].map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let spec = SourceSpec { connector: "file".to_owned(), options, ..SourceSpec::default() };
    let mut source = FileSource::open(&spec, location(&sim), None).await.unwrap();
    let SourceStep::Rows(rows) = source.next(10).await.unwrap() else { panic!("there are rows") };
    let integers = |column: usize| rows.batch.column(column).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!((integers(0), integers(1), integers(2)), (vec![2, 2], vec![1, -2], vec![1, 2]));
}

#[tokio::test]
async fn wrong_options_are_refused() {
    let env = Sim::new(0).env();
    let interval = Arc::new(Schema::new(vec![SqlType::Interval.field("i", true)]));
    let taken = Arc::new(Schema::new(vec![SqlType::Int8.field("mp_diff", true)]));
    let cases: &[(SinkSpec, &str, &str)] = &[
        (
            spec("csv", true, &schema(), &[("pth", "x")]),
            "22023",
            "option \"pth\" of connector \"file\" does not exist",
        ),
        (
            spec("xml", true, &schema(), &[]),
            "22023",
            "invalid value for option \"format\" of connector \"file\": \"xml\"",
        ),
        (
            spec("csv", true, &schema(), &[("compression", "zstd")]),
            "22023",
            "option \"compression\" of connector \"file\" goes with the format parquet only",
        ),
        (
            spec("csv", true, &schema(), &[("path", "/x/*.csv")]),
            "22023",
            "option \"path\" of connector \"file\" must be a folder, without wildcards",
        ),
        (
            spec("parquet", true, &interval, &[]),
            "0A000",
            "column \"i\" of type interval cannot be written as Parquet",
        ),
        (spec("csv", false, &taken, &[]), "42701", "column \"mp_diff\" is taken by the sink itself"),
        (
            SinkSpec { connector: "fiel".to_owned(), ..spec("csv", true, &schema(), &[]) },
            "42704",
            "sink connector \"fiel\" does not exist",
        ),
        (
            SinkSpec { connector: "blackhole".to_owned(), ..spec("csv", true, &schema(), &[]) },
            "22023",
            "option \"format\" of connector \"blackhole\" does not exist",
        ),
    ];
    for (spec, state, message) in cases {
        let error = validate_sink(spec, &env).unwrap_err();
        assert_eq!((error.state().as_str(), error.message()), (*state, *message));
    }
    assert_eq!(
        validate_sink(&spec("csv", true, &taken, &[]), &env).unwrap().guarantee,
        Guarantee::ExactlyOnce
    );
}

#[tokio::test]
async fn a_folder_belongs_to_one_sink() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out").display().to_string();
    let spec = spec("csv", true, &schema(), &[("path", path.as_str())]);
    let env = Env::os();
    prepare_sink(&spec, &env).await.unwrap();
    let mut sink = open_sink(&spec, &env, Commit(0)).await.unwrap();
    sink.write(Commit(0), Commit(2), &[delta(&[(1, "a")], None)]).await.unwrap();
    sink.commit(Commit(2)).await.unwrap();
    let error = prepare_sink(&spec, &env).await.unwrap_err();
    assert_eq!(error.message(), format!("the folder \"{path}/\" holds the files of another sink"));
    assert_eq!(open_sink(&spec, &env, Commit(0)).await.unwrap().committed(), Commit(2));
}
