//! ICMP echo as bytes (RFC 792, RFC 4443 section 4).

/// What a received ICMP message is to somebody who waits for echo replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// A reply to the request with this number.
    Reply(u16),
    /// Something else.
    Noise,
}

/// The first bytes of every payload that is long enough: which run of the program sent it, and which probe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(super) run: u32,
    pub(super) serial: u32,
}

impl Mark {
    pub(super) const LENGTH: usize = 8;

    /// Writes itself to the start of `payload`; a short payload stays without.
    pub(super) fn write(self, payload: &mut [u8]) {
        if let Some(place) = payload.first_chunk_mut::<{ Self::LENGTH }>() {
            place[..4].copy_from_slice(&self.run.to_be_bytes());
            place[4..].copy_from_slice(&self.serial.to_be_bytes());
        }
    }

    /// Reads the start of a payload.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let [r0, r1, r2, r3, s0, s1, s2, s3] = *payload.first_chunk()?;
        Some(Self {
            run: u32::from_be_bytes([r0, r1, r2, r3]),
            serial: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }
}

/// An echo request of `bytes` bytes, ICMP header included. The checksum is left out for IPv6, where the kernel makes
/// it (RFC 3542, 3.1).
pub(crate) fn request(ipv4: bool, identifier: u16, number: u16, bytes: usize) -> Vec<u8> {
    let mut packet = vec![0; bytes.max(HEADER)];
    write_request(&mut packet, ipv4, identifier, number, None);
    packet
}

/// Writes an echo request over `packet`, whose payload stays as it is but for the mark.
pub(super) fn write_request(
    packet: &mut [u8],
    ipv4: bool,
    identifier: u16,
    number: u16,
    mark: Option<Mark>,
) {
    let Some((header, payload)) = packet.split_first_chunk_mut::<HEADER>() else {
        return;
    };
    *header = [0; HEADER];
    header[0] = if ipv4 { ECHO_V4 } else { ECHO_V6 };
    header[4..6].copy_from_slice(&identifier.to_be_bytes());
    header[6..8].copy_from_slice(&number.to_be_bytes());
    if let Some(mark) = mark {
        mark.write(payload);
    }
    if ipv4 {
        let sum = checksum(packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut pairs = bytes.chunks_exact(2);
    let sum = pairs.by_ref().fold(0_u64, |sum, pair| {
        sum + u64::from(u16::from_be_bytes([pair[0], pair[1]]))
    });
    let mut sum = sum
        + pairs
            .remainder()
            .first()
            .map_or(0, |last| u64::from(*last) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Whether a message is a reply, to `identifier` if one is given.
pub(crate) fn judge(icmp: &[u8], ipv4: bool, identifier: Option<u16>) -> Judged {
    match header(icmp) {
        Some((kind, 0, ident, number))
            if kind == (if ipv4 { REPLY_V4 } else { REPLY_V6 })
                && identifier.is_none_or(|wanted| wanted == ident) =>
        {
            Judged::Reply(number)
        }
        _ => Judged::Noise,
    }
}

/// The number of the echo request of ours that an ICMP error quotes. Routers quote at least these 8 bytes.
pub(crate) fn quoted(icmp: &[u8], ipv4: bool, identifier: Option<u16>) -> Option<u16> {
    let (kind, code, ident, number) = header(icmp)?;
    let echo = kind == if ipv4 { ECHO_V4 } else { ECHO_V6 };
    (echo && code == 0 && identifier.is_none_or(|wanted| wanted == ident)).then_some(number)
}

fn header(icmp: &[u8]) -> Option<(u8, u8, u16, u16)> {
    let [kind, code, _, _, i0, i1, n0, n1] = *icmp.first_chunk::<HEADER>()?;
    Some((
        kind,
        code,
        u16::from_be_bytes([i0, i1]),
        u16::from_be_bytes([n0, n1]),
    ))
}

/// The ICMP message inside an IPv4 packet, as a raw socket brings it (raw(7)).
pub(crate) fn inside_ipv4(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    packet.get(header..)
}

/// Bytes of the ICMP header.
pub(super) const HEADER: usize = 8;
const ECHO_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const REPLY_V6: u8 = 129;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_its_size_and_a_checksum_that_sums_to_zero() {
        let packet = request(true, 0x1234, 7, 33);
        assert_eq!(packet.len(), 33);
        assert_eq!(checksum(&packet), 0);
    }

    #[test]
    fn a_reply_counts_by_identifier_and_number() {
        let packet = [0, 0, 0, 0, 0x12, 0x34, 0, 7];
        assert_eq!(judge(&packet, true, Some(0x1234)), Judged::Reply(7));
        assert_eq!(judge(&packet, true, Some(0x1235)), Judged::Noise);
        assert_eq!(judge(&packet, false, None), Judged::Noise);
        assert_eq!(judge(&packet[..7], true, None), Judged::Noise);
    }

    #[test]
    fn a_quoted_request_is_known_by_its_first_eight_bytes() {
        let sent = request(true, 0x1234, 500, 64);
        assert_eq!(quoted(&sent[..8], true, Some(0x1234)), Some(500));
        assert_eq!(quoted(&sent[..8], true, Some(0x4321)), None);
        assert_eq!(quoted(&sent[..7], true, None), None);
        assert_eq!(quoted(&sent, false, None), None);
    }

    #[test]
    fn an_ipv4_header_with_options_is_skipped() {
        let mut packet = vec![0; 24];
        packet[0] = 0x46;
        packet.extend([0, 0, 0, 0, 0, 1, 0, 9]);
        let icmp = inside_ipv4(&packet).unwrap();
        assert_eq!(judge(icmp, true, Some(1)), Judged::Reply(9));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..128), ipv4: bool) {
            prop_assert!(bytes.len() >= HEADER || judge(&bytes, ipv4, Some(1)) == Judged::Noise);
            prop_assert!(bytes.len() >= HEADER || quoted(&bytes, ipv4, None).is_none());
            checksum(&bytes);
            Mark::read(&bytes);
            inside_ipv4(&bytes);
        }

        #[test]
        fn what_is_marked_is_read_back(run: u32, serial: u32, size in 0_usize..64, number: u16, ipv4: bool) {
            let mut packet = vec![0x55; HEADER + size];
            let mark = Mark { run, serial };
            write_request(&mut packet, ipv4, 1, number, Some(mark));
            prop_assert_eq!(Mark::read(&packet[HEADER..]), (size >= Mark::LENGTH).then_some(mark));
            prop_assert_eq!(quoted(&packet, ipv4, Some(1)), Some(number));
            prop_assert!(!ipv4 || checksum(&packet) == 0);
        }
    }
}
