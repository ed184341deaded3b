//! The columns that the log knows of each row of a source: `_partition, _offset, _commit, _ingest_time, _watermark`.
//!
//! They resolve when a statement names them and are no part of `*`.

use arrow::datatypes::Field;
use millpond_types::SqlType;

/// A column that every source has without declaring it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metadata {
    Partition,
    Offset,
    Commit,
    IngestTime,
    Watermark,
}

impl Metadata {
    pub const ALL: [Self; 5] =
        [Self::Partition, Self::Offset, Self::Commit, Self::IngestTime, Self::Watermark];

    pub fn name(self) -> &'static str {
        match self {
            Self::Partition => "_partition",
            Self::Offset => "_offset",
            Self::Commit => "_commit",
            Self::IngestTime => "_ingest_time",
            Self::Watermark => "_watermark",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// `_watermark` has the type of the column that the watermark is declared on (`time`), timestamp without one; it is NULL
    /// before the first watermark, and the largest value once a bounded source has ended.
    pub fn sql_type(self, time: Option<&SqlType>) -> SqlType {
        match self {
            Self::Partition => SqlType::Int4,
            Self::Offset | Self::Commit => SqlType::Int8,
            Self::IngestTime => SqlType::Timestamptz,
            Self::Watermark => match time {
                Some(SqlType::Timestamptz) => SqlType::Timestamptz,
                _ => SqlType::Timestamp,
            },
        }
    }

    pub fn field(self, time: Option<&SqlType>) -> Field {
        self.sql_type(time).field(self.name(), self == Self::Watermark)
    }
}
