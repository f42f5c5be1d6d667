//! Ethernet ports that carry, but badly: duplex, speed, damaged and oversized frames.

mod reading;
mod speed;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Duplex;
use jiff::SignedDuration;

use self::reading::Port;
use super::draft::{Draft, Examined};
use super::reach;
use crate::case::{View, counted};

/// How far back errors are counted.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// Damaged frames in the window that make a fault, if they are also one in [`ONE_IN`] of all. A good cable damages less
/// than one in 10^7 (IEEE 802.3: bit error ratio 10^-12 with frames of up to 12,000 bits).
const DAMAGED: u64 = 10;

const ONE_IN: u64 = 10_000;

/// One in so many makes TCP crawl.
const SEVERE_ONE_IN: u64 = 100;

/// Late collisions in the window: on a healthy half-duplex segment there are none.
const LATE: u64 = 3;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(over) = view.links_over(WINDOW) else {
        return examined;
    };
    let mut counted_ports = 0;
    for port in Port::all(view, &over) {
        counted_ports += usize::from(port.link.counters.is_some());
        if port.duplex() == Some(Duplex::Half) && port.late_collisions() >= LATE {
            examined.drafts.push(mismatch(&port));
        } else if port.is_share(port.damaged()) {
            examined.drafts.push(damage(view, &port));
        }
        if port.is_share(port.length_errors()) {
            examined.drafts.push(giants(view, &port));
        }
        if let Some((now, possible)) = speed::downshift(&port) {
            examined
                .drafts
                .push(speed::slow(view, &port, now, possible));
        }
    }
    if counted_ports > 0 && examined.drafts.is_empty() {
        examined.well.push(format!(
            "No port damages frames: {counted_ports} ports over {} s",
            over.seconds()
        ));
    }
    examined
}

/// This end is half duplex and hears others while it is already deep in a frame: the other end sends whenever it likes.
fn mismatch(port: &Port<'_>) -> Draft {
    let name = &port.link.name;
    let mut draft = port.draft(
        "duplex_mismatch",
        Severity::Warning,
        format!("{name} is half duplex while the other end is full duplex"),
    );
    let late = port.late_collisions();
    let fact = format!("{name} had {late} late collisions in {} s", port.seconds);
    draft.shown("links", "late_collisions", port.at, fact);
    let fact = format!("{name} runs at {}", port.mode());
    draft.shown("ethernet", "duplex", port.driver_at, fact);
    if port
        .now
        .is_some_and(|port| port.autonegotiation == Some(true) && port.partner_mbps.is_none())
    {
        let fact = format!("{name} offers autonegotiation and the other end does not answer it");
        draft.backed("ethernet", "partner", port.driver_at, fact);
    }
    draft.explains(format!(
        "Small packets pass {name}; throughput collapses under load"
    ));
    draft
        .misses("the duplex and the FCS errors of the port at the other end (its own status page)");
    draft.next(format!(
        "Switch autonegotiation on at both ends of {name}; where one end can't, set the same speed and duplex at both"
    ));
    draft
}

