//! Paths that swallow large packets and tell nobody.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{LinkDetail, PathMtu};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::queue;
use super::unit::list;
use crate::case::{View, Way};
use crate::repair;

/// Smallest answer that still shows a path: below, the target limits echo replies (RFC 791: every host takes 576).
const SMALLEST: u16 = 576;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().path_mtu else {
        return examined;
    };
    let current: Vec<&PathMtu> = seen
        .value
        .iter()
        .filter(|path| is_current(view, path))
        .collect();
    let mut links: Vec<Option<u32>> = Vec::new();
    for path in &current {
        let link = view.way_to(path.target).link;
        if !links.contains(&link) {
            links.push(link);
        }
    }
    for link in links {
        let paths: Vec<&PathMtu> = current
            .iter()
            .copied()
            .filter(|path| view.way_to(path.target).link == link)
            .collect();
        let far = |path: &&&PathMtu| view.way_to(path.target).beyond.is_some();
        let full: Vec<&&PathMtu> = paths.iter().filter(|path| passes_full_size(path)).collect();
        let holes: Vec<&PathMtu> = paths.iter().copied().filter(|path| is_hole(path)).collect();
        // Large packets that come back from outside show that this link's way out carries them.
        let outside_is_well = full.iter().any(far);
        // A queue that overflows loses large packets first: until that is over the size says nothing.
        let overflows = link.is_some_and(|link| queue::overflowed(view, link, seen.at));
        if !holes.is_empty() && !outside_is_well && !overflows {
            examined.drafts.push(hole(
                view,
                seen.at,
                link,
                &holes,
                full.first().map(|path| **path),
            ));
        } else if let Some(path) = full.first() {
            examined.well.push(format!(
                "Full-size packets pass: {} answered {} bytes",
                path.target, path.link_mtu
            ));
        }
    }
    for path in current {
        if let Some(reported) = path.reported.filter(|reported| *reported < path.link_mtu) {
            examined.well.push(format!(
                "Path MTU discovery works towards {}: a router reported {reported} bytes",
                path.target
            ));
        }
    }
    examined
}

/// False for a measurement that was made before the link got another MTU: it is told again until the next one.
fn is_current(view: &View<'_>, path: &PathMtu) -> bool {
    let link = view
        .way_to(path.target)
        .link
        .and_then(|link| view.link(link));
    link.is_none_or(|link| u16::try_from(link.mtu).unwrap_or(u16::MAX) == path.link_mtu)
}

fn passes_full_size(path: &PathMtu) -> bool {
    path.largest_answered
        .is_some_and(|largest| largest >= path.link_mtu)
}

/// Small packets answered, larger ones lost, and no router said why. Where all sizes are lost it is loss, not MTU.
fn is_hole(path: &PathMtu) -> bool {
    match (path.largest_answered, path.smallest_lost) {
        (Some(largest), Some(lost)) => {
            path.reported.is_none()
                && (SMALLEST..path.link_mtu).contains(&largest)
                && largest < lost
                && lost <= path.link_mtu
        }
        _ => false,
    }
}

fn hole(
    view: &View<'_>,
    at: Timestamp,
    link: Option<u32>,
    holes: &[&PathMtu],
    near: Option<&PathMtu>,
) -> Draft {
    let name = link.map_or_else(|| "an unknown link".into(), |link| view.link_name(link));
    // The smallest suits every path.
    let fits = holes
        .iter()
        .filter_map(|path| path.largest_answered)
        .min()
        .unwrap_or(SMALLEST);
    let link_mtu = holes.iter().map(|path| path.link_mtu).max().unwrap_or(fits);
    let mut draft = Draft::new(
        cause(view, link),
        Layer::Path,
        name.as_str(),
        Severity::Critical,
        format!("Packets above {fits} bytes leave {name} and vanish without an error message"),
    );
    for path in holes {
        let answered = path.largest_answered.unwrap_or(fits);
        let lost = path.smallest_lost.unwrap_or(link_mtu);
        let fact = format!(
            "{} answered {answered} bytes with \"don't fragment\"; {lost} bytes were lost and no router reported an MTU \
             (the link has {})",
            path.target, path.link_mtu
        );
        draft.shown("path_mtu", &path.target.to_string(), at, fact);
    }
    if let Some(path) = near {
        let fact = format!(
            "{} on the link itself answered {} bytes, so the hole is farther away",
            path.target, path.link_mtu
        );
        draft.noted("path_mtu", at, fact);
    }
    small_packets_pass(&mut draft, view, holes);
    draft.rests_on = Some(Way { link, beyond: None });
    draft.explains("Small requests work; downloads, TLS handshakes and large mails stall");
    draft.misses(
        "the hop where large packets vanish (`aizen trace` with path MTU to one of the targets)",
    );
    if holes.len() == 1 {
        draft.misses("a second target beyond the gateway with the same limit (`aizen ping -s` with large sizes)");
    }
    draft.next(format!(
        "Lower the MTU of {name} from {link_mtu} to {fits} or clamp the TCP MSS; ask the provider for the line's MTU \
         ({} is usual for PPPoE) and let ICMP \"fragmentation needed\" through firewalls",
        1492
    ));
    draft.propose(repair::link::lower_mtu(
        view,
        link,
        fits,
        list(holes.iter().map(|path| path.target)),
        holes,
    ));
    draft
}

