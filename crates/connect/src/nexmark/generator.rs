//! Rows of the Nexmark tables, a column at a time, for any range of row numbers.
//!
//! Written from the benchmark's public description (Tucker, Tufte, Papadimos, Maier: NEXMark, 2008) and the parameters that
//! later implementations share: ids count from 1,000; most bids go to a hot auction and come from a hot bidder, which change
//! every 100 ids; prices are log-uniform over six decades.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Schema, SchemaRef};
use millpond_types::SqlType;

use super::config::{Config, EVENTS_PER_ROUND, Table};
use super::words::{CITIES, Channels, FIRST_NAMES, LAST_NAMES, STATES, append_phrase};
use crate::sample::{Letters, Stream};

const FIRST_ID: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Persons and auctions are named so far ahead of their own event.
const ID_LEAD: u64 = 10;
/// The hot auction, bidder and seller change every so many ids.
const HOT_STEP: u64 = 100;

/// Makes rows. Cheap to share between threads: making rows changes nothing.
#[derive(Clone, Debug)]
pub struct Generator {
    config: Config,
    letters: Arc<Letters>,
    channels: Arc<Channels>,
    prices: Arc<Prices>,
}

impl Generator {
    pub fn new(config: Config) -> Self {
        let letters = Letters::new(config.seed);
        let channels = Channels::new(config.seed, &letters);
        Self {
            config,
            letters: Arc::new(letters),
            channels: Arc::new(channels),
            prices: Arc::new(Prices::new()),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The columns of a table; none of them is ever NULL.
    pub fn schema(table: Table) -> Schema {
        let (id, text, time) = (SqlType::Int8, SqlType::Text, SqlType::Timestamp);
        let columns: &[(&str, &SqlType)] = match table {
            Table::Person => &[
                ("id", &id),
                ("name", &text),
                ("email_address", &text),
                ("credit_card", &text),
                ("city", &text),
                ("state", &text),
                ("date_time", &time),
                ("extra", &text),
            ],
            Table::Auction => &[
                ("id", &id),
                ("item_name", &text),
                ("description", &text),
                ("initial_bid", &id),
                ("reserve", &id),
                ("date_time", &time),
                ("expires", &time),
                ("seller", &id),
                ("category", &id),
                ("extra", &text),
            ],
            Table::Bid => &[
                ("auction", &id),
                ("bidder", &id),
                ("price", &id),
                ("channel", &text),
                ("url", &text),
                ("date_time", &time),
                ("extra", &text),
            ],
        };
        Schema::new(columns.iter().map(|(name, ty)| ty.field(*name, false)).collect::<Vec<_>>())
    }

    /// The rows of `table` with the numbers `rows`, of `total` in all, with the columns `columns` (indices into
    /// [`Generator::schema`]) under the names of `schema`.
    ///
    /// # Panics
    /// If `schema` does not have the types of `columns`, or a text column would pass 2 GiB.
    pub fn batch(
        &self,
        table: Table,
        rows: Range<u64>,
        total: u64,
        columns: &[usize],
        schema: &SchemaRef,
    ) -> RecordBatch {
        let count = rows.end.saturating_sub(rows.start) as usize;
        let made = match table {
            Table::Person => self.persons(rows, total, columns),
            Table::Auction => self.auctions(rows, total, columns),
            Table::Bid => self.bids(rows, total, columns),
        };
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(schema.clone(), made, &options)
            .expect("the schema was matched with the generator's columns")
    }

    /// The event numbers of rows, in the order in which they go out: within a group, rows stand 953 places apart, as other
    /// implementations shuffle them.
    fn events(&self, table: Table, rows: Range<u64>, total: u64) -> impl Iterator<Item = u64> {
        let group = self.config.out_of_order_rows;
        rows.map(move |row| {
            if group <= 1 {
                return table.event(row);
            }
            let base = row / group * group;
            let size = group.min(total - base);
            // 953 is prime: it visits every place unless the size is a multiple of it.
            let stride = if size.is_multiple_of(953) { 1 } else { 953 };
            table.event(base + (row - base) * stride % size)
        })
    }

    fn bids(&self, rows: Range<u64>, total: u64, columns: &[usize]) -> Vec<ArrayRef> {
        let count = (rows.end - rows.start) as usize;
        let c = &self.config;
        let wanted: [bool; 7] = std::array::from_fn(|i| columns.contains(&i));
        let mut auction = Vec::with_capacity(count);
        let mut bidder = Vec::with_capacity(count);
        let mut price = Vec::with_capacity(count);
        let mut time = Vec::with_capacity(count);
        let mut channel = Text::new(wanted[3], count, 12);
        let mut url = Text::new(wanted[4], count, 72);
        let mut extra = Text::new(wanted[6], count, c.bid_bytes as usize);
        for event in self.events(Table::Bid, rows, total) {
            let mut stream = Stream::of(c.seed, event);
            let hot = stream.below(c.hot_auction_ratio) > 0;
            auction.push(FIRST_ID as i64 + self.auction_for_bid(event, hot, stream.next()));
            let hot = stream.below(c.hot_bidder_ratio) > 0;
            bidder.push(FIRST_ID as i64 + self.person_for(event, hot, 1, stream.next()));
            price.push(self.prices.at(stream.next()));
            time.push(c.time(event));
            let hot = stream.below(c.hot_channel_ratio) > 0;
            let chosen = Channels::choose(hot, &mut stream);
            channel.push(|out| out.extend_from_slice(self.channels.name(chosen)));
            url.push(|out| out.extend_from_slice(self.channels.url(chosen)));
            let length = extra_bytes(c.bid_bytes, 32, &mut stream);
            let at = stream.next();
            extra.push(|out| self.letters.append(out, at, length));
        }
        let (mut auction, mut bidder, mut price, mut time) =
            (Some(auction), Some(bidder), Some(price), Some(time));
        let (mut channel, mut url, mut extra) = (Some(channel), Some(url), Some(extra));
        collect(columns, |column| match column {
            0 => integers(&mut auction),
            1 => integers(&mut bidder),
            2 => integers(&mut price),
            3 => texts(&mut channel),
            4 => texts(&mut url),
            5 => times(&mut time),
            _ => texts(&mut extra),
        })
    }

    fn auctions(&self, rows: Range<u64>, total: u64, columns: &[usize]) -> Vec<ArrayRef> {
        let count = (rows.end - rows.start) as usize;
        let c = &self.config;
        let [mut id, mut initial, mut reserve, mut time, mut expires, mut seller, mut category] =
            std::array::from_fn(|_| Vec::with_capacity(count));
        let mut item = Text::new(true, count, 16);
        let mut description = Text::new(true, count, 60);
        let mut extra = Text::new(true, count, c.auction_bytes as usize);
        // About how long the auctions in flight last.
        let horizon =
            c.in_flight_auctions * EVENTS_PER_ROUND / Table::Auction.share() * c.interval_nanos / 1_000;
        for event in self.events(Table::Auction, rows, total) {
            let mut stream = Stream::of(c.seed, event);
            id.push((FIRST_ID + newest(Table::Auction, event)) as i64);
            let hot = stream.below(c.hot_seller_ratio) > 0;
            seller.push(FIRST_ID as i64 + self.person_for(event, hot, 0, stream.next()));
            category.push((FIRST_CATEGORY + stream.below(CATEGORIES)) as i64);
            let bid = self.prices.at(stream.next());
            initial.push(bid);
            reserve.push(bid + self.prices.at(stream.next()));
            time.push(c.time(event));
            expires.push(c.time(event) + 1_000 + stream.below((2 * horizon).max(1)) as i64);
            let mut bytes = 8 * 7;
            item.push(|out| append_phrase(out, &mut stream, &self.letters, 20));
            description.push(|out| append_phrase(out, &mut stream, &self.letters, 100));
            bytes += (item.last_bytes() + description.last_bytes()) as u64;
            let length = extra_bytes(c.auction_bytes, bytes, &mut stream);
            let at = stream.next();
            extra.push(|out| self.letters.append(out, at, length));
        }
        let mut numbers = [id, initial, reserve, seller, category].map(Some);
        let (mut time, mut expires) = (Some(time), Some(expires));
        let (mut item, mut description, mut extra) = (Some(item), Some(description), Some(extra));
        collect(columns, |column| match column {
            0 => integers(&mut numbers[0]),
            1 => texts(&mut item),
            2 => texts(&mut description),
            3 => integers(&mut numbers[1]),
            4 => integers(&mut numbers[2]),
            5 => times(&mut time),
            6 => times(&mut expires),
            7 => integers(&mut numbers[3]),
            8 => integers(&mut numbers[4]),
            _ => texts(&mut extra),
        })
    }

    fn persons(&self, rows: Range<u64>, total: u64, columns: &[usize]) -> Vec<ArrayRef> {
        let count = (rows.end - rows.start) as usize;
        let c = &self.config;
        let mut id = Vec::with_capacity(count);
        let mut time = Vec::with_capacity(count);
        let [mut name, mut email, mut card, mut city, mut state] =
            std::array::from_fn(|_| Text::new(true, count, 20));
        let mut extra = Text::new(true, count, c.person_bytes as usize);
        for event in self.events(Table::Person, rows, total) {
            let mut stream = Stream::of(c.seed, event);
            id.push((FIRST_ID + newest(Table::Person, event)) as i64);
            time.push(c.time(event));
            name.push(|out| {
                out.extend_from_slice(pick(&FIRST_NAMES, &mut stream));
                out.push(b' ');
                out.extend_from_slice(pick(&LAST_NAMES, &mut stream));
            });
            email.push(|out| {
                for (most, end) in [(7, "@"), (5, ".com")] {
                    let length = 3 + stream.below(most - 3) as usize;
                    self.letters.append(out, stream.next(), length);
                    out.extend_from_slice(end.as_bytes());
                }
            });
            let digits = stream.below(10_000_000_000_000_000);
            card.push(|out| append_card(out, digits));
            city.push(|out| out.extend_from_slice(pick(&CITIES, &mut stream)));
            state.push(|out| out.extend_from_slice(pick(&STATES, &mut stream)));
            let bytes: usize = [&name, &email, &card, &city, &state].iter().map(|t| t.last_bytes()).sum();
            let length = extra_bytes(c.person_bytes, 16 + bytes as u64, &mut stream);
            let at = stream.next();
            extra.push(|out| self.letters.append(out, at, length));
        }
        let (mut id, mut time) = (Some(id), Some(time));
        let mut words = [name, email, card, city, state, extra].map(Some);
        collect(columns, |column| match column {
            0 => integers(&mut id),
            6 => times(&mut time),
            7 => texts(&mut words[5]),
            word => texts(&mut words[word - 1]),
        })
    }

    /// An auction, from 0, that may get a bid at `event`: hot, else one of those in flight or a little ahead.
    #[inline]
    fn auction_for_bid(&self, event: u64, hot: bool, draw: u64) -> i64 {
        let newest = newest(Table::Auction, event);
        let chosen = if hot {
            newest / HOT_STEP * HOT_STEP
        } else {
            let oldest = newest.saturating_sub(self.config.in_flight_auctions);
            oldest + scale(draw, newest - oldest + 1 + ID_LEAD)
        };
        chosen as i64
    }

    /// A person, from 0, who bids or sells at `event`: hot, else one of the active or a little ahead.
    #[inline]
    fn person_for(&self, event: u64, hot: bool, hot_offset: u64, draw: u64) -> i64 {
        let newest = newest(Table::Person, event);
        let chosen = if hot {
            newest / HOT_STEP * HOT_STEP + hot_offset
        } else {
            let people = newest + 1;
            let active = people.min(self.config.active_people);
            people - active + scale(draw, active + ID_LEAD)
        };
        chosen as i64
    }
}

/// The number, from 0, of the newest row of `table` at `event`; 0 before the first.
#[inline]
fn newest(table: Table, event: u64) -> u64 {
    table.rows(event + 1).saturating_sub(1)
}

#[inline]
fn scale(draw: u64, n: u64) -> u64 {
    ((u128::from(draw) * u128::from(n)) >> 64) as u64
}

/// How many letters bring a row of `bytes` to about `desired`, a fifth more or less.
#[inline]
fn extra_bytes(desired: u64, bytes: u64, stream: &mut Stream) -> usize {
    let missing = desired.saturating_sub(bytes);
    let fifth = missing / 5;
    (missing - fifth + scale(stream.next(), 2 * fifth + 1)) as usize
}

fn pick<'a>(words: &[&'a str], stream: &mut Stream) -> &'a [u8] {
    words[stream.below(words.len() as u64) as usize].as_bytes()
}

