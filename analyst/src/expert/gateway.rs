//! The next hop of the default route: dead, or only unwilling to answer echo requests.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{NeighbourState, Route};

use super::draft::{Draft, Examined, Layer};
use super::reach::{self, Far};
use super::unit::list;
use crate::case::{Family, View, Way, default_route, growth, has_default};

/// What one way of looking says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Alive,
    Dead,
    Unclear,
}

/// A gateway as three independent ways of looking show it.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) address: IpAddr,
    pub(super) link: Option<u32>,
    neighbour: Sign,
    echo: Sign,
    beyond: Sign,
    /// It answered echo requests earlier in this boot.
    answered_before: bool,
    pub(super) far: Vec<Far>,
}

impl Gateway {
    /// The gateway of the default route that counts; none without one.
    pub(super) fn of(view: &View<'_>, family: Family) -> Option<Self> {
        let route = default_route(view.routes(), family)?;
        let address = route.gateway?;
        let far = reach::far(view, family, Some(address));
        let beyond = if far.iter().any(|far| far.answered) {
            Sign::Alive
        } else if reach::all_silent(&far).is_empty() {
            Sign::Unclear
        } else {
            Sign::Dead
        };
        Some(Self {
            address,
            link: route.link,
            neighbour: neighbour_sign(view, route, address),
            echo: echo_sign(view, address),
            beyond,
            answered_before: view
                .this_boot()
                .filter_map(|pass| reach::ping(pass, address))
                .any(|ping| ping.received > 0),
            far,
        })
    }

    /// True if at least two ways of looking agree and none shows life. An entry that is still `REACHABLE` outlives the
    /// gateway by up to 45 s (RFC 4861 timers), so a gateway that used to answer is not saved by it.
    pub(super) fn is_dead(&self, family: Family) -> bool {
        if self.echo == Sign::Alive || self.beyond == Sign::Alive {
            return false;
        }
        let dead = [self.neighbour, self.echo, self.beyond]
            .iter()
            .filter(|sign| **sign == Sign::Dead)
            .count();
        match self.neighbour {
            Sign::Alive => dead == 2 && self.answered_before,
            // A link-local IPv6 gateway can't be pinged without its scope: its neighbour entry decides.
            Sign::Unclear => dead == 2 && family == Family::V4,
            Sign::Dead => dead >= 2,
        }
    }

    /// True if it showed life itself.
    pub(super) fn is_alive(&self) -> bool {
        self.echo == Sign::Alive || self.neighbour == Sign::Alive
    }
}

fn neighbour_sign(view: &View<'_>, route: &Route, address: IpAddr) -> Sign {
    let all = view.now().neighbours.iter().flat_map(|seen| &seen.value);
    let mut entries = all.filter(|entry| {
        entry.address == address && route.link.is_none_or(|link| link == entry.link)
    });
    match entries.next().map(|entry| entry.state) {
        Some(NeighbourState::Reachable) => Sign::Alive,
        Some(NeighbourState::Failed | NeighbourState::Incomplete) => Sign::Dead,
        Some(
            NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent
            | NeighbourState::None,
        )
        | None => Sign::Unclear,
    }
}

fn echo_sign(view: &View<'_>, address: IpAddr) -> Sign {
    match reach::ping(view.now(), address) {
        Some(ping) if ping.received > 0 => Sign::Alive,
        Some(_) if reach::is_silent(view, address) => Sign::Dead,
        Some(_) | None => Sign::Unclear,
    }
}

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    for family in [Family::V4, Family::V6] {
        let Some(gateway) = Gateway::of(view, family) else {
            continue;
        };
        if gateway.is_dead(family) && !view.uses(family) {
            examined.well.push(format!(
                "The {} gateway {} does not answer, but nothing outside is reached over it: this device has no global \
                 address of that family",
                family.name(),
                gateway.address
            ));
        } else if gateway.is_dead(family) {
            examined.drafts.push(dead(view, family, &gateway));
        } else if gateway.echo == Sign::Alive || gateway.beyond == Sign::Alive {
            examined.well.push(well(view, &gateway));
        }
    }
    examined
}

fn well(view: &View<'_>, gateway: &Gateway) -> String {
    let echo = reach::ping(view.now(), gateway.address).filter(|ping| ping.sent > 0);
    match echo {
        Some(ping) if ping.received > 0 => {
            format!(
                "The default gateway answers: {}",
                ping.fact(gateway.address)
            )
        }
        _ => format!(
            "The default gateway {} forwards: {} beyond it answered",
            gateway.address,
            list(
                gateway
                    .far
                    .iter()
                    .filter(|far| far.answered)
                    .map(|far| far.address)
                    .take(1)
            )
        ),
    }
}