/// In a tunnel what doesn't fit is what the tunnel adds.
fn cause(view: &View<'_>, link: Option<u32>) -> &'static str {
    let link = link.and_then(|link| view.link(link));
    let is_tunnel = link.is_some_and(|link| {
        matches!(link.detail, Some(LinkDetail::Tunnel { .. }))
            || matches!(
                link.driver_kind.as_deref(),
                Some("wireguard" | "tun" | "xfrm")
            )
    });
    if is_tunnel {
        "vpn_mtu"
    } else {
        "mtu_black_hole"
    }
}

/// The same targets answer small echo requests without loss: it is the size.
fn small_packets_pass(draft: &mut Draft, view: &View<'_>, holes: &[&PathMtu]) {
    for path in holes {
        let Some(ping) = super::reach::ping(view.now(), path.target).filter(|ping| ping.sent > 0)
        else {
            continue;
        };
        if ping.received == ping.sent {
            draft.backed(
                "reach",
                &path.target.to_string(),
                ping.at,
                ping.fact(path.target),
            );
        } else {
            draft.contradicted(
                "reach",
                ping.at,
                format!("{}: small packets are lost as well", ping.fact(path.target)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::Body;

    use crate::fixture::machine::{history, queue};
    use crate::fixture::{
        ANCHOR, FAR_ANCHOR, GATEWAY, RESOLVER, healthy, only, path, swallow_large_packets, verdict,
    };

    #[test]
    fn a_black_hole_is_told_by_several_targets_and_lowers_the_mtu_to_what_passes() {
        let mut broken = healthy(1);
        swallow_large_packets(&mut broken);
        // The first hop takes full size: the hole is beyond it.
        broken.path_mtu.push(path(GATEWAY, Some(1500), None));
        let verdict = broken.verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.component.0.as_str(), finding.confidence),
            ("wan", Confidence::Certain)
        );
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change link set wan mtu 1412\n"),
            "{script}"
        );
    }

    #[test]
    fn a_hole_inside_a_tunnel_is_the_tunnels_mtu() {
        let mut broken = healthy(1);
        swallow_large_packets(&mut broken);
        broken.link(crate::fixture::WAN).driver_kind = Some("wireguard".into());
        let verdict = broken.verdict();
        assert_eq!(only(&verdict).cause.0, "vpn_mtu");
        assert!(only(&verdict).proposal.is_some());
    }

    #[test]
    fn what_only_looks_like_a_black_hole_does_not_alarm() {
        let mut reported = path(ANCHOR, Some(1420), Some(1421));
        reported.reported = Some(1420);
        let look_alikes = [
            // A router says so: path MTU discovery works.
            vec![reported],
            // Loss of all sizes.
            vec![path(ANCHOR, None, Some(576))],
            // One target that limits its replies, while another takes full size.
            vec![
                path(FAR_ANCHOR, Some(1000), Some(1001)),
                path(ANCHOR, Some(1500), None),
            ],
            // The search wasn't finished.
            vec![path(ANCHOR, Some(1400), None)],
            vec![path(ANCHOR, None, None)],
        ];
        for paths in look_alikes {
            let mut evidence = healthy(1);
            evidence.path_mtu.clone_from(&paths);
            assert_eq!(evidence.verdict().health, Health::Healthy, "{paths:?}");
        }
    }

    #[test]
    fn a_queue_that_overflows_loses_large_packets_first_and_is_no_black_hole() {
        let rounds = |dropped: u32| {
            history(2, move |round, evidence| {
                swallow_large_packets(evidence);
                let mut queue = queue(round);
                queue.kind = "tbf".into();
                queue.drops = u32::try_from(round).unwrap() * dropped;
                evidence.see(Body::Queues(vec![queue]));
            })
        };
        assert_eq!(verdict(&rounds(20_000)).findings, []);
        assert_eq!(only(&verdict(&rounds(5))).cause.0, "mtu_black_hole");
    }

    #[test]
    fn a_measurement_from_before_the_mtu_was_lowered_does_not_alarm() {
        let mut mended = healthy(1);
        swallow_large_packets(&mut mended);
        mended.link(crate::fixture::WAN).mtu = 1412;
        assert_eq!(mended.verdict().health, Health::Healthy);
    }

    #[test]
    fn loss_of_small_packets_speaks_against_it_and_a_limit_below_ipv6_is_not_proposed() {
        let mut broken = healthy(1);
        broken.path_mtu = vec![path(RESOLVER, Some(1100), Some(1101))];
        broken.reach[1].received = 3;
        let verdict = broken.verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.contradictions.len(), finding.confidence),
            (1, Confidence::Suspected)
        );
        assert_eq!(finding.proposal, None);
    }
}
