//! Journal files made by tests, byte by byte as the format's description has them.

/// Whether offsets are 32 bits wide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compact(pub(crate) bool);

/// A file with these entries: microseconds and fields. Arrays of entries hold 4, 8, 16, … of them.
pub(crate) fn journal_file(entries: &[(u64, &[&str])], Compact(compact): Compact) -> Vec<u8> {
    let mut file = vec![0; HEADER];
    file[..8].copy_from_slice(b"LPKSHHRH");
    file[12] = if compact { 0x10 } else { 0 };
    put(&mut file, 88, HEADER as u64);
    put(&mut file, 152, entries.len() as u64);
    put(&mut file, 192, entries.last().map_or(0, |entry| entry.0));
    let mut known: Vec<(String, u64)> = Vec::new();
    let mut offsets = Vec::new();
    for (at, fields) in entries {
        let mut items = Vec::new();
        for field in *fields {
            let found = known.iter().find(|(text, _)| text == field);
            items.push(match found {
                Some((_, offset)) => *offset,
                None => {
                    let payload = if compact { 72 } else { 64 };
                    let offset = object(&mut file, 1, payload + field.len());
                    let start = usize::try_from(offset).unwrap() + payload;
                    file[start..start + field.len()].copy_from_slice(field.as_bytes());
                    known.push(((*field).to_owned(), offset));
                    offset
                }
            });
        }
        let width = if compact { 4 } else { 16 };
        let entry = object(&mut file, 3, 64 + items.len() * width);
        put(&mut file, usize::try_from(entry).unwrap() + 24, *at);
        list(
            &mut file,
            usize::try_from(entry).unwrap() + 64,
            &items,
            width,
            compact,
        );
        offsets.push(entry);
    }
    let (mut rest, mut room, mut link) = (&offsets[..], 4, 176);
    while !rest.is_empty() {
        let width = if compact { 4 } else { 8 };
        let array = object(&mut file, 6, 24 + room * width);
        put(&mut file, link, array);
        let (these, others) = rest.split_at(room.min(rest.len()));
        link = usize::try_from(array).unwrap() + 16;
        list(&mut file, link + 8, these, width, compact);
        (rest, room) = (others, room * 2);
    }
    file
}

fn list(file: &mut [u8], start: usize, offsets: &[u64], width: usize, compact: bool) {
    for (place, offset) in offsets.iter().enumerate() {
        let at = start + place * width;
        if compact {
            let offset = u32::try_from(*offset).unwrap();
            file[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        } else {
            put(file, at, *offset);
        }
    }
}

fn object(file: &mut Vec<u8>, kind: u8, size: usize) -> u64 {
    let offset = file.len();
    file.resize((offset + size).next_multiple_of(8), 0);
    file[offset] = kind;
    put(file, offset + 8, size as u64);
    offset as u64
}

fn put(file: &mut [u8], at: usize, number: u64) {
    file[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

const HEADER: usize = 272;
