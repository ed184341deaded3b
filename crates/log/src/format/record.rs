//! The payloads of control records; the tag stands in the flags of the header.

use bytes::Bytes;
use millpond_types::{EventTime, PartitionId, RelationId};

use super::{Bad, Fields};
use crate::Record;

const DDL: u16 = 1;
const TICK: u16 = 2;
const ADVANCE_WATERMARK: u16 = 3;
const PARTITION_IDLE: u16 = 4;

/// The tag and the payload.
pub(crate) fn encode_record(record: &Record) -> (u16, Bytes) {
    match record {
        Record::Ddl(bytes) => (DDL, bytes.clone()),
        Record::Tick(now) => (TICK, Bytes::copy_from_slice(&now.0.to_le_bytes())),
        Record::AdvanceWatermark { topic, to } => {
            (ADVANCE_WATERMARK, [&topic.0.to_le_bytes()[..], &to.0.to_le_bytes()].concat().into())
        }
        Record::PartitionIdle { topic, partition } => {
            (PARTITION_IDLE, [topic.0.to_le_bytes(), partition.0.to_le_bytes()].concat().into())
        }
    }
}

pub(crate) fn decode_record(tag: u16, payload: &[u8]) -> Result<Record, Bad> {
    let mut fields = Fields(payload);
    let record = match tag {
        DDL => return Ok(Record::Ddl(Bytes::copy_from_slice(payload))),
        TICK => Record::Tick(EventTime(fields.i64()?)),
        ADVANCE_WATERMARK => {
            Record::AdvanceWatermark { topic: RelationId(fields.u32()?), to: EventTime(fields.i64()?) }
        }
        PARTITION_IDLE => {
            Record::PartitionIdle { topic: RelationId(fields.u32()?), partition: PartitionId(fields.u32()?) }
        }
        _ => return Err(format!("control records of kind {tag} are not known")),
    };
    if fields.0.is_empty() {
        Ok(record)
    } else {
        Err("a control record is longer than its fields".to_owned())
    }
}