/// Checksum errors with full duplex: the cable, a plug, or noise beside it.
fn damage(view: &View<'_>, port: &Port<'_>) -> Draft {
    let name = &port.link.name;
    let (damaged, received) = (port.damaged(), port.received());
    let is_severe = damaged.saturating_mul(SEVERE_ONE_IN) >= received;
    let severity = if is_severe {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let summary = format!("Frames arrive damaged on {name}: cable, plug or noise");
    let mut draft = port.draft("cable_errors", severity, summary);
    let fact = format!(
        "{name} received {damaged} frames with a wrong checksum beside {received} good ones in {} s",
        port.seconds
    );
    draft.shown("links", "crc", port.at, fact);
    let symbols = port.statistic(&["symbolerr", "symerr", "pcserr"]);
    if symbols > 0 {
        let fact = format!("the receiver of {name} counted {symbols} symbol errors");
        draft.shown("ethernet", "symbols", port.driver_at, fact);
    }
    if port.now.is_some() {
        let fact = format!("{name} runs at {}", port.mode());
        draft.noted("ethernet", port.driver_at, fact);
    }
    lost_pings(&mut draft, view, port.link.index);
    let collisions = counted(port.before, port.link, |c| c.collisions).unwrap_or(0);
    if collisions > 0 {
        let fact = format!("{name} had {collisions} collisions as well: its duplex may be wrong");
        draft.contradicted("links", port.at, fact);
    }
    draft.explains(format!("Packets through {name} are lost at random"));
    draft.misses(format!(
        "the duplex of the other end, and a cable test (`ethtool --cable-test {name}`, `aizen links --watch`)"
    ));
    draft.next(format!(
        "Replace the cable of {name} and keep it away from power lines; until then a lower speed may carry better"
    ));
    draft
}

/// Echo requests through this link that were lost, though not all.
fn lost_pings(draft: &mut Draft, view: &View<'_>, index: u32) {
    let targets = view.now().reach.iter().flat_map(|seen| &seen.value);
    for target in targets.map(|reach| reach.target) {
        let Some(ping) = reach::ping(view.now(), target) else {
            continue;
        };
        let lossy = ping.received > 0 && ping.received + 1 < ping.sent;
        if lossy && view.way_to(target).link == Some(index) {
            draft.backed("reach", "loss", ping.at, ping.fact(target));
        }
    }
}

/// Frames longer than the port takes.
fn giants(view: &View<'_>, port: &Port<'_>) -> Draft {
    let name = &port.link.name;
    let (errors, received) = (port.length_errors(), port.received());
    let mut draft = port.draft(
        "frame_too_long",
        Severity::Warning,
        format!("The other end of {name} sends frames longer than it takes"),
    );
    let fact = format!(
        "{name} refused {errors} frames for their length beside {received} good ones in {} s",
        port.seconds
    );
    draft.shown("links", "length", port.at, fact);
    let long = port.statistic(&["toolong", "oversize", "jabber"]);
    if long > 0 {
        let fact = format!("the driver of {name} counted {long} frames that were too long");
        draft.shown("ethernet", "too_long", port.driver_at, fact);
    }
    // The largest frame holds header, two tags and checksum besides the packet.
    let peers = view.now().lldp.as_ref();
    let peer = peers.and_then(|seen| {
        let peer = seen
            .value
            .iter()
            .find(|peer| peer.link == port.link.index)?;
        let largest = peer
            .mtu
            .filter(|mtu| u32::from(*mtu) > port.link.mtu + 26)?;
        Some((seen.at, largest))
    });
    if let Some((at, largest)) = peer {
        let fact = format!(
            "the other end of {name} announces frames of up to {largest} bytes; the MTU here is {}",
            port.link.mtu
        );
        draft.backed("lldp", "largest", at, fact);
    }
    if port.damaged() > port.length_errors() {
        let fact = format!("{name} received more frames with a wrong checksum than long ones");
        draft.contradicted("links", port.at, fact);
    }
    draft.misses(format!(
        "the MTU of the other end, and which frames are long (`tcpdump -e -n -i {name} greater 1515`)"
    ));
    draft.next(format!(
        "Give both ends of {name} the same MTU: {} here, or jumbo frames switched off at the other end",
        port.link.mtu
    ));
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{Body, Ethernet, LinkCounters, Lldp};

    use super::*;
    use crate::fixture::{Evidence, LAN, WAN, healthy, only, verdict};

    fn ethernet() -> Ethernet {
        Ethernet {
            link: WAN,
            speed_mbps: Some(1000),
            duplex: Some(Duplex::Full),
            autonegotiation: Some(true),
            supported_mbps: Some(1000),
            advertised_mbps: Some(1000),
            partner_mbps: Some(1000),
            ..Ethernet::default()
        }
    }

    /// Two rounds between which the counters of the WAN and what its driver says change.
    fn rounds(counts: fn(&mut LinkCounters), driver: fn(&mut Ethernet)) -> [Evidence; 2] {
        let (mut before, mut after) = (healthy(1), healthy(2));
        before.extra.push(Body::Ethernet(vec![ethernet()]));
        let mut port = ethernet();
        driver(&mut port);
        after.extra.push(Body::Ethernet(vec![port]));
        counts(after.link(WAN).counters.as_mut().unwrap());
        [before, after]
    }

    #[test]
    fn late_collisions_on_a_half_duplex_port_are_a_duplex_mismatch_and_no_bad_cable() {
        let rounds = rounds(
            |c| (c.tx_window_errors, c.collisions, c.rx_crc_errors) = (40, 90, 30),
            |e| (e.duplex, e.speed_mbps, e.partner_mbps) = (Some(Duplex::Half), Some(100), None),
        );
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "duplex_mismatch");
        assert_eq!(finding.confidence, Confidence::Certain);
        assert!(finding.evidence[0].fact.0.contains("40 late collisions"));
    }

    #[test]
    fn a_hub_with_collisions_in_time_is_no_mismatch() {
        let rounds = rounds(
            |c| c.collisions = 5_000,
            |e| (e.duplex, e.speed_mbps, e.partner_mbps) = (Some(Duplex::Half), Some(10), None),
        );
        assert_eq!(verdict(&rounds).health, Health::Healthy);
    }

    #[test]
    fn wrong_checksums_that_grow_with_full_duplex_are_the_cable() {
        let mut rounds = rounds(|c| c.rx_crc_errors = 12, |_| {});
        // A gateway that loses some.
        rounds[1].reach[0].received = 2;
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("cable_errors", "wan")
        );
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.confidence, Confidence::Likely);
        assert_eq!(finding.proposal, None);
    }

    #[test]
    fn collisions_beside_wrong_checksums_speak_against_the_cable() {
        let rounds = rounds(
            |c| (c.rx_crc_errors, c.collisions) = (12, 4),
            |e| e.duplex = None,
        );
        let verdict = verdict(&rounds);
        assert_eq!(only(&verdict).contradictions.len(), 1);
    }

    #[test]
    fn frames_of_wrong_length_are_no_damage() {
        let mut rounds = rounds(|c| c.rx_length_errors = 50, |_| {});
        rounds[1].extra.push(Body::Lldp(vec![Lldp {
            link: WAN,
            chassis: "c".into(),
            port: "p".into(),
            system: None,
            pvid: None,
            vlans: vec![],
            mtu: Some(9216),
        }]));
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "frame_too_long");
        assert_eq!(finding.confidence, Confidence::Likely);
    }

    #[test]
    fn errors_that_stand_still_and_a_handful_among_millions_do_not_alarm() {
        let mut still = rounds(
            |c| (c.rx_crc_errors, c.rx_length_errors, c.tx_window_errors) = (900, 900, 900),
            |_| {},
        );
        still[0].link(WAN).counters = still[1].link(WAN).counters;
        let few = rounds(|c| c.rx_crc_errors = 4, |_| {});
        let rare = rounds(
            |c| (c.rx_crc_errors, c.rx_packets) = (15, 40_000_000),
            |_| {},
        );
        let mut rebooted = rounds(|c| c.rx_crc_errors = 500, |_| {});
        rebooted[0].boot = "boot-0";
        let mut guest = rounds(|_| {}, |_| {});
        for evidence in &mut guest {
            evidence.link(LAN).driver_kind = Some("veth".into());
        }
        let counters = guest[1].link(LAN).counters.as_mut().unwrap();
        counters.rx_crc_errors = 500;
        for (number, rounds) in [still, few, rare, rebooted, guest].iter().enumerate() {
            assert_eq!(verdict(rounds).health, Health::Healthy, "{number}");
        }
    }

    #[test]
    fn a_gigabit_pair_at_a_tenth_is_a_downshift() {
        let rounds = rounds(|_| {}, |e| e.speed_mbps = Some(100));
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "link_downshift");
        assert_eq!(finding.confidence, Confidence::Likely);
    }

    #[test]
    fn slower_partners_chosen_speeds_and_sleeping_computers_do_not_alarm() {
        let slower: [fn(&mut Ethernet); 4] = [
            |e| (e.speed_mbps, e.partner_mbps) = (Some(100), Some(100)),
            |e| (e.speed_mbps, e.partner_mbps) = (Some(10), None),
            |e| (e.speed_mbps, e.advertised_mbps) = (Some(100), Some(100)),
            |e| (e.speed_mbps, e.autonegotiation) = (Some(100), Some(false)),
        ];
        for (number, driver) in slower.into_iter().enumerate() {
            let rounds = rounds(|_| {}, driver);
            assert_eq!(verdict(&rounds).health, Health::Healthy, "{number}");
        }
    }
}