fn dead(view: &View<'_>, family: Family, gateway: &Gateway) -> Draft {
    let address = gateway.address;
    let name = gateway
        .link
        .map_or_else(|| "its link".into(), |link| view.link_name(link));
    let severity = match family {
        Family::V6 if has_default(view.routes(), Family::V4) => Severity::Warning,
        Family::V4 | Family::V6 => Severity::Critical,
    };
    let mut draft = Draft::new(
        "gateway_dead",
        Layer::Neighbour,
        address.to_string(),
        severity,
        format!("The default gateway {address} on {name} does not answer"),
    );
    signs(&mut draft, view, gateway);
    traffic(&mut draft, view, gateway);
    draft.rests_on = Some(Way {
        link: gateway.link,
        beyond: None,
    });
    draft.breaks_beyond.push(family);
    for far in gateway.far.iter().filter(|far| far.silent) {
        draft.explains(format!("{} beyond the gateway is silent", far.address));
    }
    draft.misses(format!(
        "whether another host of that network reaches {address} (`aizen ping {address}` there)"
    ));
    if gateway.echo == Sign::Unclear {
        draft.misses(format!(
            "echo replies of the gateway (`aizen ping {address}`)"
        ));
    }
    if gateway.neighbour == Sign::Unclear {
        draft.misses(format!(
            "whether {address} still answers ARP or neighbour solicitations (`aizen neighbours`)"
        ));
    }
    if gateway.beyond == Sign::Unclear {
        draft.misses("answers from beyond the gateway (`aizen trace` to an address outside)");
    }
    let second = view.routes().iter().find(|route| {
        route.destination.is_default()
            && Family::of(route.destination.address) == family
            && route.gateway.is_some_and(|other| other != address)
    });
    let fail_over = second
        .and_then(|route| route.gateway)
        .map_or_else(String::new, |other| {
            format!("; a second default route over {other} is there to fail over to")
        });
    draft.next(format!(
        "Check the power, the lights and the cable of the device that has {address} and restart it if it hangs\
         {fail_over}"
    ));
    draft
}

fn signs(draft: &mut Draft, view: &View<'_>, gateway: &Gateway) {
    let now = view.now();
    let address = gateway.address;
    let state = now
        .neighbours
        .iter()
        .flat_map(|seen| &seen.value)
        .find(|entry| {
            entry.address == address && gateway.link.is_none_or(|link| link == entry.link)
        });
    if let Some((seen, entry)) = now.neighbours.as_ref().zip(state) {
        match gateway.neighbour {
            Sign::Dead => draft.shown(
                "neighbours",
                "gateway",
                seen.at,
                format!(
                    "the neighbour entry of {address} is {}",
                    state_name(entry.state)
                ),
            ),
            Sign::Alive => draft.contradicted(
                "neighbours",
                seen.at,
                format!(
                    "the neighbour entry of {address} is {}, which may be up to 45 s old",
                    state_name(entry.state)
                ),
            ),
            Sign::Unclear => draft.noted(
                "neighbours",
                seen.at,
                format!(
                    "the neighbour entry of {address} is {}",
                    state_name(entry.state)
                ),
            ),
        }
    }
    if let Some(ping) = reach::ping(now, address).filter(|_| gateway.echo == Sign::Dead) {
        draft.shown("reach", "gateway", ping.at, ping.fact(address));
    }
    for far in gateway.far.iter().filter(|far| far.silent) {
        draft.shown(far.source, "beyond", far.at, far.fact.clone());
    }
    if let Some((seen, link)) = now
        .links
        .as_ref()
        .zip(gateway.link.and_then(|link| view.link(link)))
        && link.carrier == Some(true)
    {
        let fact = format!("{} has a carrier, so the cable is not the cause", link.name);
        draft.noted("links", seen.at, fact);
    }
}

fn traffic(draft: &mut Draft, view: &View<'_>, gateway: &Gateway) {
    let Some(link) = gateway.link.and_then(|link| view.link(link)) else {
        return;
    };
    let before = view.this_boot().find_map(|pass| {
        let links = pass.links.as_ref()?;
        links
            .value
            .iter()
            .find(|older| older.index == link.index && older.name == link.name)
    });
    let Some((before, seen)) = before.zip(view.now().links.as_ref()) else {
        return;
    };
    let growth = growth(before, link);
    if let (Some(0), Some(sent @ 1..)) = (growth.rx_packets, growth.tx_packets) {
        let fact = format!(
            "{} received 0 and sent {sent} packets since the round before",
            link.name
        );
        draft.shown("links", "traffic", seen.at, fact);
    }
}

