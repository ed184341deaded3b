use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use millpond_env::sim::Sim;
use millpond_types::SqlState;

use super::*;
use crate::{open_source, validate_source};

fn spec(options: &[(&str, &str)]) -> SourceSpec {
    let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>();
    SourceSpec { connector: "nexmark".to_owned(), options, ..SourceSpec::default() }
}

/// All rows from a position on, with batches of the given sizes in turn.
async fn read(spec: &SourceSpec, position: Option<&[u8]>, sizes: &[usize]) -> (RecordBatch, Vec<Bytes>) {
    let mut source = open_source(spec, &Sim::new(0).env(), position).await.unwrap();
    let (mut batches, mut positions) = (Vec::new(), Vec::new());
    for size in sizes.iter().cycle() {
        match source.next(*size).await.unwrap() {
            SourceStep::Rows(rows) => {
                assert!(rows.batch.num_rows() <= *size && rows.rejected.is_empty());
                batches.push(rows.batch);
                positions.push(rows.position);
            }
            SourceStep::End => break,
            SourceStep::Wait(_) => panic!("without a rate there is nothing to wait for"),
        }
    }
    (concat_batches(&source.schema(), &batches).unwrap(), positions)
}

fn integers<'a>(batch: &'a RecordBatch, name: &str) -> &'a Int64Array {
    batch.column_by_name(name).unwrap().as_primitive::<Int64Type>()
}

fn strings<'a>(batch: &'a RecordBatch, name: &str) -> &'a StringArray {
    batch.column_by_name(name).unwrap().as_string::<i32>()
}

fn times<'a>(batch: &'a RecordBatch, name: &str) -> &'a TimestampMicrosecondArray {
    batch.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>()
}

