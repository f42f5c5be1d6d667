//! Wi-Fi: interfaces, channels, stations and what happened on the air (nl80211, linux/nl80211.h).

pub(crate) mod decode;
pub(crate) mod event;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;

use aizen_protocol::record::{Radio, Wireless, WirelessEvent, WirelessMode};

use self::decode::Interface;
use self::event::Heard;
use super::netlink::attribute::put;
use super::netlink::ear::Ear;
use super::netlink::generic::{self, Family};
use super::netlink::{self, NetlinkError, Part};
use super::{CollectError, Seen};
use crate::clock;

/// What was heard since this program runs.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    ear: Option<Ear>,
    events: VecDeque<WirelessEvent>,
}

/// All wireless interfaces; nothing, and no gap, where there is no radio. `root` stands before `/sys`.
pub(crate) async fn collect(root: &Path, memory: &mut Memory) -> Result<Seen<Radio>, CollectError> {
    let mut seen = Seen {
        value: Radio::default(),
        gaps: Vec::new(),
    };
    if lacks_wireless(root) {
        return Ok(seen);
    }
    let Some(family) = generic::family("nl80211").await? else {
        if has_radio(root) {
            seen.gaps
                .push("there is a radio, but this kernel has no nl80211".to_owned());
        }
        return Ok(seen);
    };
    let question = generic::question(family.id, NL80211_CMD_GET_INTERFACE, &[]);
    let interfaces =
        netlink::dump_parts(&question, |p| Interface::decode(p.payload), |_| false).await?;
    let interfaces = interfaces.seen("wireless interfaces");
    seen.gaps.extend(interfaces.gaps);
    memory.hear(&family, &interfaces.value)?;
    seen.value.events = memory.events.iter().cloned().collect();
    for interface in interfaces.value {
        let mut told = interface.told;
        survey(&family, &mut told, &mut seen.gaps).await;
        if told.mode != WirelessMode::Other {
            stations(&family, &mut told, &mut seen.gaps).await;
        }
        seen.value.interfaces.push(told);
    }
    Ok(seen)
}

/// True if the kernel shows its classes of devices, and none for radios (net/wireless/sysfs.c).
fn lacks_wireless(root: &Path) -> bool {
    let classes = root.join("sys/class");
    !classes.join("ieee80211").exists() && classes.join("net").exists()
}

fn has_radio(root: &Path) -> bool {
    fs::read_dir(root.join("sys/class/ieee80211")).is_ok_and(|mut radios| radios.next().is_some())
}

/// The channel in use: noise and how busy it is. Drivers that can't say so leave these out.
async fn survey(family: &Family, told: &mut Wireless, gaps: &mut Vec<String>) {
    let question = about(family, NL80211_CMD_GET_SURVEY, told.link);
    let decode = |part: &Part<'_>| Some(decode::survey(part.payload));
    match netlink::dump_parts(&question, decode, |_| false).await {
        Ok(dump) => {
            let frequency = told.frequency_mhz;
            let used = |s: &&decode::Survey| s.in_use || Some(s.frequency_mhz) == frequency;
            if let Some(channel) = dump.items.iter().find(used) {
                told.noise_dbm = channel.noise_dbm;
                told.active_ms = channel.active_ms;
                told.busy_ms = channel.busy_ms;
            }
        }
        Err(error) if is_unsupported(&error) => {}
        Err(error) => gaps.push(format!("the channel of link {}: {error}", told.link)),
    }
}

async fn stations(family: &Family, told: &mut Wireless, gaps: &mut Vec<String>) {
    let question = about(family, NL80211_CMD_GET_STATION, told.link);
    let decode = |part: &Part<'_>| decode::station(part.payload).map(Some);
    match netlink::dump_parts(&question, decode, |_| false).await {
        Ok(dump) => {
            let seen = dump.seen("stations");
            gaps.extend(seen.gaps);
            told.stations = seen.value;
        }
        Err(error) if is_unsupported(&error) => {}
        Err(error) => gaps.push(format!("the stations of link {}: {error}", told.link)),
    }
}

fn about(family: &Family, command: u8, link: u32) -> netlink::Question {
    let mut body = Vec::new();
    put(&mut body, decode::IFINDEX, &link.to_ne_bytes());
    generic::question(family.id, command, &body)
}

fn is_unsupported(error: &NetlinkError) -> bool {
    matches!(error, NetlinkError::Refused(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP))
}

