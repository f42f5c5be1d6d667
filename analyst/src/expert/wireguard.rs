//! WireGuard: a peer that isn't there, one that exchanges no data, and an endpoint without address.
//!
//! A silent tunnel is well: WireGuard says nothing when there is nothing to say. Only one that is asked and doesn't
//! answer is a fault, and only if somebody wants that peer to be there.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{WireGuard, WireGuardPeer};

use super::draft::{Draft, Examined, Layer};
use super::reach;
use super::trend::{self, Step};
use super::unit::span;
use crate::case::View;

/// A session ends after so many seconds without a new handshake (`REJECT_AFTER_TIME`).
const OLD_S: u64 = 180;
/// Seconds after which a handshake that was not answered is begun again (`REKEY_TIMEOUT`), with as much again for the way
/// there and back.
const RETRY_S: u64 = 10;
/// Seconds in which what is sent through a tunnel that works brings something back.
const ANSWERS_S: u64 = 3;
/// Bytes in a step that are more than keepalives and handshakes.
const DATA: u64 = 1_000;
/// Bytes of the message that begins a handshake; it is sent again after 5 s (`REKEY_TIMEOUT`), so one of two is
/// unanswered for sure.
const INITIATION: u64 = 148;
/// Steps over which what was sent is added up: rounds may be closer together than handshakes.
const LATELY: usize = 6;

/// One peer over the last steps, the newest first; none of them if it is new or its counters were reset.
struct Peer<'a> {
    link: u32,
    name: String,
    peer: &'a WireGuardPeer,
    steps: Vec<Traffic>,
    at: jiff::Timestamp,
    alone: bool,
}

struct Traffic {
    sent: u64,
    received: u64,
    seconds: u64,
    at: jiff::Timestamp,
}

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().wireguard else {
        return examined;
    };
    let steps = (1..=LATELY)
        .rev()
        .find_map(|count| trend::steps(view, |pass| pass.wireguard.as_ref(), count))
        .unwrap_or_default();
    for tunnel in &seen.value {
        for peer in &tunnel.peers {
            let peer = Peer::of(view, tunnel, peer, &steps, seen.at);
            let draft = peer
                .unresolved()
                .or_else(|| peer.down(view))
                .or_else(|| peer.silent(view));
            match draft {
                Some(draft) => examined.drafts.push(draft),
                None if peer.is_fresh() => examined
                    .well
                    .push(format!("The tunnel {} shook hands recently", peer.name)),
                None => {}
            }
        }
    }
    examined
}