#[tokio::test]
async fn opening_at_any_position_goes_on_exactly_there() {
    for table in Table::NAMES {
        for disorder in ["1", "7"] {
            let spec = spec(&[("table", table), ("events", "3000"), ("out_of_order_rows", disorder)]);
            let (whole, positions) = read(&spec, None, &[401]).await;
            assert_eq!(read(&spec, None, &[1, 100, 5]).await.0, whole, "batch sizes do not matter");
            for (i, position) in positions.iter().enumerate() {
                let from = (401 * (i + 1)).min(whole.num_rows());
                if from == whole.num_rows() {
                    let mut source = open_source(&spec, &Sim::new(0).env(), Some(position)).await.unwrap();
                    assert!(matches!(source.next(1).await.unwrap(), SourceStep::End));
                } else {
                    assert_eq!(
                        read(&spec, Some(position), &[64]).await.0,
                        whole.slice(from, whole.num_rows() - from)
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn of_fifty_events_one_is_a_person_and_three_are_auctions() {
    let mut rows = Vec::new();
    for table in Table::NAMES {
        rows.push(
            read(&spec(&[("type", table), ("nexmark.event.num", "5000")]), None, &[1000]).await.0.num_rows(),
        );
    }
    assert_eq!(rows, [100, 300, 4600]);
}

#[tokio::test]
async fn bids_fit_persons_and_auctions() {
    let [persons, auctions, bids] = {
        let mut tables = Vec::new();
        for table in Table::NAMES {
            tables.push(read(&spec(&[("table", table), ("events", "100000")]), None, &[8192]).await.0);
        }
        <[RecordBatch; 3]>::try_from(tables).unwrap()
    };
    let ids = |batch| integers(batch, "id").values().to_vec();
    assert_eq!(ids(&persons), (1000..3000).collect::<Vec<_>>());
    assert_eq!(ids(&auctions), (1000..7000).collect::<Vec<_>>());
    let known = |id: i64, end: i64| (1000..end + ID_LEAD).contains(&id);
    assert!(integers(&bids, "auction").values().iter().all(|id| known(*id, 7000)));
    assert!(integers(&bids, "bidder").values().iter().all(|id| known(*id, 3000)));
    assert!(integers(&auctions, "seller").values().iter().all(|id| known(*id, 3000)));
    assert!(times(&bids, "date_time").values().is_sorted());
    assert_eq!(times(&bids, "date_time").value(0), Config::START_MICROS + 400);
    let expires = times(&auctions, "expires").values().iter().zip(times(&auctions, "date_time").values());
    assert!(expires.into_iter().all(|(end, start)| end > start));
}

const ID_LEAD: i64 = 10;

#[tokio::test]
async fn hot_keys_prices_and_texts_are_as_described() {
    let (bids, _) = read(&spec(&[("table", "bid"), ("events", "200000")]), None, &[8192]).await;
    let share = |count: usize| count as f64 / bids.num_rows() as f64;

    let hot = integers(&bids, "auction").values().iter().filter(|id| *id % 100 == 0).count();
    assert!((0.49..0.53).contains(&share(hot)), "{}", share(hot));
    let hot = integers(&bids, "bidder").values().iter().filter(|id| *id % 100 == 1).count();
    assert!((0.73..0.78).contains(&share(hot)), "{}", share(hot));
    let hot = strings(&bids, "channel").iter().flatten().filter(|c| words::HOT_CHANNELS.contains(c)).count();
    assert!((0.48..0.52).contains(&share(hot)), "{}", share(hot));

    let prices = integers(&bids, "price").values();
    for decade in 2..8u32 {
        let range = 10i64.pow(decade)..10i64.pow(decade + 1);
        let inside = share(prices.iter().filter(|p| range.contains(p)).count());
        assert!((0.15..0.18).contains(&inside), "10^{decade}: {inside}");
    }
    assert!(prices.iter().all(|p| (100..=100_000_000).contains(p)));

    let extra = strings(&bids, "extra");
    let mean = extra.value_data().len() as f64 / extra.len() as f64;
    assert!((66.0..70.0).contains(&mean), "{mean}");
    let mut urls: HashMap<&str, &str> = HashMap::new();
    for (channel, url) in strings(&bids, "channel").iter().zip(strings(&bids, "url")) {
        let (channel, url) = (channel.unwrap(), url.unwrap());
        assert_eq!(*urls.entry(channel).or_insert(url), url, "a channel has one URL");
        assert!(url.starts_with("https://www.nexmark.com/") && url.contains("item.htm?query=1"), "{url}");
        assert_eq!(url.split('/').count(), 7, "{url}");
    }
}

#[tokio::test]
async fn the_rows_never_change() {
    let mut made = Vec::new();
    for (table, events) in [("bid", "5"), ("auction", "2"), ("person", "1")] {
        let options =
            [("table", table), ("events", events), ("person_bytes", "110"), ("auction_bytes", "150")];
        made.push(print(&read(&spec(&options), None, &[8]).await.0));
    }
    assert_eq!(made, GOLDEN);
}

const GOLDEN: [&str; 3] = [
    "1000|1001|767|Google|https://www.nexmark.com/vyui/cli/nksoc/item.htm?query=1|2015-07-15T00:0\
     0:00.000400|lwwyhugbkrwskuujqxxypffpapqpjrqapvniouwbqjmzbvcfrtaxoilfuknlfcorbcamciudgltpfyvwa",
    "1000|ekeepvudz gvouk|hacgsfwhguclil   mvvpcsttjuiuivtwmjnsoccnhrwvongfy pyyiopeespgu pdtwwzoz\
     rvlscyizodwowv|8007259|8008280|2015-07-15T00:00:00.000100|2015-07-15T00:00:00.049730|1000|12|",
    "1000|John Spencer|rtpf@cnjk.com|0926 1641 4126 6781|San Fran\
     cisco|ID|2015-07-15T00:00:00|mpkyxlbxoaxkdgnukymsanlucymbshcp",
];

fn print(batch: &RecordBatch) -> String {
    let columns: Vec<String> =
        batch.columns().iter().map(|c| arrow::util::display::array_value_to_string(c, 0).unwrap()).collect();
    columns.join("|")
}

#[tokio::test]
async fn seeds_make_other_rows() {
    let one = read(&spec(&[("table", "bid"), ("events", "100")]), None, &[100]).await.0;
    let other = read(&spec(&[("table", "bid"), ("events", "100"), ("seed", "1")]), None, &[100]).await.0;
    assert_ne!(one, other);
}

#[tokio::test]
async fn a_time_range_bounds_the_stream() {
    let options =
        [("table", "bid"), ("start_time", "2026-01-01 00:00:00"), ("end_time", "2026-01-01 00:00:01")];
    let mut spec = spec(&options);
    assert!(validate_source(&spec, &Sim::new(0).env()).await.unwrap().bounded);
    let (bids, _) = read(&spec, None, &[5000]).await;
    assert_eq!(bids.num_rows(), 9200, "10,000 events a second");
    spec.options.insert("event_interval".to_owned(), "1 ms".to_owned());
    assert_eq!(read(&spec, None, &[5000]).await.0.num_rows(), 920);
}

#[tokio::test]
async fn shuffled_rows_are_the_same_rows() {
    let sorted = read(&spec(&[("table", "bid"), ("events", "1000")]), None, &[100]).await.0;
    let shuffled =
        read(&spec(&[("table", "bid"), ("events", "1000"), ("out_of_order_rows", "50")]), None, &[100])
            .await
            .0;
    assert!(!times(&shuffled, "date_time").values().is_sorted());
    let order =
        arrow::compute::sort_to_indices(shuffled.column_by_name("date_time").unwrap(), None, None).unwrap();
    assert_eq!(arrow::compute::take_record_batch(&shuffled, &order).unwrap(), sorted);
}

#[tokio::test]
async fn the_start_is_kept_where_it_is_now() {
    let spec = spec(&[("table", "bid"), ("start_time", "now"), ("rate", "1000"), ("events", "1000")]);
    let sim = Sim::new(0);
    sim.clock.advance(std::time::Duration::from_secs(3));
    let first = sim.env().clock.now_micros();
    let mut source = open_source(&spec, &sim.env(), None).await.unwrap();
    let SourceStep::Wait(wait) = source.next(100).await.unwrap() else {
        panic!("the rate allows nothing yet")
    };
    sim.clock.advance(wait);
    let SourceStep::Rows(rows) = source.next(100).await.unwrap() else { panic!("the wait is over") };
    assert_eq!(rows.batch.num_rows(), 10, "ten milliseconds at 1000/s");
    assert_eq!(times(&rows.batch, "date_time").value(0) / 10_000, first / 10_000);
    sim.clock.advance(std::time::Duration::from_secs(3600));
    let mut again = open_source(&spec, &sim.env(), Some(&rows.position)).await.unwrap();
    let _ = again.next(100).await.unwrap();
    sim.clock.advance(std::time::Duration::from_secs(1));
    let SourceStep::Rows(rows) = again.next(1).await.unwrap() else { panic!("a second has passed") };
    assert!(times(&rows.batch, "date_time").value(0) < first + 1_000_000);
}

#[tokio::test]
async fn columns_may_be_chosen_and_are_checked() {
    let mut spec = spec(&[("table", "bid"), ("events", "100")]);
    let (whole, _) = read(&spec, None, &[100]).await;
    spec.columns = vec![SqlType::Timestamp.field("date_time", true), SqlType::Int8.field("price", true)];
    let (some, _) = read(&spec, None, &[100]).await;
    assert_eq!(some.column(1), whole.column_by_name("price").unwrap());
    assert_eq!(some.column(0), whole.column_by_name("date_time").unwrap());

    let env = Sim::new(0).env();
    spec.columns = vec![SqlType::Int8.field("prize", true)];
    let error = validate_source(&spec, &env).await.unwrap_err();
    assert_eq!(error.state(), SqlState::UNDEFINED_COLUMN);
    assert_eq!(error.message(), "column \"prize\" does not exist in connector \"nexmark\"");
    assert_eq!(error.hint_text(), Some("Perhaps you meant the column \"price\"."));
    spec.columns = vec![SqlType::Int4.field("price", true)];
    let error = validate_source(&spec, &env).await.unwrap_err();
    assert_eq!(error.state(), SqlState::DATATYPE_MISMATCH);
    assert_eq!(error.hint_text(), Some("Declare it as price bigint."));
}

#[tokio::test]
async fn wrong_options_are_refused() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "connector \"nexmark\" needs the option \"table\""),
        (&[("type", "bids")], "invalid value for option \"type\" of connector \"nexmark\": \"bids\""),
        (&[("type", "bid"), ("event", "1")], "option \"event\" of connector \"nexmark\" does not exist"),
        (
            &[("type", "bid"), ("events", "many")],
            "invalid value for option \"events\" of connector \"nexmark\": \"many\"",
        ),
        (
            &[("type", "bid"), ("rate", "-1")],
            "invalid value for option \"rate\" of connector \"nexmark\": \"-1\"",
        ),
        (
            &[("type", "bid"), ("start_time", "soon")],
            "invalid value for option \"start_time\" of connector \"nexmark\": \"soon\"",
        ),
        (
            &[("type", "bid"), ("end_time", "2000-01-01")],
            "option \"end_time\" of connector \"nexmark\" is before the start time",
        ),
    ];
    for (options, message) in cases {
        let error = validate_source(&spec(options), &Sim::new(0).env()).await.unwrap_err();
        assert_eq!((error.message(), error.state()), (*message, SqlState::INVALID_PARAMETER_VALUE));
    }
    let Err(error) = open_source(&spec(&[("type", "bid")]), &Sim::new(0).env(), Some(b"x")).await else {
        panic!("that is no position")
    };
    assert_eq!(error.message(), "a position is not one of connector \"nexmark\"");
}

#[test]
fn only_a_source_without_an_end_has_a_rate_unasked() {
    let rate = |options: &[(&str, &str)]| Settings::read(&spec(options)).unwrap().rate;
    let bid = ("table", "bid");
    assert_eq!(rate(&[bid]), Some(10_000.0));
    assert_eq!(rate(&[bid, ("events", "-1")]), Some(10_000.0));
    assert_eq!(rate(&[bid, ("events", "1000")]), None);
    assert_eq!(rate(&[bid, ("end_time", "2030-01-01")]), None);
    assert_eq!(rate(&[bid, ("rate", "0")]), None);
    assert_eq!(rate(&[bid, ("rate", "250"), ("events", "1000")]), Some(250.0));
}