impl Memory {
    /// Takes what the kernel told since the last call; the first call with an interface subscribes.
    fn hear(&mut self, family: &Family, interfaces: &[Interface]) -> io::Result<()> {
        if interfaces.is_empty() {
            self.ear = None;
            return Ok(());
        }
        let Some(ear) = self.ear.take() else {
            let wanted = ["mlme", "regulatory"].iter();
            let groups: Vec<u32> = wanted
                .filter_map(|g| family.groups.get(*g).copied())
                .collect();
            self.ear = Some(Ear::generic(&groups)?);
            return Ok(());
        };
        ear.hear(|part| {
            if let Some(heard) = Heard::decode(part.payload) {
                self.keep(heard, interfaces);
            }
        })?;
        self.ear = Some(ear);
        Ok(())
    }

    fn keep(&mut self, heard: Heard, interfaces: &[Interface]) {
        let on_radio = |i: &&Interface| i.radio.is_some() && i.radio == heard.radio;
        let link = heard
            .link
            .or_else(|| interfaces.iter().find(on_radio).map(|i| i.told.link));
        let Some(link) = link else { return };
        // Of a frame and of the end of the connection that it brought, one is enough.
        let repeats = |last: &WirelessEvent| last.link == link && last.change == heard.change;
        if heard.station.is_none() && self.events.back().is_some_and(repeats) {
            return;
        }
        self.events.push_back(WirelessEvent {
            at: clock::now(),
            link,
            station: heard.station,
            change: heard.change,
        });
        while self.events.len() > MOST_EVENTS {
            self.events.pop_front();
        }
    }
}

const NL80211_CMD_GET_INTERFACE: u8 = 5;
const NL80211_CMD_GET_STATION: u8 = 17;
const NL80211_CMD_GET_SURVEY: u8 = 50;
/// As the record promises.
const MOST_EVENTS: usize = 256;

#[cfg(test)]
mod tests {
    use aizen_protocol::private::Mac;
    use aizen_protocol::record::WirelessChange;

    use super::*;

    fn interface(link: u32, radio: u32) -> Interface {
        Interface {
            radio: Some(radio),
            told: decode::nothing_but(link),
        }
    }

    fn deauthenticated(station: Option<Mac>) -> Heard {
        Heard {
            link: Some(3),
            radio: None,
            station,
            change: WirelessChange::Deauthenticated { reason: 15 },
        }
    }

    #[test]
    fn a_radar_event_without_an_interface_belongs_to_one_of_its_radio() {
        let mut memory = Memory::default();
        let radar = Heard {
            link: None,
            radio: Some(1),
            station: None,
            change: WirelessChange::Radar,
        };
        memory.keep(radar, &[interface(3, 0), interface(4, 1)]);
        assert_eq!(memory.events[0].link, 4);
    }

    #[test]
    fn a_frame_and_the_disconnect_that_follows_are_one_event() {
        let mut memory = Memory::default();
        memory.keep(deauthenticated(Some(Mac([2, 0, 0, 0, 0, 1]))), &[]);
        memory.keep(deauthenticated(None), &[]);
        assert_eq!(memory.events.len(), 1);
        memory.keep(deauthenticated(Some(Mac([2, 0, 0, 0, 0, 1]))), &[]);
        assert_eq!(memory.events.len(), 2);
    }

    #[test]
    fn the_newest_events_are_kept() {
        let mut memory = Memory::default();
        for n in 0..300_u16 {
            let [a, b] = n.to_be_bytes();
            memory.keep(deauthenticated(Some(Mac([2, 0, 0, 0, a, b]))), &[]);
        }
        assert_eq!(memory.events.len(), MOST_EVENTS);
        assert_eq!(memory.events[0].station, Some(Mac([2, 0, 0, 0, 0, 44])));
    }

    #[test]
    fn a_device_without_a_radio_tells_nothing_and_has_no_gap() {
        let root = tempfile::tempdir().unwrap();
        assert!(!has_radio(root.path()));
        assert!(!lacks_wireless(root.path()), "nobody knows without /sys");
        fs::create_dir_all(root.path().join("sys/class/net")).unwrap();
        assert!(lacks_wireless(root.path()));
        fs::create_dir_all(root.path().join("sys/class/ieee80211/phy0")).unwrap();
        assert!(has_radio(root.path()));
        assert!(!lacks_wireless(root.path()));
    }
}
