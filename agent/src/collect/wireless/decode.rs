//! Answers of nl80211, read without trust.

use aizen_protocol::private::Name;
use aizen_protocol::record::{Station, Wireless, WirelessMode};

use crate::collect::netlink::attribute::{Attribute, attributes, find, u32_at};
use crate::collect::netlink::generic;

/// One `NL80211_CMD_NEW_INTERFACE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Number of the radio (`NL80211_ATTR_WIPHY`).
    pub(super) radio: Option<u32>,
    pub(super) told: Wireless,
}

impl Interface {
    /// None if it can't be right; no interface for what is no link (P2P devices).
    pub(crate) fn decode(payload: &[u8]) -> Option<Option<Self>> {
        let (_, body) = generic::command(payload)?;
        let Some(link) = find(body, IFINDEX).and_then(Attribute::u32) else {
            return Some(None);
        };
        let (mut radio, mut told) = (None, nothing_but(link));
        for attribute in attributes(body) {
            match attribute.kind {
                WIPHY => radio = attribute.u32(),
                IFTYPE => told.mode = mode(attribute.u32()?),
                SSID => told.ssid = ssid(attribute.value),
                WIPHY_FREQ => told.frequency_mhz = attribute.u32(),
                CHANNEL_WIDTH => told.width_mhz = attribute.u32().and_then(width),
                // In hundredths of dBm.
                TX_POWER_LEVEL => {
                    let level = attribute.u32().map(|level| level.cast_signed() / 100);
                    told.tx_power_dbm = level.and_then(|dbm| i8::try_from(dbm).ok());
                }
                _ => {}
            }
        }
        Some(Some(Self { radio, told }))
    }
}

/// An interface of which nothing is known yet.
pub(super) fn nothing_but(link: u32) -> Wireless {
    Wireless {
        link,
        mode: WirelessMode::Other,
        ssid: None,
        frequency_mhz: None,
        width_mhz: None,
        noise_dbm: None,
        active_ms: None,
        busy_ms: None,
        tx_power_dbm: None,
        stations: Vec::new(),
    }
}

/// One channel of `NL80211_CMD_NEW_SURVEY_RESULTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(super) frequency_mhz: u32,
    pub(super) in_use: bool,
    pub(super) noise_dbm: Option<i8>,
    pub(super) active_ms: Option<u64>,
    pub(super) busy_ms: Option<u64>,
}

/// None for what names no channel.
pub(crate) fn survey(payload: &[u8]) -> Option<Survey> {
    let (_, body) = generic::command(payload)?;
    let info = find(body, SURVEY_INFO)?.value;
    Some(Survey {
        frequency_mhz: find(info, 1)?.u32()?,
        noise_dbm: find(info, 2).and_then(Attribute::u8).map(u8::cast_signed),
        in_use: find(info, 3).is_some(),
        active_ms: find(info, 4).and_then(Attribute::u64),
        busy_ms: find(info, 5).and_then(Attribute::u64),
    })
}

/// One `NL80211_CMD_NEW_STATION`.
pub(crate) fn station(payload: &[u8]) -> Option<Station> {
    let (_, body) = generic::command(payload)?;
    let info = find(body, STA_INFO).map_or(&[][..], |info| info.value);
    let number = |kind| find(info, kind).and_then(Attribute::u32);
    // `struct nl80211_sta_flag_update`: which flags are told, and which of them are set.
    let flags = find(info, 17).and_then(|flags| Some((flags.u32()?, u32_at(flags.value, 4)?)));
    Some(Station {
        mac: find(body, MAC)?.mac()?,
        signal_dbm: find(info, 7).and_then(Attribute::u8).map(u8::cast_signed),
        tx_kbps: find(info, 8).and_then(rate),
        tx_packets: number(10).unwrap_or_default(),
        tx_retries: number(11).unwrap_or_default(),
        tx_failed: number(12).unwrap_or_default(),
        rx_kbps: find(info, 14).and_then(rate),
        connected_s: number(16),
        authorised: flags
            .filter(|(told, _)| told & AUTHORIZED != 0)
            .map(|(_, set)| set & AUTHORIZED != 0),
    })
}

/// `NL80211_RATE_INFO_BITRATE32`, or its 16-bit elder: in 100 kb/s.
fn rate(info: Attribute<'_>) -> Option<u32> {
    let long = find(info.value, 5).and_then(Attribute::u32);
    let short = || find(info.value, 1).and_then(Attribute::u16).map(u32::from);
    Some(long.or_else(short)?.saturating_mul(100))
}

fn mode(kind: u32) -> WirelessMode {
    match kind {
        // The two ends of a P2P group are a station and an access point, too.
        2 | 8 => WirelessMode::Station,
        3 | 4 | 9 => WirelessMode::AccessPoint,
        _ => WirelessMode::Other,
    }
}

