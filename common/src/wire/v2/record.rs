//! How a record is written whose value is in the message: it goes to the end of that.

use super::coding::{
    AppendFields as _, Reader, read_attributes, read_content_type, read_tag, write_content_type,
    write_tag,
};
use super::error::MessageError;
use crate::kv::Value;
use crate::record::{Attributes, Content, Record};

const KIND_VALUE: u8 = 0;
const KIND_TOMBSTONE: u8 = 1;

/// The bit beside the kind of a record that has attributes.
const HAS_ATTRIBUTES: u8 = 2;

pub(super) fn read_record(body: &mut Reader<'_>) -> Result<Record, MessageError> {
    let tag = read_tag(body)?;
    let checksum = body.u32()?;
    let kind = body.u8()?;
    let attributes = match kind & HAS_ATTRIBUTES {
        0 => Attributes::NONE,
        _ => read_attributes(body)?,
    };
    let content = match kind & !HAS_ATTRIBUTES {
        KIND_VALUE => Content::Value {
            content_type: read_content_type(body)?,
            value: Value::new(body.rest()).map_err(|_| MessageError::Field)?,
        },
        KIND_TOMBSTONE => Content::Tombstone,
        _ => return Err(MessageError::Field),
    };
    Ok(Record {
        tag,
        attributes,
        content,
        checksum,
    })
}

pub(super) fn write_record(body: &mut Vec<u8>, record: &Record) {
    write_tag(body, record.tag);
    body.put_u32(record.checksum);
    let kind = match &record.content {
        Content::Value { .. } => KIND_VALUE,
        Content::Tombstone => KIND_TOMBSTONE,
    };
    let has_attributes = match record.attributes.is_none() {
        true => 0,
        false => HAS_ATTRIBUTES,
    };
    body.put_u8(kind | has_attributes);
    record.attributes.encode_block(body);
    if let Content::Value {
        content_type,
        value,
    } = &record.content
    {
        write_content_type(body, content_type);
        body.put(value.as_bytes());
    }
}