/// Sixteen digits in fours.
fn append_card(out: &mut Vec<u8>, digits: u64) {
    let text = format!("{digits:016}");
    for (i, four) in text.as_bytes().chunks(4).enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(four);
    }
}

/// Log-uniform prices from 1.00 to 1,000,000.00, in cents.
///
/// 10^x is read from a table and interpolated, with nothing but IEEE multiplication and addition, so that it is the same on
/// every machine: the libraries' own powers differ in their last digit.
#[derive(Debug)]
struct Prices(Vec<f64>);

impl Prices {
    const STEPS: usize = 1024;
    /// 10^(6/1024)
    const RATIO: f64 = 1.013_583_064_399_391_6;

    fn new() -> Self {
        let mut cents = 100.0;
        let mut table = Vec::with_capacity(Self::STEPS + 2);
        for _ in 0..Self::STEPS + 2 {
            table.push(cents);
            cents *= Self::RATIO;
        }
        Self(table)
    }

    #[inline]
    fn at(&self, draw: u64) -> i64 {
        let place = (draw >> 54) as usize;
        let between = ((draw >> 22) & 0xffff_ffff) as f64 * (1.0 / 4_294_967_296.0);
        let (low, high) = (self.0[place], self.0[place + 1]);
        (low + (high - low) * between + 0.5) as i64
    }
}

