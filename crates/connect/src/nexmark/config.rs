//! The shape of a Nexmark stream: what decides every row of it.

/// The three tables of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Person,
    Auction,
    Bid,
}

/// Of each 50 events the first is a person, the next three are auctions, the others are bids.
pub const EVENTS_PER_ROUND: u64 = 50;

impl Table {
    pub const NAMES: [&str; 3] = ["person", "auction", "bid"];
    pub(crate) const ALL: [Self; 3] = [Self::Person, Self::Auction, Self::Bid];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Events of this table in a round.
    pub const fn share(self) -> u64 {
        match self {
            Self::Person => 1,
            Self::Auction => 3,
            Self::Bid => 46,
        }
    }

    /// The place of its first event in a round.
    pub const fn place(self) -> u64 {
        match self {
            Self::Person => 0,
            Self::Auction => Self::Person.share(),
            Self::Bid => Self::Person.share() + Self::Auction.share(),
        }
    }

    /// The event number of this table's row `row`.
    #[inline]
    pub const fn event(self, row: u64) -> u64 {
        row / self.share() * EVENTS_PER_ROUND + self.place() + row % self.share()
    }

    /// How many of the first `events` events are of this table.
    pub const fn rows(self, events: u64) -> u64 {
        let rest = (events % EVENTS_PER_ROUND).saturating_sub(self.place());
        let rest = if rest < self.share() { rest } else { self.share() };
        events / EVENTS_PER_ROUND * self.share() + rest
    }
}

/// Everything that decides the rows. Two generators with equal configurations make equal rows, on any machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub seed: u64,
    /// The time of event 0, in microseconds since 1970.
    pub start_micros: i64,
    /// Event time between two events.
    pub interval_nanos: u64,
    /// Rows of a table change places within groups of so many; 1 keeps them in order of time.
    pub out_of_order_rows: u64,
    /// The newest so many persons bid and sell.
    pub active_people: u64,
    /// The newest so many auctions get bids.
    pub in_flight_auctions: u64,
    /// Of so many bids, all but one go to the hot auction. 1 is: none is hot.
    pub hot_auction_ratio: u64,
    pub hot_bidder_ratio: u64,
    pub hot_seller_ratio: u64,
    pub hot_channel_ratio: u64,
    /// About how many bytes a row has; `extra` fills up to it.
    pub person_bytes: u64,
    pub auction_bytes: u64,
    pub bid_bytes: u64,
}

impl Config {
    /// 2015-07-15 00:00:00 UTC, where most generators begin.
    pub const START_MICROS: i64 = 1_436_918_400_000_000;
    /// 10,000 events a second.
    pub const INTERVAL_NANOS: u64 = 100_000;

    /// Events whose time is still a timestamp.
    pub fn events_max(&self) -> u64 {
        // 2^62 ns are 146 years after the start.
        (1 << 62) / self.interval_nanos
    }

    /// The time of an event, in microseconds.
    #[inline]
    pub(crate) fn time(&self, event: u64) -> i64 {
        self.start_micros + (event * self.interval_nanos / 1_000) as i64
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            start_micros: Self::START_MICROS,
            interval_nanos: Self::INTERVAL_NANOS,
            out_of_order_rows: 1,
            active_people: 1000,
            in_flight_auctions: 100,
            hot_auction_ratio: 2,
            hot_bidder_ratio: 4,
            hot_seller_ratio: 4,
            hot_channel_ratio: 2,
            person_bytes: 200,
            auction_bytes: 500,
            bid_bytes: 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_events_agree() {
        for table in Table::ALL {
            let events: Vec<u64> = (0..500).map(|row| table.event(row)).collect();
            assert!(events.is_sorted());
            for (row, event) in events.iter().enumerate() {
                assert_eq!(
                    (table.rows(*event), table.rows(event + 1)),
                    (row as u64, row as u64 + 1),
                    "{table:?}"
                );
            }
        }
        assert_eq!(Table::ALL.map(|t| t.rows(1000)), [20, 60, 920]);
    }
}
