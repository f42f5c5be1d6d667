//! Messages of ubus: a head, then attributes inside one another (`blob_attr`), some of them with names (`blobmsg`). All
//! numbers are big-endian, all attributes begin at multiples of four.

use serde_json::{Map, Value};

/// `UBUS_MSG_*` that are heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Hello,
    Status,
    Data,
    Other,
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) sequence: u16,
    body: Vec<u8>,
}

impl Message {
    /// `body` is what stands inside the outermost attribute.
    pub(crate) fn new(head: &[u8; HEAD], body: Vec<u8>) -> Self {
        Self {
            kind: match head[1] {
                0 => Kind::Hello,
                1 => Kind::Status,
                2 => Kind::Data,
                _ => Kind::Other,
            },
            sequence: u16::from_be_bytes([head[2], head[3]]),
            body,
        }
    }

    /// What an attribute of the message holds.
    pub(crate) fn attribute(&self, kind: u8) -> Option<&[u8]> {
        blobs(&self.body)
            .find(|blob| blob.kind == kind)
            .map(|blob| blob.value)
    }
}

/// Length of what follows a head; none if that is no head of ubus, or too much.
pub(crate) fn length(head: &[u8; HEAD]) -> Option<usize> {
    let length = usize::try_from(u32_at(head, 8)? & LENGTH).ok()?;
    let body = length.checked_sub(BLOB)?;
    (head[0] == VERSION && length <= MAX_MESSAGE).then_some(body)
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blob<'a> {
    kind: u8,
    named: bool,
    value: &'a [u8],
}

/// The attributes in `bytes`, up to the first whose length can't be right.
fn blobs(bytes: &[u8]) -> impl Iterator<Item = Blob<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let head = u32_at(rest, 0)?;
        let length = usize::try_from(head & LENGTH).ok()?;
        let value = rest.get(BLOB..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Blob {
            kind: head.to_be_bytes()[0] & KIND,
            named: head & EXTENDED != 0,
            value,
        })
    })
}

/// The number that an attribute holds.
pub(crate) fn u32(value: &[u8]) -> Option<u32> {
    u32_at(value, 0)
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    let chunk = bytes.get(place..)?.first_chunk()?;
    Some(u32::from_be_bytes(*chunk))
}

/// Named attributes as a table; none if they are nested too deep or too many.
pub(crate) fn table(bytes: &[u8]) -> Option<Value> {
    let mut left = MAX_VALUES;
    members(bytes, MAX_DEPTH, &mut left).map(Value::Object)
}

fn members(bytes: &[u8], depth: usize, left: &mut usize) -> Option<Map<String, Value>> {
    let mut table = Map::new();
    for blob in blobs(bytes) {
        let (name, value) = value(blob, depth, left)?;
        table.insert(name, value);
    }
    Some(table)
}

fn value(blob: Blob<'_>, depth: usize, left: &mut usize) -> Option<(String, Value)> {
    let depth = depth.checked_sub(1)?;
    *left = left.checked_sub(1)?;
    let (name, data) = if blob.named {
        named(blob.value)?
    } else {
        (String::new(), blob.value)
    };
    let value = match blob.kind {
        ARRAY => {
            let inner = blobs(data).map(|blob| Some(value(blob, depth, left)?.1));
            Value::Array(inner.collect::<Option<_>>()?)
        }
        TABLE => Value::Object(members(data, depth, left)?),
        STRING => {
            let end = data.iter().position(|byte| *byte == 0);
            let text = &data[..end.unwrap_or(data.len())];
            Value::String(String::from_utf8_lossy(text).into_owned())
        }
        INT64 => i64::from_be_bytes(*data.first_chunk()?).into(),
        INT32 => i32::from_be_bytes(*data.first_chunk()?).into(),
        INT16 => i16::from_be_bytes(*data.first_chunk()?).into(),
        // Nobody sends small numbers: it is how the format says true and false.
        INT8 => (*data.first()? != 0).into(),
        DOUBLE => f64::from_be_bytes(*data.first_chunk()?).into(),
        _ => Value::Null,
    };
    Some((name, value))
}

/// `struct blobmsg_hdr`: the length of the name, the name and a zero byte, filled up to a multiple of four.
fn named(value: &[u8]) -> Option<(String, &[u8])> {
    let length = usize::from(u16::from_be_bytes(*value.first_chunk()?));
    let name = value.get(2..2 + length)?;
    let data = value.get((2 + length + 1).next_multiple_of(4)..)?;
    Some((String::from_utf8_lossy(name).into_owned(), data))
}

/// A whole message around attributes.
pub(crate) fn message(kind: u8, sequence: u16, peer: u32, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![VERSION, kind];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(peer.to_be_bytes());
    put(&mut bytes, 0, attributes);
    bytes
}

/// The attributes of `UBUS_MSG_LOOKUP`.
pub(crate) fn look_up(object: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, PATH, &[object.as_bytes(), b"\0"].concat());
    bytes
}

/// What a method is called with, by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument<'a> {
    Text(&'a str),
    Table(&'a [(&'a str, Self)]),
}

