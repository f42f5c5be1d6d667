//! One Ethernet port over the window: what its counters did and what its driver says.

use std::collections::BTreeMap;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Duplex, Ethernet, Link};
use jiff::Timestamp;

use super::{DAMAGED, ONE_IN, WINDOW};
use crate::case::{Over, View, counted, grown};
use crate::expert::draft::{Draft, Layer};

/// One port over the window.
pub(super) struct Port<'a> {
    pub(super) before: &'a Link,
    pub(super) link: &'a Link,
    pub(super) now: Option<&'a Ethernet>,
    pub(super) then: Option<&'a Ethernet>,
    /// When links and drivers were read.
    pub(super) at: Timestamp,
    pub(super) driver_at: Timestamp,
    pub(super) seconds: u64,
}

impl<'a> Port<'a> {
    /// Every port of hardware with a carrier. Errors of a virtual link say nothing about a cable.
    pub(super) fn all(view: &View<'a>, over: &Over<'a>) -> Vec<Self> {
        let drivers = view.now().ethernet.as_ref();
        let span = view.span(WINDOW, |pass| pass.ethernet.as_ref());
        let by_link = |ports: &'a [Ethernet]| -> BTreeMap<u32, &'a Ethernet> {
            ports.iter().map(|port| (port.link, port)).collect()
        };
        let now = drivers.map(|seen| by_link(&seen.value));
        let then = span.map(|(then, _)| by_link(&then.value));
        over.links
            .iter()
            .filter(|(_, link)| {
                let kind = link.driver_kind.as_deref();
                kind.is_none_or(|kind| kind == "dsa")
                    && !link.loopback
                    && link.admin_up
                    && link.carrier != Some(false)
            })
            .map(|&(before, link)| Self {
                before,
                link,
                now: now
                    .as_ref()
                    .and_then(|ports| ports.get(&link.index).copied()),
                then: then
                    .as_ref()
                    .and_then(|ports| ports.get(&link.index).copied()),
                at: over.to,
                driver_at: drivers.map_or(over.to, |seen| seen.at),
                seconds: over.seconds(),
            })
            .collect()
    }

    /// Growth of the driver's counters whose name, in small letters and digits alone, holds one of these.
    pub(super) fn statistic(&self, names: &[&str]) -> u64 {
        let Some((then, now)) = self.then.zip(self.now) else {
            return 0;
        };
        let wanted = |name: &str| {
            let plain: String = name
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .map(|c| c.to_ascii_lowercase())
                .collect();
            names.iter().any(|part| plain.contains(part))
        };
        now.statistics
            .iter()
            .filter_map(|(name, after)| {
                let before = then
                    .statistics
                    .get(name)
                    .filter(|before| *before != after)?;
                grown(*before, *after).filter(|_| wanted(name))
            })
            .max()
            .unwrap_or(0)
    }

    pub(super) fn late_collisions(&self) -> u64 {
        // The kernel's name for them: `tx_window_errors` (if_link.h).
        let counted = counted(self.before, self.link, |c| c.tx_window_errors);
        counted.unwrap_or(0).max(self.statistic(&["latecol"]))
    }

    pub(super) fn damaged(&self) -> u64 {
        counted(self.before, self.link, |c| c.rx_crc_errors).unwrap_or(0)
    }

    pub(super) fn length_errors(&self) -> u64 {
        counted(self.before, self.link, |c| c.rx_length_errors).unwrap_or(0)
    }

    pub(super) fn received(&self) -> u64 {
        counted(self.before, self.link, |c| c.rx_packets).unwrap_or(0)
    }

    pub(super) fn duplex(&self) -> Option<Duplex> {
        self.now.and_then(|port| port.duplex)
    }

    /// True if so many of the frames are a fault of the port and no chance.
    pub(super) fn is_share(&self, frames: u64) -> bool {
        frames >= DAMAGED && frames.saturating_mul(ONE_IN) >= self.received()
    }

    pub(super) fn mode(&self) -> String {
        let Some(port) = self.now else {
            return "speed and duplex not told".into();
        };
        let speed = port
            .speed_mbps
            .map_or_else(|| "unknown speed".into(), |mbps| format!("{mbps} Mb/s"));
        let duplex = match port.duplex {
            Some(Duplex::Full) => "full duplex",
            Some(Duplex::Half) => "half duplex",
            None => "unknown duplex",
        };
        let negotiation = match port.autonegotiation {
            Some(true) => "autonegotiation on",
            Some(false) => "autonegotiation off",
            None => "autonegotiation not told",
        };
        format!("{speed}, {duplex}, {negotiation}")
    }

    pub(super) fn draft(&self, cause: &'static str, severity: Severity, summary: String) -> Draft {
        Draft::new(
            cause,
            Layer::Link,
            self.link.name.as_str(),
            severity,
            summary,
        )
    }
}
