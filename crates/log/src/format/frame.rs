//! What the header of a frame adds.

use std::sync::Arc;

use bytes::Bytes;
use millpond_types::{EventTime, Offset, PartitionId, RelationId};

use super::{Bad, Fields};
use crate::{ColumnRange, Producer, WriteKind};

const HAS_WATERMARK: u16 = 1;
const HAS_EVENT_TIME: u16 = 2;
const HAS_POSITION: u16 = 4;
const IS_UPSERT: u16 = 8;
const KNOWN_FLAGS: u16 = HAS_WATERMARK | HAS_EVENT_TIME | HAS_POSITION | IS_UPSERT;

const ENTRY_BYTES: usize = 32;
const FIXED_BYTES: usize = 56;
const RANGE_BYTES: usize = 24;
const HAS_PRODUCER: u32 = 1;
const CONTINUES: u32 = 2;

/// ```text
/// 48 topic u32        52 partition u32     56 base offset u64
/// 64 rows u32         68 schema id u32     72 schema version u32   76 writes u32
/// 80 watermark i64    88 event time i64    96 position bytes u32  100 ranges u32
/// 104 per write: rows u32, flags u32, producer id u64, sequence u64, epoch u32, zero u32
///     per range: column u32, zero u32, min i64, max i64
///     position
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub topic: RelationId,
    pub partition: PartitionId,
    pub base_offset: Offset,
    pub rows: u32,
    pub schema_id: u32,
    pub schema_version: u32,
    pub kind: WriteKind,
    /// W of the topic before this frame.
    pub watermark: Option<EventTime>,
    /// The partition's largest event time after this frame.
    pub event_time: Option<EventTime>,
    pub position: Option<Bytes>,
    /// Never empty.
    pub ranges: Option<Arc<[ColumnRange]>>,
    pub writes: Vec<WriteEntry>,
}

/// Rows of one write, or of neighbours without a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteEntry {
    pub rows: u32,
    pub producer: Option<Producer>,
    /// The write goes on in the next frame of its partition.
    pub continues: bool,
}

impl FrameHeader {
    pub(super) fn flags(&self) -> u16 {
        let mut flags = 0;
        let mut set = |flag, is| flags |= if is { flag } else { 0 };
        set(HAS_WATERMARK, self.watermark.is_some());
        set(HAS_EVENT_TIME, self.event_time.is_some());
        set(HAS_POSITION, self.position.is_some());
        set(IS_UPSERT, self.kind == WriteKind::Upsert);
        flags
    }

    fn ranges(&self) -> &[ColumnRange] {
        self.ranges.as_deref().unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> usize {
        let ranges = RANGE_BYTES * self.ranges().len();
        FIXED_BYTES + ENTRY_BYTES * self.writes.len() + ranges + self.position.as_ref().map_or(0, Bytes::len)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let time = |time: Option<EventTime>| time.map_or(0, |t| t.0).to_le_bytes();
        out.extend(self.topic.0.to_le_bytes());
        out.extend(self.partition.0.to_le_bytes());
        out.extend(self.base_offset.0.to_le_bytes());
        out.extend(self.rows.to_le_bytes());
        out.extend(self.schema_id.to_le_bytes());
        out.extend(self.schema_version.to_le_bytes());
        out.extend((self.writes.len() as u32).to_le_bytes());
        out.extend(time(self.watermark));
        out.extend(time(self.event_time));
        out.extend((self.position.as_ref().map_or(0, Bytes::len) as u32).to_le_bytes());
        out.extend((self.ranges().len() as u32).to_le_bytes());
        for write in &self.writes {
            let producer = write.producer.unwrap_or(Producer { id: 0, epoch: 0, sequence: 0 });
            let flags =
                u32::from(write.producer.is_some()) * HAS_PRODUCER + u32::from(write.continues) * CONTINUES;
            out.extend(write.rows.to_le_bytes());
            out.extend(flags.to_le_bytes());
            out.extend(producer.id.to_le_bytes());
            out.extend(producer.sequence.to_le_bytes());
            out.extend(producer.epoch.to_le_bytes());
            out.extend(0u32.to_le_bytes());
        }
        for range in self.ranges() {
            out.extend(range.column.to_le_bytes());
            out.extend(0u32.to_le_bytes());
            out.extend(range.min.to_le_bytes());
            out.extend(range.max.to_le_bytes());
        }
        if let Some(position) = &self.position {
            out.extend_from_slice(position);
        }
    }

    pub(super) fn decode(flags: u16, mut fields: Fields<'_>) -> Result<Self, Bad> {
        if flags & !KNOWN_FLAGS != 0 {
            return Err(format!("the flags {flags:#x} of a frame are not known"));
        }
        let topic = RelationId(fields.u32()?);
        let partition = PartitionId(fields.u32()?);
        let base_offset = Offset(fields.u64()?);
        let rows = fields.u32()?;
        let schema_id = fields.u32()?;
        let schema_version = fields.u32()?;
        let writes = fields.u32()? as usize;
        let watermark = EventTime(fields.i64()?);
        let event_time = EventTime(fields.i64()?);
        let position_bytes = fields.u32()? as usize;
        let ranges = fields.u32()? as usize;
        let entries =
            fields.bytes(writes.checked_mul(ENTRY_BYTES).ok_or("the list of writes is too long")?)?;
        let writes =
            entries.chunks_exact(ENTRY_BYTES).map(WriteEntry::decode).collect::<Result<Vec<_>, _>>()?;
        let list = fields.bytes(ranges.checked_mul(RANGE_BYTES).ok_or("the list of ranges is too long")?)?;
        let ranges =
            list.chunks_exact(RANGE_BYTES).map(ColumnRange::decode).collect::<Result<Vec<_>, _>>()?;
        let position = Bytes::copy_from_slice(fields.bytes(position_bytes)?);
        fields.end()?;
        if writes.iter().map(|w| u64::from(w.rows)).sum::<u64>() != u64::from(rows) {
            return Err("the writes of a frame do not add up to its rows".to_owned());
        }
        if base_offset.0.checked_add(u64::from(rows)).is_none() {
            return Err("the offsets of a frame pass the end of numbers".to_owned());
        }
        Ok(Self {
            topic,
            partition,
            base_offset,
            rows,
            schema_id,
            schema_version,
            kind: if flags & IS_UPSERT != 0 { WriteKind::Upsert } else { WriteKind::Append },
            watermark: (flags & HAS_WATERMARK != 0).then_some(watermark),
            event_time: (flags & HAS_EVENT_TIME != 0).then_some(event_time),
            position: (flags & HAS_POSITION != 0).then_some(position),
            ranges: (!ranges.is_empty()).then(|| ranges.into()),
            writes,
        })
    }
}

impl ColumnRange {
    fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut fields = Fields(bytes);
        let column = fields.u32()?;
        fields.u32()?;
        Ok(Self { column, min: fields.i64()?, max: fields.i64()? })
    }
}

impl WriteEntry {
    fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut fields = Fields(bytes);
        let (rows, flags) = (fields.u32()?, fields.u32()?);
        let (id, sequence, epoch) = (fields.u64()?, fields.u64()?, fields.u32()?);
        if flags & !(HAS_PRODUCER | CONTINUES) != 0 {
            return Err(format!("the flags {flags:#x} of a write are not known"));
        }
        let producer = (flags & HAS_PRODUCER != 0).then_some(Producer { id, epoch, sequence });
        Ok(Self { rows, producer, continues: flags & CONTINUES != 0 })
    }
}
