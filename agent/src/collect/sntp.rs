//! The device's clock beside a time server's: one SNTP exchange each (RFC 4330).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aizen_protocol::record::{Time, TimeServer};
use aizen_sandbox::clock::is_synchronised;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::Seen;
use super::datagram::Datagram;
use crate::clock;

/// Asks the kernel, if it is to be asked, and every server once, side by side.
pub(crate) async fn collect(
    servers: &[IpAddr],
    kernel_clock: bool,
    deadline: Duration,
) -> Seen<Time> {
    let mut gaps = Vec::new();
    if servers.is_empty() {
        gaps.push("no time server is configured, so the clock was compared with none".to_owned());
    }
    if servers.len() > MAX_SERVERS {
        gaps.push(format!(
            "{} more time servers were left out",
            servers.len() - MAX_SERVERS
        ));
    }
    let servers = join_all(
        servers
            .iter()
            .take(MAX_SERVERS)
            .map(|server| ask(*server, deadline)),
    )
    .await;
    let kernel_synchronised = kernel_clock.then(is_synchronised).and_then(|asked| {
        asked
            .inspect_err(|error| {
                gaps.push(format!(
                    "the kernel does not say whether its clock is synchronised: {error}"
                ));
            })
            .ok()
    });
    Seen {
        value: Time {
            kernel_synchronised,
            servers,
        },
        gaps,
    }
}

async fn ask(server: IpAddr, deadline: Duration) -> TimeServer {
    match exchange(SocketAddr::new(server, PORT), deadline).await {
        Ok(Some(reply)) => TimeServer {
            server,
            offset_ms: reply.offset_ms,
            rtt_us: Some(super::micros(reply.rtt)),
            stratum: Some(reply.stratum),
        },
        Ok(None) | Err(_) => TimeServer {
            server,
            offset_ms: None,
            rtt_us: None,
            stratum: None,
        },
    }
}

async fn exchange(server: SocketAddr, deadline: Duration) -> io::Result<Option<Reply>> {
    let until = Instant::now() + deadline;
    let mut cookie = [0; 8];
    getrandom::fill(&mut cookie).map_err(io::Error::other)?;
    // An all-zero originate timestamp means "never" (RFC 4330, 3).
    cookie[0] |= 1;
    let socket = Datagram::connect(server)?;
    let (sent, sent_at) = (clock::now(), clock::since_boot());
    socket.send(&request(cookie))?;
    let mut datagram = [0; 512];
    while let Ok(received) = timeout_at(until, socket.receive(&mut datagram)).await {
        let rtt = clock::since_boot().0.saturating_sub(sent_at.0);
        if let Some(reply) = judge(&datagram[..received?], cookie, sent, rtt) {
            return Ok(Some(reply));
        }
    }
    Ok(None)
}

/// A client's request. The transmit timestamp is a random number: it is only echoed, and the device's idea of the time
/// is nobody's business.
fn request(cookie: [u8; 8]) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = VERSION_4 | MODE_CLIENT;
    packet[TRANSMIT..].copy_from_slice(&cookie);
    packet
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    offset_ms: Option<i64>,
    rtt: Duration,
    stratum: u8,
}

/// Judges a datagram; none if it is no answer to the request with this cookie. The offset is left out where the server
/// says that its own clock can't be used.
pub(crate) fn judge(
    datagram: &[u8],
    cookie: [u8; 8],
    sent: Timestamp,
    rtt: Duration,
) -> Option<Reply> {
    let packet: &[u8; PACKET] = datagram.first_chunk()?;
    let version = packet[0] >> 3 & 0b111;
    if packet[0] & 0b111 != MODE_SERVER
        || !(1..=4).contains(&version)
        || packet[ORIGINATE..RECEIVE] != cookie
    {
        return None;
    }
    let stratum = packet[1];
    let transmit = moment(packet, TRANSMIT);
    let usable = packet[0] >> 6 != UNSYNCHRONISED
        && (1..=15).contains(&stratum)
        && transmit != moment(&[0; PACKET], 0);
    // T1 and T4 by our clock, T2 and T3 by the server's; T4 by the clock that no step moves.
    let t1 = sent.as_nanosecond();
    let t4 = t1 + i128::try_from(rtt.as_nanos()).ok()?;
    let offset = ((moment(packet, RECEIVE) - t1) + (transmit - t4)) / 2;
    Some(Reply {
        offset_ms: i64::try_from(offset / 1_000_000).ok().filter(|_| usable),
        rtt,
        stratum,
    })
}