/// A network's name is up to 32 bytes of anything (IEEE 802.11, 9.4.2.2).
fn ssid(bytes: &[u8]) -> Option<Name> {
    let bytes = bytes.get(..bytes.len().min(32))?;
    (!bytes.is_empty()).then(|| Name(String::from_utf8_lossy(bytes).into_owned()))
}

/// `NL80211_CHAN_WIDTH_*`, MHz.
fn width(kind: u32) -> Option<u32> {
    Some(match kind {
        0 | 1 => 20,
        2 => 40,
        3 => 80,
        // Twice 80 MHz apart is 160 MHz, too.
        4 | 5 => 160,
        6 => 5,
        7 => 10,
        8 => 1,
        9 => 2,
        10 => 4,
        11 => 8,
        12 => 16,
        13 => 320,
        _ => return None,
    })
}

pub(super) const WIPHY: u16 = 1;
pub(super) const IFINDEX: u16 = 3;
const IFTYPE: u16 = 5;
const MAC: u16 = 6;
const STA_INFO: u16 = 21;
pub(super) const WIPHY_FREQ: u16 = 38;
const SSID: u16 = 52;
const SURVEY_INFO: u16 = 84;
const TX_POWER_LEVEL: u16 = 98;
const CHANNEL_WIDTH: u16 = 159;
/// `1 << NL80211_STA_FLAG_AUTHORIZED`.
const AUTHORIZED: u32 = 1 << 1;

#[cfg(test)]
mod tests {
    use aizen_protocol::private::Mac;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    fn nest(given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    fn message(given: &[(u16, &[u8])]) -> Vec<u8> {
        [vec![7, 1, 0, 0], nest(given)].concat()
    }

    #[test]
    fn an_access_point_tells_its_channel_its_name_and_its_power() {
        let bytes = message(&[
            (WIPHY, &0_u32.to_ne_bytes()),
            (IFINDEX, &5_u32.to_ne_bytes()),
            (IFTYPE, &3_u32.to_ne_bytes()),
            (SSID, b"Caf\xc3\xa9\xff"),
            (WIPHY_FREQ, &5180_u32.to_ne_bytes()),
            (CHANNEL_WIDTH, &3_u32.to_ne_bytes()),
            (TX_POWER_LEVEL, &2000_u32.to_ne_bytes()),
        ]);
        let interface = Interface::decode(&bytes).unwrap().unwrap();
        let expected = Wireless {
            mode: WirelessMode::AccessPoint,
            ssid: Some(Name("Café\u{fffd}".to_owned())),
            frequency_mhz: Some(5180),
            width_mhz: Some(80),
            tx_power_dbm: Some(20),
            ..nothing_but(5)
        };
        assert_eq!((interface.radio, interface.told), (Some(0), expected));
    }

    #[test]
    fn a_device_without_a_link_is_passed_over() {
        let bytes = message(&[
            (WIPHY, &0_u32.to_ne_bytes()),
            (IFTYPE, &10_u32.to_ne_bytes()),
        ]);
        assert_eq!(Interface::decode(&bytes), Some(None));
        assert_eq!(Interface::decode(&bytes[..3]), None);
    }

    #[test]
    fn a_busy_channel_is_told_with_its_noise() {
        let info = nest(&[
            (1, &2437_u32.to_ne_bytes()),
            (2, &[(-92_i8).cast_unsigned()]),
            (3, &[]),
            (4, &1000_u64.to_ne_bytes()),
            (5, &700_u64.to_ne_bytes()),
        ]);
        let expected = Survey {
            frequency_mhz: 2437,
            in_use: true,
            noise_dbm: Some(-92),
            active_ms: Some(1000),
            busy_ms: Some(700),
        };
        assert_eq!(survey(&message(&[(SURVEY_INFO, &info)])), Some(expected));
    }

    #[test]
    fn a_station_tells_signal_rates_retries_and_whether_its_handshake_ended() {
        let rate = nest(&[(1, &650_u16.to_ne_bytes()), (5, &8667_u32.to_ne_bytes())]);
        let old = nest(&[(1, &650_u16.to_ne_bytes())]);
        let info = nest(&[
            (7, &[(-71_i8).cast_unsigned()]),
            (8, &rate),
            (10, &100_u32.to_ne_bytes()),
            (11, &30_u32.to_ne_bytes()),
            (12, &4_u32.to_ne_bytes()),
            (14, &old),
            (16, &60_u32.to_ne_bytes()),
            (17, &[2_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat()),
        ]);
        let told = station(&message(&[(MAC, &[2, 0, 0, 0, 0, 1]), (STA_INFO, &info)]));
        let expected = Station {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            signal_dbm: Some(-71),
            tx_packets: 100,
            tx_retries: 30,
            tx_failed: 4,
            tx_kbps: Some(866_700),
            rx_kbps: Some(65_000),
            connected_s: Some(60),
            authorised: Some(false),
        };
        assert_eq!(told, Some(expected));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop((Interface::decode(&bytes), survey(&bytes), station(&bytes)));
        }
    }
}
