//! `connector = 'nexmark'`: the event stream of the Nexmark benchmark, an online auction.
//!
//! Every row is a function of the options and its number, so any range can be made, by anybody, at any time, and three
//! sources with the same options (one per table) fit each other: bids name auctions and persons that exist or soon will.
//! The position is the number of the next row, and the start time where that was `now`.
//!
//! Options are in the private list `OPTIONS`, which error messages show; RisingWave's `nexmark.*` spellings are aliases.
//! Not here: one stream of all three tables with nested columns. Use three sources.

mod config;
mod generator;
mod words;

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use bytes::Bytes;
use millpond_env::{Clock, Env};
use millpond_types::{SqlError, SqlType};
use serde::{Deserialize, Serialize};

pub use config::{Config, EVENTS_PER_ROUND, Table};
pub use generator::Generator;

use crate::options::{Known, Options, invalid};
use crate::rate::Pace;
use crate::source::select_columns;
use crate::{ConnectError, DefaultWatermark, ResolvedSource, Source, SourceRows, SourceSpec, SourceStep};

/// Batches stay below about this many bytes.
const BATCH_BYTES_MAX: u64 = 32 << 20;
/// Of a source without end that names no rate: it is there after each start, and must not fill the disk unasked.
const RATE: f64 = 10_000.0;
/// Of the watermark that a source without declared columns gets.
const WATERMARK_DELAY_MICROS: i64 = 4_000_000;

#[rustfmt::skip]
const OPTIONS: &[Known] = &[
    Known { name: "table", aliases: &["nexmark.table.type", "type"], help: "bid, auction or person; required" },
    Known { name: "events", aliases: &["nexmark.event.num"], help: "how many events of all three tables together, of 50 one is a person, 3 auctions, 46 bids; without end" },
    Known { name: "rate", aliases: &["rows_per_second"], help: "rows of this source per second, 0 as many as possible; 10000, or 0 if the source has an end" },
    Known { name: "seed", aliases: &["nexmark.seed"], help: "another seed, other rows; 0" },
    Known { name: "start_time", aliases: &[], help: "time of the first event, or 'now'; 2015-07-15 00:00:00" },
    Known { name: "end_time", aliases: &[], help: "events from this time on are left out" },
    Known { name: "event_interval", aliases: &[], help: "event time between two events; 100 us, or with a rate such that event time passes as fast as the clock" },
    Known { name: "event_interval_ns", aliases: &["nexmark.min.event.gap.in.ns"], help: "the same as a number of nanoseconds" },
    Known { name: "batch_rows", aliases: &["nexmark.max.chunk.size"], help: "most rows of one batch" },
    Known { name: "out_of_order_rows", aliases: &["nexmark.out.of.order.group.size"], help: "rows are shuffled within groups of so many; 1" },
    Known { name: "active_people", aliases: &["nexmark.active.people"], help: "1000" },
    Known { name: "in_flight_auctions", aliases: &["nexmark.in.flight.auctions"], help: "100" },
    Known { name: "hot_auction_ratio", aliases: &["nexmark.hot.auction.ratio"], help: "of so many bids all but one go to the hot auction; 2" },
    Known { name: "hot_bidder_ratio", aliases: &["nexmark.hot.bidder.ratio"], help: "4" },
    Known { name: "hot_seller_ratio", aliases: &["nexmark.hot.seller.ratio"], help: "4" },
    Known { name: "hot_channel_ratio", aliases: &["nexmark.hot.channel.ratio"], help: "2" },
    Known { name: "person_bytes", aliases: &["nexmark.avg.person.byte.size"], help: "about how many bytes a row has; 200" },
    Known { name: "auction_bytes", aliases: &["nexmark.avg.auction.byte.size"], help: "500" },
    Known { name: "bid_bytes", aliases: &["nexmark.avg.bid.byte.size"], help: "100" },
];

/// What the options come to.
struct Settings {
    table: Table,
    config: Config,
    /// The time of event 0 is the clock's, when the source is first opened.
    starts_now: bool,
    /// `None` is without end.
    events: Option<u64>,
    end_micros: Option<i64>,
    rate: Option<f64>,
    batch_rows: usize,
}

