//! A record's form: length, sequence, hash of the record before, payload, CRC-32.

use super::*;

pub(super) fn encode(sequence: u64, previous: &Digest, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len() + TRAILER);
    bytes.extend_from_slice(&MAGIC);
    // The bound of a record is below 2^32.
    bytes.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&previous.0);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    bytes
}

pub(super) fn chain(previous: &Digest, sequence: u64, payload: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(previous.0);
    hash.update(sequence.to_le_bytes());
    hash.update(payload);
    Digest(hash.finalize().into())
}

pub(super) struct Scan {
    pub(super) payloads: Vec<std::ops::Range<usize>>,
    pub(super) end: usize,
    pub(super) head: Digest,
    pub(super) sequence: u64,
}

struct Header {
    length: usize,
    sequence: u64,
    previous: Digest,
}

fn header(bytes: &[u8]) -> Option<Header> {
    let fixed: &[u8; HEADER] = bytes.first_chunk()?;
    let (checked, crc) = fixed.split_at(HEADER - 4);
    if checked[..4] != MAGIC || crc32fast::hash(checked).to_le_bytes() != *crc {
        return None;
    }
    let length = u32::from_le_bytes(*checked.get(4..)?.first_chunk()?) as usize;
    let sequence = u64::from_le_bytes(*checked.get(8..)?.first_chunk()?);
    let previous = Digest(*checked.get(16..)?.first_chunk()?);
    (length <= RECORD).then_some(Header {
        length,
        sequence,
        previous,
    })
}

/// Walks the records; the error is where and what.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan, (usize, &'static str)> {
    let mut found = Scan {
        payloads: Vec::new(),
        end: 0,
        head: Digest([0; 32]),
        sequence: 0,
    };
    while found.end < bytes.len() {
        let rest = &bytes[found.end..];
        let Some(header) = header(rest) else {
            // Without a header the length is unknown: torn only if no whole header follows.
            return if follows(rest) {
                Err((found.end, "a record's header is damaged"))
            } else {
                Ok(found)
            };
        };
        // The first record of a rotated journal continues an earlier file's chain.
        if found.end == 0 {
            found.head = header.previous;
            found.sequence = header.sequence;
        }
        if header.sequence != found.sequence || header.previous != found.head {
            return Err((found.end, "a record does not continue the one before it"));
        }
        let whole = HEADER + header.length + TRAILER;
        let Some(record) = rest.get(..whole) else {
            return Ok(found);
        };
        let (payload, crc) = record[HEADER..].split_at(header.length);
        if crc32fast::hash(payload).to_le_bytes() != *crc {
            return if rest.len() == whole {
                Ok(found)
            } else {
                Err((found.end, "a record's payload is damaged"))
            };
        }
        found.head = chain(&found.head, found.sequence, payload);
        found.sequence += 1;
        found
            .payloads
            .push(found.end + HEADER..found.end + HEADER + header.length);
        found.end += whole;
    }
    Ok(found)
}

fn follows(rest: &[u8]) -> bool {
    (1..rest.len()).any(|at| rest[at..].starts_with(&MAGIC) && header(&rest[at..]).is_some())
}