/// Nanoseconds since 1970. The highest bit tells 1968 to 2036 from 2036 to 2104 (RFC 4330, 3).
fn moment(packet: &[u8; PACKET], at: usize) -> i128 {
    let field = |at: usize| {
        packet[at..]
            .first_chunk()
            .map_or(0, |b| u32::from_be_bytes(*b))
    };
    let (seconds, fraction) = (field(at), field(at + 4));
    let era = if seconds >> 31 == 1 { 0 } else { 1_i128 << 32 };
    let seconds = i128::from(seconds) + era - FROM_1900_TO_1970;
    seconds * 1_000_000_000 + ((i128::from(fraction) * 1_000_000_000) >> 32)
}

const PACKET: usize = 48;
const ORIGINATE: usize = 24;
const RECEIVE: usize = 32;
const TRANSMIT: usize = 40;
const VERSION_4: u8 = 4 << 3;
const MODE_CLIENT: u8 = 3;
const MODE_SERVER: u8 = 4;
const UNSYNCHRONISED: u8 = 3;
const FROM_1900_TO_1970: i128 = 2_208_988_800;
const PORT: u16 = 123;
const MAX_SERVERS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COOKIE: [u8; 8] = *b"\x01234567a";

    fn answer(server_seconds: u32, stratum: u8) -> [u8; PACKET] {
        let mut packet = [0; PACKET];
        packet[0] = VERSION_4 | MODE_SERVER;
        packet[1] = stratum;
        packet[ORIGINATE..RECEIVE].copy_from_slice(&COOKIE);
        packet[RECEIVE..RECEIVE + 4].copy_from_slice(&server_seconds.to_be_bytes());
        packet[TRANSMIT..TRANSMIT + 4].copy_from_slice(&server_seconds.to_be_bytes());
        packet
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_offset_is_the_servers_clock_minus_ours_at_the_middle_of_the_round_trip() {
        let second = 1_700_000_000_i64;
        let server = u32::try_from(second + 2_208_988_800 + 90).unwrap();
        let reply = judge(
            &answer(server, 2),
            COOKIE,
            at(second),
            Duration::from_millis(200),
        )
        .unwrap();
        assert_eq!(reply.offset_ms, Some(89_900));
    }

    #[test]
    fn a_date_after_2036_is_read_in_the_second_era() {
        let reply = judge(
            &answer(10, 1),
            COOKIE,
            at((1 << 32) - 2_208_988_800),
            Duration::ZERO,
        )
        .unwrap();
        assert_eq!(reply.offset_ms, Some(10_000));
    }

    #[test]
    fn a_kiss_of_death_or_a_server_without_time_gives_no_offset() {
        let now = at(1_700_000_000);
        let kiss = judge(&answer(4_000_000_000, 0), COOKIE, now, Duration::ZERO).unwrap();
        assert_eq!((kiss.offset_ms, kiss.stratum), (None, 0));
        let mut lost = answer(4_000_000_000, 2);
        lost[0] |= UNSYNCHRONISED << 6;
        assert_eq!(
            judge(&lost, COOKIE, now, Duration::ZERO).unwrap().offset_ms,
            None
        );
    }

    #[test]
    fn what_answers_another_request_is_passed_over() {
        let now = at(1_700_000_000);
        let good = answer(4_000_000_000, 2);
        assert_eq!(judge(&good, *b"98765432", now, Duration::ZERO), None);
        assert_eq!(judge(&good[..47], COOKIE, now, Duration::ZERO), None);
        let mut echoed = good;
        echoed[0] = VERSION_4 | MODE_CLIENT;
        assert_eq!(judge(&echoed, COOKIE, now, Duration::ZERO), None);
    }

    #[tokio::test]
    async fn the_kernel_tells_of_its_clock_unless_it_is_not_to_be_asked() {
        let asked = collect(&[], true, Duration::ZERO).await.value;
        assert_eq!(asked.kernel_synchronised, is_synchronised().ok());
        assert!(asked.kernel_synchronised.is_some());
        let unasked = collect(&[], false, Duration::ZERO).await.value;
        assert_eq!(unasked.kernel_synchronised, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), ours in any::<bool>()) {
            if ours && bytes.len() >= PACKET {
                bytes[0] = VERSION_4 | MODE_SERVER;
                bytes[ORIGINATE..RECEIVE].copy_from_slice(&COOKIE);
                prop_assert!(judge(&bytes, COOKIE, Timestamp::MAX, Duration::MAX).is_some());
            }
            let judged = judge(&bytes, COOKIE, Timestamp::MIN, Duration::ZERO);
            prop_assert!(bytes.len() >= PACKET || judged.is_none());
        }
    }
}
