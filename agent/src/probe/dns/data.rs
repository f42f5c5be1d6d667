//! What records say, in the form that people write (RFC 1035, 5; each type's own RFC). What can't be read as its type
//! says is shown as bytes (RFC 3597, 5): never an error, never dropped.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::cursor::Cursor;
use super::kind::Kind;
use super::name::DomainName;

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// A, AAAA.
    Address(IpAddr),
    /// CNAME, NS, PTR, DNAME.
    Name(DomainName),
    /// Every other type, in presentation form; printable.
    Other(String),
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Reads the content of a record of this type.
pub(super) fn read(kind: Kind, body: Cursor<'_>) -> Data {
    let mut cursor = body.clone();
    known(kind, &mut cursor)
        .filter(|_| cursor.is_at_end())
        .unwrap_or_else(|| Data::Other(unknown(body)))
}

fn known(kind: Kind, c: &mut Cursor<'_>) -> Option<Data> {
    Some(match kind {
        Kind::A => Data::Address(Ipv4Addr::from(c.array::<4>()?).into()),
        Kind::AAAA => Data::Address(Ipv6Addr::from(c.array::<16>()?).into()),
        Kind::CNAME | Kind::NS | Kind::PTR | Kind::DNAME => Data::Name(c.name()?),
        _ => Data::Other(text(kind, c)?),
    })
}

fn text(kind: Kind, c: &mut Cursor<'_>) -> Option<String> {
    Some(match kind {
        Kind::MX => format!("{} {}", c.u16()?, c.name()?),
        Kind::TXT => strings(c)?,
        Kind::SOA => {
            let (server, person) = (c.name()?, c.name()?);
            let [serial, refresh, retry, expire, minimum] =
                [c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u32()?];
            format!("{server} {person} {serial} {refresh} {retry} {expire} {minimum}")
        }
        Kind::SRV => format!("{} {} {} {}", c.u16()?, c.u16()?, c.u16()?, c.name()?),
        Kind::DS => format!("{} {} {} {}", c.u16()?, c.u8()?, c.u8()?, hex(c.rest())),
        Kind::TLSA => format!("{} {} {} {}", c.u8()?, c.u8()?, c.u8()?, hex(c.rest())),
        Kind::DNSKEY => {
            let (flags, protocol, algorithm) = (c.u16()?, c.u8()?, c.u8()?);
            format!(
                "{flags} {protocol} {algorithm} {}",
                STANDARD.encode(c.rest())
            )
        }
        Kind::RRSIG => signature(c)?,
        Kind::CAA => {
            let (flags, tag) = (c.u8()?, c.string()?);
            format!("{flags} {} {}", escaped(tag), quoted(c.rest()))
        }
        Kind::SVCB | Kind::HTTPS => service(c)?,
        _ => return None,
    })
}

/// RFC 4034, 3.2.
fn signature(c: &mut Cursor<'_>) -> Option<String> {
    let (covered, algorithm, labels) = (Kind(c.u16()?), c.u8()?, c.u8()?);
    let (ttl, until, from, tag) = (c.u32()?, c.u32()?, c.u32()?, c.u16()?);
    let (signer, bytes) = (c.name()?, STANDARD.encode(c.rest()));
    let (until, from) = (moment(until), moment(from));
    Some(format!(
        "{covered} {algorithm} {labels} {ttl} {until} {from} {tag} {signer} {bytes}"
    ))
}

/// `YYYYMMDDHHmmSS`; the era after 2106 is not told apart.
fn moment(seconds: u32) -> String {
    Timestamp::from_second(seconds.into()).map_or_else(
        |_| seconds.to_string(),
        |at| at.strftime("%Y%m%d%H%M%S").to_string(),
    )
}

/// RFC 9460, 2.1 and 7.
fn service(c: &mut Cursor<'_>) -> Option<String> {
    let mut text = format!("{} {}", c.u16()?, c.name()?);
    while !c.is_at_end() {
        let (key, length) = (c.u16()?, c.u16()?);
        let mut value = c.part(length.into())?;
        text.push(' ');
        match key {
            1 => {
                let mut protocols = Vec::new();
                while !value.is_at_end() {
                    protocols.push(escaped(value.string()?));
                }
                write!(text, "alpn={}", protocols.join(",")).ok()?;
            }
            2 => text.push_str("no-default-alpn"),
            3 => write!(text, "port={}", value.u16()?).ok()?,
            4 => write!(text, "ipv4hint={}", hints::<4>(&mut value)?).ok()?,
            5 => write!(text, "ech={}", STANDARD.encode(value.rest())).ok()?,
            6 => write!(text, "ipv6hint={}", hints::<16>(&mut value)?).ok()?,
            7 => write!(text, "dohpath={}", escaped(value.rest())).ok()?,
            _ => write!(text, "key{key}={}", quoted(value.rest())).ok()?,
        }
    }
    Some(text)
}

