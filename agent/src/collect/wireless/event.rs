//! Notices of nl80211's groups `mlme` and `regulatory`, read without trust.

use aizen_protocol::private::Mac;
use aizen_protocol::record::WirelessChange;

use super::decode::{IFINDEX, WIPHY, WIPHY_FREQ};
use crate::collect::netlink::attribute::{Attribute, find};
use crate::collect::netlink::generic;

/// What happened, where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(super) link: Option<u32>,
    /// Number of the radio, where the kernel names no interface.
    pub(super) radio: Option<u32>,
    pub(super) station: Option<Mac>,
    pub(super) change: WirelessChange,
}

impl Heard {
    /// None for what is of no interest or can't be right.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (command, body) = generic::command(payload)?;
        let (station, change) = match command {
            DEAUTHENTICATE | DISASSOCIATE | UNPROT_DEAUTHENTICATE | UNPROT_DISASSOCIATE => {
                farewell(find(body, FRAME)?.value)?
            }
            // Drivers that do everything themselves tell of no frame.
            DISCONNECT => {
                let reason = find(body, REASON_CODE)?.u16()?;
                (None, WirelessChange::Deauthenticated { reason })
            }
            RADAR_DETECT => (None, radar(find(body, RADAR_EVENT)?.u32()?)?),
            CH_SWITCH_NOTIFY => {
                let frequency_mhz = find(body, WIPHY_FREQ)?.u32()?;
                (None, WirelessChange::Channel { frequency_mhz })
            }
            _ => return None,
        };
        Some(Self {
            link: find(body, IFINDEX).and_then(Attribute::u32),
            radio: find(body, WIPHY).and_then(Attribute::u32),
            station,
            change,
        })
    }
}

/// A management frame (IEEE 802.11, 9.3.3.1): the access point is the third address, whoever of the two spoke; the
/// body of both farewells is a reason.
fn farewell(frame: &[u8]) -> Option<(Option<Mac>, WirelessChange)> {
    let station = frame.get(16..22)?.try_into().ok().map(Mac);
    let &[low, high] = frame.get(24..26)?.first_chunk()?;
    let reason = u16::from_le_bytes([low, high]);
    Some((station, WirelessChange::Deauthenticated { reason }))
}

/// `enum nl80211_radar_event`.
fn radar(event: u32) -> Option<WirelessChange> {
    match event {
        0 => Some(WirelessChange::Radar),
        1 => Some(WirelessChange::AvailabilityCheck { finished: true }),
        // Given up, or begun.
        2 | 5 => Some(WirelessChange::AvailabilityCheck { finished: false }),
        _ => None,
    }
}

const DEAUTHENTICATE: u8 = 39;
const DISASSOCIATE: u8 = 40;
const DISCONNECT: u8 = 48;
const UNPROT_DEAUTHENTICATE: u8 = 70;
const UNPROT_DISASSOCIATE: u8 = 71;
const CH_SWITCH_NOTIFY: u8 = 88;
const RADAR_DETECT: u8 = 94;
const FRAME: u16 = 51;
const REASON_CODE: u16 = 54;
const RADAR_EVENT: u16 = 168;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::netlink::attribute::put;

    fn message(command: u8, given: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![command, 1, 0, 0];
        put(&mut bytes, IFINDEX, &5_u32.to_ne_bytes());
        for (kind, value) in given {
            put(&mut bytes, *kind, value);
        }
        bytes
    }

    /// From the access point 02:…:01 to the station 02:…:02: 4-way handshake timeout.
    const FAREWELL: [u8; 26] = [
        0xc0, 0, 0x3a, 1, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x10, 0, 15, 0,
    ];

    #[test]
    fn a_deauthentication_names_the_access_point_and_the_reason() {
        let heard = Heard::decode(&message(DEAUTHENTICATE, &[(FRAME, &FAREWELL)])).unwrap();
        assert_eq!(heard.link, Some(5));
        assert_eq!(heard.station, Some(Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!(heard.change, WirelessChange::Deauthenticated { reason: 15 });
    }

    #[test]
    fn a_farewell_that_is_cut_off_is_none() {
        for length in 0..FAREWELL.len() {
            let cut = message(DISASSOCIATE, &[(FRAME, &FAREWELL[..length])]);
            assert_eq!(Heard::decode(&cut), None, "{length}");
        }
    }

    #[test]
    fn radar_its_check_and_a_new_channel_are_told_apart() {
        let change = |command, kind, value: u32| {
            let heard = Heard::decode(&message(command, &[(kind, &value.to_ne_bytes())]));
            heard.map(|heard| heard.change)
        };
        assert_eq!(
            change(RADAR_DETECT, RADAR_EVENT, 0),
            Some(WirelessChange::Radar)
        );
        let check = |finished| Some(WirelessChange::AvailabilityCheck { finished });
        assert_eq!(change(RADAR_DETECT, RADAR_EVENT, 1), check(true));
        assert_eq!(change(RADAR_DETECT, RADAR_EVENT, 2), check(false));
        assert_eq!(change(RADAR_DETECT, RADAR_EVENT, 3), None);
        let frequency_mhz = 5500;
        let channel = Some(WirelessChange::Channel { frequency_mhz });
        assert_eq!(change(CH_SWITCH_NOTIFY, WIPHY_FREQ, 5500), channel);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_none(mut bytes in prop::collection::vec(any::<u8>(), 4..200), command in 0_u8..100) {
            bytes[0] = command;
            let known = [39, 40, 48, 70, 71, 88, 94].contains(&command);
            prop_assert!(known || Heard::decode(&bytes).is_none());
        }
    }
}
