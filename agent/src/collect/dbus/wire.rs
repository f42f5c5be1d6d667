//! Messages as bytes: marshalling of D-Bus Specification 0.43, "Type System" and "Message Protocol".

/// The part of a header before its fields' bytes.
pub(crate) const FIXED: usize = 16;

/// A question.
pub(crate) const CALL: u8 = 1;
/// An answer that tells what went wrong.
pub(crate) const ERROR: u8 = 3;

/// Header fields.
pub(crate) const PATH: u8 = 1;
pub(crate) const INTERFACE: u8 = 2;
pub(crate) const MEMBER: u8 = 3;
pub(crate) const ERROR_NAME: u8 = 4;
pub(crate) const REPLY_SERIAL: u8 = 5;
pub(crate) const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What is read of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) big: bool,
    #[cfg(test)]
    pub(crate) serial: u32,
    pub(crate) reply_to: Option<u32>,
    texts: Vec<(u8, String)>,
}

impl Header {
    /// A field that is a text, cut to what people read.
    pub(crate) fn text(&self, code: u8) -> Option<&str> {
        self.texts
            .iter()
            .find_map(|(known, text)| (*known == code).then_some(text.as_str()))
    }
}

/// How many bytes follow the fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) fields: usize,
    pub(crate) body: usize,
}

/// Reads the lengths; none for what is no message or longer than is read.
pub(crate) fn lengths(fixed: &[u8; FIXED]) -> Option<Lengths> {
    let big = endian(fixed)?;
    let word = |at: usize| {
        Reader {
            bytes: fixed,
            at,
            big,
        }
        .u32()
    };
    let body = usize::try_from(word(4)?).ok()?;
    // The header ends at a multiple of 8; the fixed part is one.
    let fields = usize::try_from(word(12)?).ok()?;
    let fields = fields.checked_next_multiple_of(8)?;
    (fields.checked_add(body)? <= MAX_MESSAGE).then_some(Lengths { fields, body })
}

fn endian(fixed: &[u8; FIXED]) -> Option<bool> {
    let [endian, _, _, version, ..] = *fixed;
    match (endian, version) {
        (b'l', 1) => Some(false),
        (b'B', 1) => Some(true),
        _ => None,
    }
}

/// Reads a header.
pub(crate) fn header(fixed: &[u8; FIXED], fields: &[u8]) -> Option<Header> {
    let big = endian(fixed)?;
    let [_, kind, ..] = *fixed;
    let word = |at: usize| {
        Reader {
            bytes: fixed,
            at,
            big,
        }
        .u32()
    };
    let mut header = Header {
        kind,
        big,
        #[cfg(test)]
        serial: word(8)?,
        ..Header::default()
    };
    let end = usize::try_from(word(12)?).ok()?;
    let mut reader = Reader::new(fields.get(..end)?, big);
    while reader.at < end {
        reader.align(8)?;
        let code = reader.u8()?;
        let signature = reader.signature()?;
        match (code, signature) {
            (REPLY_SERIAL, "u") => header.reply_to = Some(reader.u32()?),
            (_, "s" | "o") if header.texts.len() < MAX_FIELDS => {
                header.texts.push((code, short(reader.text()?)));
            }
            (_, signature) => reader.skip(signature)?,
        }
    }
    Some(header)
}

fn short(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME)
        .collect()
}

/// One whole message, little-endian.
pub(crate) fn message(
    kind: u8,
    serial: u32,
    mut fields: Writer,
    signature: &str,
    body: &Writer,
) -> Vec<u8> {
    if !signature.is_empty() {
        fields.field(SIGNATURE, "g").signature(signature);
    }
    let mut whole = Writer::default();
    whole.bytes.extend([b'l', kind, 0, 1]);
    whole.u32(length(&body.bytes));
    whole.u32(serial);
    whole.u32(length(&fields.bytes));
    whole.bytes.extend(&fields.bytes);
    whole.align(8);
    whole.bytes.extend(&body.bytes);
    whole.bytes
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Bytes to send, aligned from the beginning.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Pads to a multiple of `to`.
    pub(crate) fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// A header field, whose value follows.
    pub(crate) fn field(&mut self, code: u8, signature: &str) -> &mut Self {
        self.align(8);
        self.bytes.push(code);
        self.signature(signature)
    }

    /// `u`.
    pub(crate) fn u32(&mut self, number: u32) -> &mut Self {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
        self
    }

    /// `s` or `o`.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.u32(length(text.as_bytes()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self
    }

    /// `g`.
    pub(crate) fn signature(&mut self, signature: &str) -> &mut Self {
        self.bytes
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
        self
    }

    /// An array, whose elements `fill` writes; they are aligned to `to`.
    pub(crate) fn array(&mut self, to: usize, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.u32(0);
        let place = self.bytes.len() - 4;
        self.align(to);
        let start = self.bytes.len();
        fill(self);
        let count = length(self.bytes.get(start..).unwrap_or_default());
        if let Some(slot) = self.bytes.get_mut(place..start) {
            slot.iter_mut()
                .zip(count.to_le_bytes())
                .for_each(|(slot, byte)| *slot = byte);
        }
        self
    }
}

