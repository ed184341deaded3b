//! Numbers that must not be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The number of a commit record in the journal: the one global order. A cut is one commit number, and a published
    /// epoch is named by the commit number of its cut (`mp_epoch`). The first commit is 1; 0 is "before everything".
    Commit(u64)
}
number! {
    /// The position of a row in one partition of one topic, counted from 0.
    Offset(u64)
}
number! {
    /// A relation of the catalog; a source or table is also the topic of that number. Never reused.
    RelationId(u32)
}
number! {
    /// A partition of a topic, counted from 0.
    PartitionId(u32)
}
number! {
    /// Event time in microseconds since 1970-01-01 UTC; also the unit of watermarks.
    EventTime(i64)
}

impl Commit {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl EventTime {
    /// Before every row: the watermark of a source that has none yet.
    pub const MIN: Self = Self(i64::MIN);
    /// After every row: the watermark of a bounded source that has ended.
    pub const MAX: Self = Self(i64::MAX);
}