impl<'a> Peer<'a> {
    fn of(
        view: &View<'_>,
        tunnel: &WireGuard,
        peer: &'a WireGuardPeer,
        steps: &[Step<'_, Vec<WireGuard>>],
        at: jiff::Timestamp,
    ) -> Self {
        let find = |tunnels: &'_ [WireGuard]| {
            let same = tunnels.iter().find(|other| other.link == tunnel.link)?;
            same.peers
                .iter()
                .find(|other| other.key == peer.key)
                .map(|peer| (peer.tx_bytes, peer.rx_bytes))
        };
        let traffic = |step: &Step<'_, Vec<WireGuard>>| {
            let (before, after) = (find(step.before)?, find(step.after)?);
            Some(Traffic {
                sent: after.0.checked_sub(before.0)?,
                received: after.1.checked_sub(before.1)?,
                seconds: step.seconds(),
                at: step.at,
            })
        };
        let name = view.link_name(tunnel.link);
        Self {
            link: tunnel.link,
            name: if tunnel.peers.len() == 1 {
                name
            } else {
                format!("{name} peer {}", peer.key)
            },
            peer,
            steps: steps.iter().map_while(traffic).collect(),
            at,
            alone: tunnel.peers.len() == 1,
        }
    }

    fn is_fresh(&self) -> bool {
        self.peer.handshake_s.is_some_and(|age| age <= OLD_S)
    }

    /// Somebody wants it to be there: one of many clients may well be away.
    fn is_wanted(&self, view: &View<'_>) -> bool {
        let expected = view.profile().is_some_and(|profile| {
            let name = view.link_name(self.link);
            profile.value.expected_up.contains(&name) || profile.value.wan.contains(&name)
        });
        expected
            || self.peer.keepalive_s > 0
            || self.alone
            || self.peer.allowed.iter().any(|prefix| prefix.is_default())
    }

    fn draft(
        &self,
        view: &View<'_>,
        cause: &'static str,
        severity: Severity,
        summary: String,
    ) -> Draft {
        let mut draft = Draft::new(cause, Layer::Path, self.name.as_str(), severity, summary);
        draft.rests_on = self.peer.endpoint.map(|endpoint| view.way_to(endpoint));
        draft
    }

    fn traffic(&self, draft: &mut Draft) {
        for step in self.steps.iter().filter(|step| step.sent > 0) {
            let fact = format!(
                "{} sent {} and received {} bytes within {} s",
                self.name, step.sent, step.received, step.seconds
            );
            draft.shown("wireguard", "traffic", step.at, fact);
        }
    }

    /// It must dial, because it keeps the tunnel alive, and doesn't know where.
    fn unresolved(&self) -> Option<Draft> {
        if self.peer.endpoint.is_some()
            || self.peer.keepalive_s == 0
            || self.peer.handshake_s.is_some()
        {
            return None;
        }
        let name = &self.name;
        let mut draft = Draft::new(
            "vpn_endpoint_unresolved",
            Layer::Path,
            name.as_str(),
            Severity::Critical,
            format!("The tunnel {name} has no address for its other end"),
        );
        let fact = format!(
            "{name} has a keepalive of {} s, no endpoint and never shook hands",
            self.peer.keepalive_s
        );
        draft.shown("wireguard", "endpoint", self.at, fact);
        draft.explains("Networks behind the tunnel are not reached");
        draft.misses(
            "the name that is configured as endpoint, and whether it resolves (`aizen dns NAME`)",
        );
        draft.next(format!(
            "Set the endpoint of {name} again now that names resolve (`wg set … endpoint \
             NAME:PORT`), or restart the tunnel after the network is up"
        ));
        Some(draft)
    }

    /// Its keepalives alone would have made a handshake by now: each one that is due without a session begins one
    /// (`wg_packet_send_staged_packets`), and a session ends `OLD_S` after its handshake. Nothing came since the reading
    /// before, either: a device that just woke up is given the time to ask.
    fn is_overdue(&self, view: &View<'_>) -> bool {
        let due = OLD_S + u64::from(self.peer.keepalive_s) + RETRY_S;
        let is_up = view.link(self.link).is_some_and(|link| link.admin_up);
        let is_quiet = self.steps.first().is_some_and(|step| step.received == 0);
        self.peer.keepalive_s > 0
            && self.peer.endpoint.is_some()
            && self.peer.handshake_s.is_some_and(|age| age > due)
            && is_up
            && is_quiet
    }

    /// It began a handshake twice or more, and heard nothing.
    fn asks_in_vain(&self) -> bool {
        let never = self.peer.handshake_s.is_none() && self.peer.rx_bytes == 0;
        let lately = |read: fn(&Traffic) -> u64| self.steps.iter().map(read).sum::<u64>();
        (never && self.peer.tx_bytes >= 3 * INITIATION)
            || (lately(|step| step.sent) >= 2 * INITIATION && lately(|step| step.received) == 0)
    }

    /// The last handshake is old, and what is sent gets no answer.
    fn down(&self, view: &View<'_>) -> Option<Draft> {
        let overdue = self.is_overdue(view);
        let in_vain = overdue || self.asks_in_vain();
        if self.is_fresh() || !in_vain || !self.is_wanted(view) {
            return None;
        }
        let name = &self.name;
        let mut draft = self.draft(
            view,
            "vpn_down",
            Severity::Critical,
            format!("The other end of the tunnel {name} does not answer"),
        );
        let age = self.peer.handshake_s.map_or_else(
            || {
                format!(
                    "{name} never shook hands; it sent {} bytes and received {}",
                    self.peer.tx_bytes, self.peer.rx_bytes
                )
            },
            |age| {
                let keeps = if overdue {
                    format!(
                        ", while its keepalives of {} s begin one whenever the last is {} old",
                        self.peer.keepalive_s,
                        span(OLD_S * 1000)
                    )
                } else {
                    String::new()
                };
                format!(
                    "the last handshake of {name} is {} old{keeps}",
                    span(age.saturating_mul(1000))
                )
            },
        );
        draft.shown("wireguard", "handshake", self.at, age);
        self.traffic(&mut draft);
        if let Some(endpoint) = self.peer.endpoint {
            match reach::ping(view.now(), endpoint) {
                Some(ping) if ping.received > 0 => draft.backed(
                    "reach",
                    "endpoint",
                    ping.at,
                    format!("{}: the way to the other end is well", ping.fact(endpoint)),
                ),
                Some(ping) => draft.noted("reach", ping.at, ping.fact(endpoint)),
                None => draft.misses(format!(
                    "whether the host of the other end answers (`aizen ping {endpoint}`)"
                )),
            }
        }
        draft.explains("Networks behind the tunnel are not reached");
        draft.misses(
            "the same at the other end (`wg show`): its clock, its keys, its packet filter",
        );
        let keepalive = if self.peer.keepalive_s == 0 {
            "set a persistent keepalive of 25 s so that a NAT on the way keeps its entry"
        } else {
            "set its endpoint again in case its address changed"
        };
        draft.next(format!(
            "Check that UDP port {} is open at the other end of {name} and that both keys fit; \
             {keepalive}",
            self.peer.endpoint_port.unwrap_or_default()
        ));
        Some(draft)
    }

    /// Hands are shaken, but a host behind it is silent and no data comes back.
    fn silent(&self, view: &View<'_>) -> Option<Draft> {
        let newest = || self.steps.iter().take(2);
        let one_way = newest().all(|step| step.sent >= DATA && step.received < DATA / 4);
        let seconds: u64 = newest().map(|step| step.seconds).sum();
        if !self.is_fresh() || !one_way || seconds < ANSWERS_S {
            return None;
        }
        // Data may well flow in one direction only: somebody behind it must have been asked in vain.
        let seen = view.now().reach.as_ref()?;
        let asked = seen.value.iter().find(|reach| {
            self.peer
                .allowed
                .iter()
                .any(|prefix| prefix.contains(reach.target))
                && view.way_to(reach.target).link == Some(self.link)
                && reach::is_silent(view, reach.target)
        })?;
        let name = &self.name;
        let mut draft = self.draft(
            view,
            "vpn_no_data",
            Severity::Critical,
            format!("The tunnel {name} shakes hands, but no data comes back"),
        );
        self.traffic(&mut draft);
        let age = self.peer.handshake_s.unwrap_or_default();
        draft.backed(
            "wireguard",
            "handshake",
            self.at,
            format!(
                "the last handshake of {name} is {} old",
                span(age.saturating_mul(1000))
            ),
        );
        draft.backed(
            "reach",
            "behind",
            seen.at,
            format!(
                "{} behind it answered none of {} echo requests",
                asked.target, asked.sent
            ),
        );
        draft.explains("Networks behind the tunnel are not reached");
        draft.misses("the allowed addresses at the other end (`wg show … allowed-ips`)");
        draft.next(format!(
            "Compare the allowed addresses of {name} at both ends: each must hold the other's \
             source addresses; then check forwarding and the packet filter there"
        ));
        Some(draft)
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{Body, ReachRole, WireGuard};

    use crate::fixture::machine::{TUNNEL, history, tunnel};
    use crate::fixture::{Evidence, link, only, reach, route, verdict};

    fn with(change: impl Fn(u64) -> WireGuard) -> Vec<Evidence> {
        history(4, |round, evidence| {
            evidence.links.push(link(TUNNEL, "wg0", true));
            evidence.see(Body::WireGuard(vec![change(round)]));
        })
    }

    #[test]
    fn an_old_handshake_while_bytes_leave_and_none_come_is_a_tunnel_that_is_down() {
        let rounds = with(|round| tunnel(&[(200 + 10 * round, 9_000 + 296 * round, 4_000)]));
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("vpn_down", "wg0")
        );
        assert_eq!(finding.proposal, None);
    }

    #[test]
    fn keepalives_that_made_no_handshake_in_time_are_a_tunnel_that_is_down_although_few_bytes_leave()
     {
        let at_age = |age: u64, keepalive: u16, up: bool, received: u64| {
            history(2, move |round, evidence| {
                let mut wg0 = link(TUNNEL, "wg0", up);
                wg0.admin_up = up;
                evidence.links.push(wg0);
                let mut tunnel =
                    tunnel(&[(age, 9_000 + 148 * (round / 2), 4_000 + received * round)]);
                tunnel.peers[0].keepalive_s = keepalive;
                evidence.see(Body::WireGuard(vec![tunnel]));
            })
        };
        assert_eq!(
            only(&verdict(&at_age(216, 25, true, 0))).cause.0,
            "vpn_down"
        );
        for healthy in [
            // One may be under way.
            at_age(214, 25, true, 0),
            // Without keepalives it is silent when nobody speaks.
            at_age(9_000, 0, true, 0),
            // Switched off: it sends nothing.
            at_age(9_000, 25, false, 0),
            // It woke up, and the other end answers.
            at_age(9_000, 25, true, 92),
        ] {
            let found = verdict(&healthy).findings;
            assert!(found.iter().all(|f| f.cause.0 != "vpn_down"), "{found:?}");
        }
    }

    #[test]
    fn handshakes_that_are_rarer_than_rounds_are_added_up() {
        // One handshake in every second round; with one alone an answer may be under way.
        let one_in = |rounds: u64| {
            with(move |round| {
                let sent = 9_000 + 148 * (round / rounds);
                let mut tunnel = tunnel(&[(200 + 10 * round, sent, 4_000)]);
                tunnel.peers[0].keepalive_s = 0;
                tunnel
            })
        };
        assert_eq!(only(&verdict(&one_in(2))).cause.0, "vpn_down");
        assert_eq!(verdict(&one_in(4)).findings, []);
    }

    #[test]
    fn a_tunnel_that_never_shook_hands_is_named_from_one_reading() {
        let reading = |sent| {
            history(1, |_, evidence| {
                evidence.links.push(link(TUNNEL, "wg0", true));
                let mut tunnel = tunnel(&[(0, sent, 0)]);
                tunnel.peers[0].handshake_s = None;
                evidence.see(Body::WireGuard(vec![tunnel]));
            })
        };
        assert_eq!(only(&verdict(&reading(3 * 148))).cause.0, "vpn_down");
        assert_eq!(verdict(&reading(2 * 148)).findings, []);
    }

    #[test]
    fn idle_tunnels_and_clients_that_went_home_do_not_alarm() {
        let quiet = with(|round| {
            let mut tunnel = tunnel(&[(9_000 + 10 * round, 4_000, 4_000)]);
            tunnel.peers[0].keepalive_s = 0;
            tunnel
        });
        assert_eq!(verdict(&quiet).findings, []);
        let client = with(|round| {
            let mut tunnel = tunnel(&[
                (20, 1_000 * round, 1_000 * round),
                (9_000 + 10 * round, 296 * round, 4_000),
            ]);
            tunnel.peers[1].keepalive_s = 0;
            tunnel
        });
        assert_eq!(verdict(&client).findings, []);
        let works = with(|round| tunnel(&[(20, 9_000 * round, 8_000 * round)]));
        assert_eq!(verdict(&works).findings, []);
        // Restarted in between.
        let anew = with(|round| tunnel(&[(400, if round == 4 { 10 } else { 500 * round }, 0)]));
        assert_eq!(verdict(&anew).findings, []);
    }

    #[test]
    fn fresh_hands_without_data_need_a_host_behind_that_is_silent() {
        let mut rounds = with(|round| tunnel(&[(20, 9_000 * round, 40 * round)]));
        assert_eq!(verdict(&rounds).findings, []);
        for evidence in &mut rounds {
            evidence
                .routes
                .push(route("192.168.100.0/24", None, TUNNEL));
            evidence
                .reach
                .push(reach("192.168.100.7", ReachRole::Anchor, 0, 0));
        }
        assert_eq!(only(&verdict(&rounds)).cause.0, "vpn_no_data");
        // Two rounds, as one `aizen diagnose` has them.
        let two = rounds.split_off(rounds.len() - 2);
        assert_eq!(only(&verdict(&two)).cause.0, "vpn_no_data");
    }

    #[test]
    fn a_peer_that_must_dial_and_knows_no_address_is_unresolved_and_a_road_warrior_is_not() {
        let strip = |keepalive: u16| {
            move |_: u64| {
                let mut tunnel = tunnel(&[(0, 0, 0)]);
                let peer = &mut tunnel.peers[0];
                (peer.endpoint, peer.handshake_s, peer.keepalive_s) = (None, None, keepalive);
                tunnel
            }
        };
        assert_eq!(
            only(&verdict(&with(strip(25)))).cause.0,
            "vpn_endpoint_unresolved"
        );
        assert_eq!(verdict(&with(strip(0))).findings, []);
    }
}