/// The kernel's name of the state.
pub(super) fn state_name(state: NeighbourState) -> &'static str {
    match state {
        NeighbourState::Incomplete => "INCOMPLETE",
        NeighbourState::Reachable => "REACHABLE",
        NeighbourState::Stale => "STALE",
        NeighbourState::Delay => "DELAY",
        NeighbourState::Probe => "PROBE",
        NeighbourState::Failed => "FAILED",
        NeighbourState::Noarp => "NOARP",
        NeighbourState::Permanent => "PERMANENT",
        NeighbourState::None => "NONE",
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::ReachRole;

    use super::*;
    use crate::fixture::{
        Evidence, GATEWAY, WAN, healthy, kill_gateway, only, reach, route, verdict,
    };

    #[test]
    fn a_dead_gateway_is_told_by_neighbour_entry_echo_and_silence_beyond() {
        let mut broken = healthy(2);
        kill_gateway(&mut broken);
        let verdict = verdict(&[healthy(1), broken]);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("gateway_dead", GATEWAY)
        );
        assert_eq!(finding.confidence, Confidence::Certain);
        assert_eq!(finding.proposal, None);
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.starts_with("The resolver"))
        );
    }

    #[test]
    fn gateways_that_only_look_dead_do_not_alarm() {
        let look_alikes: [fn(&mut Evidence); 6] = [
            // Blocks echo, but is there and forwards.
            |e| e.silence(GATEWAY),
            // Blocks echo, and its entry is old.
            |e| {
                e.silence(GATEWAY);
                e.neighbour_is(GATEWAY, NeighbourState::Stale);
            },
            // An entry that failed a moment ago while everything beyond answers.
            |e| e.neighbour_is(GATEWAY, NeighbourState::Failed),
            |e| {
                e.silence(GATEWAY);
                e.neighbour_is(GATEWAY, NeighbourState::Failed);
            },
            |e| e.neighbours.clear(),
            |e| e.reach.retain(|reach| reach.role != ReachRole::Gateway),
        ];
        for (number, change) in look_alikes.into_iter().enumerate() {
            let mut evidence = healthy(1);
            change(&mut evidence);
            assert_eq!(evidence.verdict().health, Health::Healthy, "{number}");
        }
    }

    #[test]
    fn one_lost_request_and_silence_alone_are_no_dead_gateway() {
        let mut evidence = healthy(1);
        // Nothing beyond was asked, and its neighbour entry is unclear.
        evidence.reach = vec![reach(GATEWAY, ReachRole::Gateway, 0, 0)];
        evidence.dns.clear();
        evidence.time.servers.clear();
        evidence.path_mtu.clear();
        evidence.neighbour_is(GATEWAY, NeighbourState::Stale);
        assert_eq!(evidence.verdict().findings, []);
        evidence.neighbour_is(GATEWAY, NeighbourState::Failed);
        evidence.reach[0].sent = 1;
        assert_eq!(evidence.verdict().findings, []);
        evidence.reach[0].sent = 5;
        assert_eq!(only(&evidence.verdict()).confidence, Confidence::Likely);
    }

    #[test]
    fn an_entry_that_outlives_the_gateway_does_not_hide_its_death() {
        let mut broken = healthy(2);
        kill_gateway(&mut broken);
        broken.neighbour_is(GATEWAY, NeighbourState::Reachable);
        let verdict = verdict(&[healthy(1), broken]);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "gateway_dead");
        assert_eq!(finding.contradictions.len(), 1);
        assert_ne!(finding.confidence, Confidence::Certain);
    }

    #[test]
    fn a_kernel_that_gave_the_host_up_counts_as_silence() {
        let mut broken = healthy(1);
        kill_gateway(&mut broken);
        for reach in &mut broken.reach {
            (reach.sent, reach.no_route) = (0, true);
        }
        assert_eq!(only(&broken.verdict()).cause.0, "gateway_dead");
    }

    #[test]
    fn a_second_default_route_is_named_for_fail_over() {
        let mut broken = healthy(1);
        kill_gateway(&mut broken);
        let mut second = route("0.0.0.0/0", Some("192.168.40.254"), WAN);
        second.metric = Some(500);
        broken.routes.push(second);
        assert!(
            only(&broken.verdict())
                .next_step
                .0
                .contains("192.168.40.254")
        );
    }

    #[test]
    fn a_dead_ipv6_gateway_beside_a_living_ipv4_one_warns_only_where_ipv6_is_used() {
        let mut broken = healthy(1);
        broken.routes.push(route("::/0", Some("fe80::1"), WAN));
        broken
            .reach
            .push(reach("fe80::1", ReachRole::Gateway, 0, 0));
        // One silent target beyond adds nothing while the neighbour entry says nothing.
        broken
            .reach
            .push(reach("2001:db8::9", ReachRole::Anchor, 0, 0));
        assert_eq!(broken.verdict().findings, []);
        broken.neighbours.push(crate::fixture::neighbour(
            WAN,
            "fe80::1",
            "",
            NeighbourState::Failed,
        ));
        assert_eq!(broken.verdict().health, Health::Healthy);
        broken
            .addresses
            .push(crate::fixture::address(WAN, "fd00::7/64", "global"));
        assert_eq!(broken.verdict().health, Health::Healthy);
        broken
            .addresses
            .push(crate::fixture::address(WAN, "2001:db8::7/64", "global"));
        assert_eq!(broken.verdict().health, Health::Warning);
        assert_eq!(only(&broken.verdict()).component.0, "fe80::1");
    }
}