fn hints<const N: usize>(value: &mut Cursor<'_>) -> Option<String>
where
    IpAddr: From<[u8; N]>,
{
    let mut addresses = Vec::new();
    while !value.is_at_end() {
        addresses.push(IpAddr::from(value.array::<N>()?).to_string());
    }
    Some(addresses.join(","))
}

/// At least one character-string, each in quotes.
fn strings(c: &mut Cursor<'_>) -> Option<String> {
    let mut all = vec![quoted(c.string()?)];
    while !c.is_at_end() {
        all.push(quoted(c.string()?));
    }
    Some(all.join(" "))
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escaped(bytes))
}

/// Printable ASCII as it is, every other byte by its number.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            0x20..=0x7e => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:03}")),
        }
    }
    text
}

fn unknown(mut body: Cursor<'_>) -> String {
    let bytes = body.rest();
    format!("\\# {} {}", bytes.len(), hex(bytes))
        .trim_end()
        .to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text of strangers without what moves a cursor or hides the rest, at most `longest` characters.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    let shown = |c: char| {
        // Direction marks and the like turn what follows around.
        let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || turns {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().take(longest).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: Kind, bytes: &[u8]) -> String {
        read(kind, Cursor::new(bytes)).to_string()
    }

    #[test]
    fn each_type_is_shown_as_its_rfc_writes_it() {
        let cases: &[(Kind, &[u8], &str)] = &[
            (Kind::A, b"\xc0\0\x02\x01", "192.0.2.1"),
            (Kind::CNAME, b"\x01a\0", "a."),
            (Kind::MX, b"\0\x0a\x01m\0", "10 m."),
            (Kind::TXT, b"\x03a\"b\x02\x07c", "\"a\\\"b\" \"\\007c\""),
            (
                Kind::SOA,
                b"\x01n\0\x01h\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
                "n. h. 1 2 3 4 5",
            ),
            (Kind::SRV, b"\0\x01\0\x02\0\x35\x01s\0", "1 2 53 s."),
            (Kind::DS, b"\x30\x39\x0d\x02\xab\xcd", "12345 13 2 abcd"),
            (Kind::DNSKEY, b"\x01\x01\x03\x0dkey", "257 3 13 a2V5"),
            (
                Kind::CAA,
                b"\0\x05issueca.example",
                "0 issue \"ca.example\"",
            ),
            (
                Kind::HTTPS,
                b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x04\0\x04\xc0\0\x02\x01",
                "1 . alpn=h2,h3 ipv4hint=192.0.2.1",
            ),
            (
                Kind::RRSIG,
                b"\0\x01\x0d\x02\0\0\x0e\x10\x67\x74\x85\x80\x67\x4d\x02\x80\x30\x39\x01z\0sig",
                "A 13 2 3600 20250101000000 20241202004240 12345 z. c2ln",
            ),
        ];
        for (kind, bytes, text) in cases {
            assert_eq!(shown(*kind, bytes), *text);
        }
    }

    #[test]
    fn what_does_not_fit_its_type_is_shown_as_bytes() {
        assert_eq!(shown(Kind::A, b"\x01\x02"), "\\# 2 0102");
        assert_eq!(shown(Kind::MX, b"\0\x0a\x01m\0x"), "\\# 6 000a016d0078");
        assert_eq!(shown(Kind(65280), b""), "\\# 0");
        let short_hint = b"\0\x01\0\0\x04\0\x03abc";
        assert_eq!(
            shown(Kind::HTTPS, short_hint),
            "\\# 10 00010000040003616263"
        );
    }

    #[test]
    fn text_of_strangers_moves_no_cursor() {
        assert_eq!(printable("a\x1b[2J\u{202e}b", 10), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(printable("abc", 2), "ab");
    }
}