/// A text column in the making.
struct Text {
    /// `None` if nobody wants the column: then it costs nothing.
    values: Option<Vec<u8>>,
    offsets: Vec<i32>,
}

impl Text {
    fn new(wanted: bool, rows: usize, bytes_each: usize) -> Self {
        if !wanted {
            return Self { values: None, offsets: Vec::new() };
        }
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { values: Some(Vec::with_capacity(rows * bytes_each)), offsets }
    }

    #[inline]
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(values) = &mut self.values {
            write(values);
            self.offsets.push(i32::try_from(values.len()).expect("batches are bounded far below 2 GiB"));
        }
    }

    fn last_bytes(&self) -> usize {
        match self.offsets[..] {
            [.., before, end] => (end - before) as usize,
            _ => 0,
        }
    }
}

/// Each wanted column, in the order asked for. A column that is asked for twice is copied by reference.
fn collect(columns: &[usize], mut make: impl FnMut(usize) -> ArrayRef) -> Vec<ArrayRef> {
    let mut made: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (i, column) in columns.iter().enumerate() {
        let array = match columns[..i].iter().position(|earlier| earlier == column) {
            Some(earlier) => made[earlier].clone(),
            None => make(*column),
        };
        made.push(array);
    }
    made
}

const ONCE: &str = "each column is taken once";

fn integers(values: &mut Option<Vec<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from(values.take().expect(ONCE)))
}

fn times(values: &mut Option<Vec<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values.take().expect(ONCE)))
}

fn texts(text: &mut Option<Text>) -> ArrayRef {
    let text = text.take().expect(ONCE);
    let values = Buffer::from_vec(text.values.expect("wanted columns are made"));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(text.offsets));
    Arc::new(StringArray::try_new(offsets, values, None).expect("all texts are ASCII"))
}