impl Settings {
    fn read(spec: &SourceSpec) -> Result<Self, SqlError> {
        let owner = "connector \"nexmark\"";
        if spec.encoding.is_some() {
            return Err(
                invalid(format!("{owner} has no FORMAT and no ENCODE")).hint("Leave out that clause.")
            );
        }
        let options = Options::read(owner, &spec.options, OPTIONS)?;
        options.required("table", "Write nexmark.table.type = 'bid', 'auction' or 'person'.")?;
        let table = options.choice("table", &Table::NAMES)?.map(|i| Table::ALL[i]).expect("it is required");
        // -1 is how RisingWave spells "without end".
        let events = options.integer("events", -1, i64::MAX)?.and_then(|n| u64::try_from(n).ok());
        let bounded = events.is_some() || options.is_given("end_time");
        let rate = options.number("rate", 0.0, 1e12)?.or((!bounded).then_some(RATE));
        let rate = rate.filter(|rate| *rate > 0.0);
        let mut config = Config { interval_nanos: interval(&options, table, rate)?, ..Config::default() };
        config.seed = options.integer("seed", i64::MIN, i64::MAX)?.map_or(0, |seed| seed as u64);

        let starts_now =
            options.text("start_time").is_some_and(|text| text.trim().eq_ignore_ascii_case("now"));
        if !starts_now && let Some(micros) = timestamp(&options, "start_time")? {
            config.start_micros = micros;
        }
        let end_micros = timestamp(&options, "end_time")?;
        if !starts_now && end_micros.is_some_and(|end| end < config.start_micros) {
            return Err(options.refuse("end_time", "is before the start time"));
        }
        let batch_rows = options.integer("batch_rows", 1, 1 << 20)?.map_or(usize::MAX, |n| n as usize);

        let count = |name, target: &mut u64, most| match options.integer(name, 1, most) {
            Ok(Some(value)) => {
                *target = value as u64;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        count("out_of_order_rows", &mut config.out_of_order_rows, 1 << 20)?;
        count("active_people", &mut config.active_people, 1 << 40)?;
        count("in_flight_auctions", &mut config.in_flight_auctions, 1 << 30)?;
        count("hot_auction_ratio", &mut config.hot_auction_ratio, 1 << 40)?;
        count("hot_bidder_ratio", &mut config.hot_bidder_ratio, 1 << 40)?;
        count("hot_seller_ratio", &mut config.hot_seller_ratio, 1 << 40)?;
        count("hot_channel_ratio", &mut config.hot_channel_ratio, 1 << 40)?;
        count("person_bytes", &mut config.person_bytes, 1 << 16)?;
        count("auction_bytes", &mut config.auction_bytes, 1 << 16)?;
        count("bid_bytes", &mut config.bid_bytes, 1 << 16)?;
        Ok(Self { table, config, starts_now, events, end_micros, rate, batch_rows })
    }

    /// How many rows there will be.
    fn rows(&self) -> u64 {
        let until_end = self.end_micros.map(|end| {
            let nanos = u128::try_from(end.saturating_sub(self.config.start_micros)).unwrap_or(0) * 1_000;
            u64::try_from(nanos.div_ceil(u128::from(self.config.interval_nanos))).unwrap_or(u64::MAX)
        });
        let events = self.events.unwrap_or(u64::MAX).min(until_end.unwrap_or(u64::MAX));
        self.table.rows(events.min(self.config.events_max()))
    }
}

/// The event time between two events, in nanoseconds.
fn interval(options: &Options, table: Table, rate: Option<f64>) -> Result<u64, SqlError> {
    // Longer than a day could pass the last timestamp within a table's first million rows.
    const MOST: i64 = 86_400_000_000_000;
    if options.is_given("event_interval") && options.is_given("event_interval_ns") {
        return Err(options.refuse("event_interval_ns", "says the same as \"event_interval\""));
    }
    if let Some(interval) = options.duration("event_interval")? {
        return u64::try_from(interval.as_nanos())
            .ok()
            .filter(|nanos| *nanos <= MOST as u64)
            .ok_or_else(|| options.refuse("event_interval", "is longer than a day"));
    }
    if let Some(nanos) = options.integer("event_interval_ns", 1, MOST)? {
        return Ok(nanos as u64);
    }
    Ok(rate.map_or(Config::INTERVAL_NANOS, |rate| {
        let events_per_second = rate * EVENTS_PER_ROUND as f64 / table.share() as f64;
        (1e9 / events_per_second).clamp(1.0, MOST as f64) as u64
    }))
}

/// An option that is a point of time, in microseconds.
fn timestamp(options: &Options, name: &str) -> Result<Option<i64>, SqlError> {
    // Centuries around ours, so that no sum of two times overflows.
    let decent = -10_000_000_000_000_000..=100_000_000_000_000_000;
    options
        .map(name, |text| {
            let column = millpond_functions::text::parse_column([Some(text)], &SqlType::Timestamp).ok()?;
            let micros = column.as_primitive_opt::<TimestampMicrosecondType>()?.value(0);
            decent.contains(&micros).then_some(micros)
        })
        .map_err(|e| e.hint("Give a timestamp such as '2026-01-31 12:00:00'."))
}

pub(crate) fn validate(spec: &SourceSpec) -> Result<ResolvedSource, SqlError> {
    let settings = Settings::read(spec)?;
    let made = Generator::schema(settings.table);
    let (schema, _) = select_columns("nexmark", &spec.columns, &made)?;
    let time = schema.index_of("date_time").ok().filter(|_| spec.columns.is_empty());
    let watermark = time.map(|column| DefaultWatermark { column, delay_micros: WATERMARK_DELAY_MICROS });
    let bounded = settings.events.is_some() || settings.end_micros.is_some();
    Ok(ResolvedSource { schema, watermark, bounded })
}

pub(crate) fn open(
    spec: &SourceSpec,
    env: &Env,
    position: Option<&[u8]>,
) -> Result<Box<dyn Source>, SqlError> {
    let mut settings = Settings::read(spec)?;
    let (schema, columns) = select_columns("nexmark", &spec.columns, &Generator::schema(settings.table))?;
    let position = position.map(Position::decode).transpose()?;
    if settings.starts_now {
        settings.config.start_micros = position.map_or_else(|| env.clock.now_micros(), |p| p.start_micros);
    }
    let bytes = match settings.table {
        Table::Person => settings.config.person_bytes,
        Table::Auction => settings.config.auction_bytes,
        Table::Bid => settings.config.bid_bytes,
    };
    let rows_max = (BATCH_BYTES_MAX / (bytes + 200)) as usize;
    Ok(Box::new(NexmarkSource {
        table: settings.table,
        columns,
        schema,
        next: position.map_or(0, |p| p.row),
        end: settings.rows(),
        batch_rows: settings.batch_rows.min(rows_max),
        pace: Pace::new(settings.rate),
        clock: env.clock.clone(),
        generator: Generator::new(settings.config),
    }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// The number of the next row.
    row: u64,
    start_micros: i64,
}

impl Position {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("two numbers are always JSON").into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, SqlError> {
        serde_json::from_slice(bytes).map_err(|_| invalid("a position is not one of connector \"nexmark\""))
    }
}

struct NexmarkSource {
    generator: Generator,
    table: Table,
    columns: Vec<usize>,
    schema: SchemaRef,
    next: u64,
    end: u64,
    batch_rows: usize,
    pace: Option<Pace>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Source for NexmarkSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    async fn next(&mut self, rows_max: usize) -> Result<SourceStep, ConnectError> {
        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(SourceStep::End);
        }
        let mut rows = left.min(rows_max).min(self.batch_rows).max(1);
        if let Some(pace) = &mut self.pace {
            match pace.take(self.clock.monotonic(), rows) {
                Ok(allowed) => rows = allowed,
                Err(wait) => return Ok(SourceStep::Wait(wait)),
            }
        }
        let range = self.next..self.next + rows as u64;
        let batch = self.generator.batch(self.table, range.clone(), self.end, &self.columns, &self.schema);
        self.next = range.end;
        let start_micros = self.generator.config().start_micros;
        let position = Position { row: self.next, start_micros }.encode();
        Ok(SourceStep::Rows(SourceRows { batch, position, rejected: Vec::new() }))
    }
}

#[cfg(test)]
mod tests;