/// The attributes of `UBUS_MSG_INVOKE`.
pub(crate) fn invoke(object: u32, method: &str, arguments: &[(&str, Argument<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, OBJECT, &object.to_be_bytes());
    put(&mut bytes, METHOD, &[method.as_bytes(), b"\0"].concat());
    put(&mut bytes, DATA, &written(arguments));
    bytes
}

fn written(arguments: &[(&str, Argument<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, argument) in arguments {
        match argument {
            Argument::Text(text) => {
                put_named(&mut bytes, STRING, name, &[text.as_bytes(), b"\0"].concat());
            }
            Argument::Table(inner) => put_named(&mut bytes, TABLE, name, &written(inner)),
        }
    }
    bytes
}

/// Appends an attribute with a name (`struct blobmsg_hdr`).
pub(crate) fn put_named(bytes: &mut Vec<u8>, kind: u8, name: &str, data: &[u8]) {
    let Ok(length) = u16::try_from(name.len()) else {
        return;
    };
    let mut named = length.to_be_bytes().to_vec();
    named.extend(name.bytes());
    named.push(0);
    named.resize(named.len().next_multiple_of(4), 0);
    named.extend(data);
    put(bytes, 0x80 | kind, &named);
}

/// Appends an attribute. What we say is short; what is too long to be told is left out.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let Some(length) = u32::try_from(BLOB + value.len())
        .ok()
        .filter(|l| *l <= LENGTH)
    else {
        return;
    };
    bytes.extend((u32::from(kind) << 24 | length).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The message's head and that of its outermost attribute.
pub(crate) const HEAD: usize = 12;
/// `UBUS_MSG_*` that are sent.
pub(crate) const LOOKUP: u8 = 4;
pub(crate) const INVOKE: u8 = 5;
/// `UBUS_ATTR_*`
pub(crate) const STATUS: u8 = 1;
pub(crate) const PATH: u8 = 2;
pub(crate) const OBJECT: u8 = 3;
pub(crate) const METHOD: u8 = 4;
pub(crate) const DATA: u8 = 7;
const VERSION: u8 = 0;
/// Head of an attribute.
const BLOB: usize = 4;
const EXTENDED: u32 = 1 << 31;
const KIND: u8 = 0x7f;
const LENGTH: u32 = 0x00ff_ffff;
/// `BLOBMSG_TYPE_*`
pub(crate) const ARRAY: u8 = 1;
pub(crate) const TABLE: u8 = 2;
pub(crate) const STRING: u8 = 3;
const INT64: u8 = 4;
pub(crate) const INT32: u8 = 5;
const INT16: u8 = 6;
pub(crate) const INT8: u8 = 7;
const DOUBLE: u8 = 8;
/// `UBUS_MAX_MSGLEN`
const MAX_MESSAGE: usize = 1 << 20;
const MAX_DEPTH: usize = 16;
const MAX_VALUES: usize = 50_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::serve::encode;
    use super::*;

    #[test]
    fn a_table_of_the_format_is_read_byte_by_byte() {
        // { "up": true, "n": -2 } as libubox's blobmsg writes it.
        let bytes = [
            0x87, 0, 0, 13, 0, 2, b'u', b'p', 0, 0, 0, 0, 1, 0, 0, 0, //
            0x85, 0, 0, 12, 0, 1, b'n', 0, 0xff, 0xff, 0xff, 0xfe,
        ];
        assert_eq!(table(&bytes), Some(json!({ "up": true, "n": -2 })));
    }

    #[test]
    fn what_was_written_is_read_again() {
        let value = json!({
            "dnsmasq": { "instances": { "cfg1": { "running": true, "command": ["/usr/sbin/dnsmasq", "-C"], "pid": 7 } } },
            "empty": {}, "text": "", "list": [],
        });
        assert_eq!(table(&encode(&value)), Some(value));
    }

    #[test]
    fn arguments_have_the_bytes_of_the_headers() {
        let bytes = written(&[("name", Argument::Text("dnsmasq"))]);
        let want = [&[0x83, 0, 0, 20, 0, 4][..], b"name\0", &[0], b"dnsmasq\0"];
        assert_eq!(bytes, want.concat());
        let data = [("package", Argument::Text("network"))];
        let nested = written(&[("data", Argument::Table(&data))]);
        assert_eq!(
            table(&nested),
            Some(json!({ "data": { "package": "network" } }))
        );
        let mut whole = Vec::new();
        put(&mut whole, METHOD, b"init\0");
        assert_eq!(whole, b"\x04\0\0\x09init\0\0\0\0");
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        let mut value = json!({});
        for _ in 0..=MAX_DEPTH {
            value = json!({ "x": value });
        }
        assert_eq!(table(&encode(&value)), None);
    }

    #[test]
    fn a_head_of_another_version_or_of_too_much_is_refused() {
        let head: [u8; HEAD] = message(LOOKUP, 1, 0, &[0; 8])[..HEAD].try_into().unwrap();
        assert_eq!(length(&head), Some(8));
        let mut other = head;
        other[0] = 1;
        assert_eq!(length(&other), None);
        let mut long = head;
        long[9] = 0xff;
        assert_eq!(length(&long), None);
        let mut short = head;
        short[8..].copy_from_slice(&[0, 0, 0, 3]);
        assert_eq!(length(&short), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(table(&bytes));
            let held: usize = blobs(&bytes).map(|blob| blob.value.len() + BLOB).sum();
            prop_assert!(held <= bytes.len());
        }

        #[test]
        fn any_cut_of_a_table_is_read_or_refused(cut in 0_usize..120) {
            let mut bytes = encode(&json!({ "a": { "b": [1, "x", true], "c": { "d": "text" } } }));
            bytes.truncate(cut);
            drop(table(&bytes));
        }
    }
}