/// Bytes that came, aligned from their beginning. Every read is none beyond the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], big: bool) -> Self {
        Self { bytes, at: 0, big }
    }

    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// `u`.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes = *self.take(4)?.first_chunk()?;
        Some(if self.big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    /// `i`.
    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.u32().map(u32::cast_signed)
    }

    /// `t`.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.align(8)?;
        let bytes = *self.take(8)?.first_chunk()?;
        Some(if self.big {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        })
    }

    /// `s` or `o`.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        let text = self.take(length)?;
        (self.u8()? == 0).then_some(())?;
        std::str::from_utf8(text).ok()
    }

    /// `g`, or what a variant (`v`) begins with.
    pub(crate) fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u8()?);
        let text = self.take(length)?;
        (self.u8()? == 0).then_some(())?;
        std::str::from_utf8(text).ok()
    }

    /// Enters an array whose elements are aligned to `to`; the answer says where it ends.
    pub(crate) fn array(&mut self, to: usize) -> Option<usize> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.align(to)?;
        let end = self.at.checked_add(length)?;
        (end <= self.bytes.len()).then_some(end)
    }

    /// True if there is more of an array that ends at `end`; enters its next element, a struct.
    pub(crate) fn next_struct(&mut self, end: usize) -> bool {
        self.at < end && self.align(8).is_some()
    }

    /// Passes over one value of a plain type, or an array. Nothing else stands in the headers of messages.
    fn skip(&mut self, signature: &str) -> Option<()> {
        match signature {
            "s" | "o" => self.text().map(drop),
            "g" => self.signature().map(drop),
            "u" | "i" | "b" | "h" => self.u32().map(drop),
            "t" | "x" | "d" => self.u64().map(drop),
            "y" => self.u8().map(drop),
            _ => None,
        }
    }
}

/// The specification allows 128 MiB; a list of services is some 100 KiB.
const MAX_MESSAGE: usize = 4 << 20;
const MAX_NAME: usize = 256;
const MAX_FIELDS: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let mut fields = Writer::default();
        fields.field(PATH, "o").text("/a");
        fields.field(MEMBER, "s").text("M");
        let mut body = Writer::default();
        body.text("x");
        let bytes = message(CALL, 7, fields, "s", &body);
        let want = [
            &b"l\x01\x00\x01\x06\x00\x00\x00\x07\x00\x00\x00\x27\x00\x00\x00"[..],
            b"\x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00",
            b"\x03\x01s\x00\x01\x00\x00\x00M\x00\x00\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x01s\x00\x00",
            b"\x01\x00\x00\x00x\x00",
        ]
        .concat();
        assert_eq!(bytes, want);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut fields = Writer::default();
        fields.field(REPLY_SERIAL, "u").u32(9);
        fields.field(DESTINATION, "s").text(":1.5");
        let mut body = Writer::default();
        body.u32(5).array(8, |array| {
            for name in ["first", "second"] {
                array.align(8);
                array.text(name);
            }
        });
        let bytes = message(ERROR, 3, fields, "ua(s)", &body);
        let fixed = bytes.first_chunk().unwrap();
        let lengths = lengths(fixed).unwrap();
        assert_eq!(FIXED + lengths.fields + lengths.body, bytes.len());
        let header = header(fixed, &bytes[FIXED..]).unwrap();
        assert_eq!((header.kind, header.reply_to), (ERROR, Some(9)));
        assert_eq!(header.text(DESTINATION), Some(":1.5"));
        let mut reader = Reader::new(&bytes[FIXED + lengths.fields..], false);
        assert_eq!(reader.u32(), Some(5));
        let end = reader.array(8).unwrap();
        let mut names = Vec::new();
        while reader.next_struct(end) {
            names.push(reader.text().unwrap());
        }
        assert_eq!(names, ["first", "second"]);
        assert_eq!(reader.u32(), None);
    }

    #[test]
    fn a_message_that_is_too_long_or_of_another_version_is_none() {
        let mut fixed = *b"l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00";
        assert!(lengths(&fixed).is_some());
        fixed[7] = 0x7f;
        assert!(lengths(&fixed).is_none());
        fixed[7] = 0;
        fixed[3] = 2;
        assert!(lengths(&fixed).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            mut fixed in any::<[u8; FIXED]>(),
            fields in prop::collection::vec(any::<u8>(), 0..200),
            sane in any::<bool>(),
        ) {
            if sane {
                fixed[0] = b'l';
                fixed[3] = 1;
                fixed[12] = u8::try_from(fields.len()).unwrap();
                fixed[13..16].fill(0);
            }
            lengths(&fixed);
            header(&fixed, &fields);
            let mut reader = Reader::new(&fields, !sane);
            if let Some(end) = reader.array(8) {
                while reader.next_struct(end) && reader.text().is_some() {}
            }
            while reader.signature().is_some() && reader.u64().is_some() {}
        }
    }
}
