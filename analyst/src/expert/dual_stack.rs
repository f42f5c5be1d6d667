//! IPv6 that leads nowhere behind an IPv4 that works: programs try it first and wait.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Connect, ConnectOutcome, DnsPurpose};

use super::draft::{Draft, Examined, Layer};
use super::trend;
use super::unit::list;
use crate::case::{Family, Seen, View, Way, has_default};

/// Connects over IPv6 that fail in a row; one target may be down by itself.
const FAILED: usize = 2;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().connects else {
        return examined;
    };
    match dead(view, seen) {
        Some(draft) => examined.drafts.push(draft),
        None => {
            if let Some(connect) = connected(seen, Family::V6) {
                examined
                    .well
                    .push(format!("IPv6 carries TCP: {}", fact(connect)));
            }
        }
    }
    examined
}

fn connected(seen: &Seen<Vec<Connect>>, family: Family) -> Option<&Connect> {
    seen.value.iter().find(|connect| {
        Family::of(connect.target) == family && connect.outcome == ConnectOutcome::Connected
    })
}

fn fact(connect: &Connect) -> String {
    let outcome = match connect.outcome {
        ConnectOutcome::Connected => "was made",
        ConnectOutcome::Refused => "was refused",
        ConnectOutcome::Timeout => "met silence",
        ConnectOutcome::Unreachable => "found no way",
    };
    format!(
        "a TCP connection to {} port {} {outcome}",
        connect.target, connect.port
    )
}

fn dead(view: &View<'_>, seen: &Seen<Vec<Connect>>) -> Option<Draft> {
    // Programs choose IPv6 only from a global address and with a route.
    if !view.uses(Family::V6) || !has_default(view.routes(), Family::V6) {
        return None;
    }
    let works = connected(seen, Family::V4)?;
    let answers = view.now().dns.iter().flat_map(|dns| {
        dns.value
            .iter()
            .filter(|probe| {
                probe.purpose == DnsPurpose::Ipv6 && probe.addresses.iter().any(IpAddr::is_ipv6)
            })
            .map(|probe| (dns.at, probe))
    });
    let named = answers.into_iter().next();
    let silent: Vec<&Seen<Vec<Connect>>> = trend::readings(view, |pass| pass.connects.as_ref())
        .take_while(|seen| {
            failed(seen).next().is_some()
                && connected(seen, Family::V6).is_none()
                && failed(seen).count() == tried(seen)
        })
        .collect();
    let failures: usize = silent.iter().map(|seen| failed(seen).count()).sum();
    if failures < FAILED {
        return None;
    }
    let targets = list(failed(seen).map(|connect| connect.target));
    let mut draft = Draft::new(
        "ipv6_dead",
        Layer::Path,
        "IPv6",
        Severity::Warning,
        "IPv6 has addresses and a route, but connections over it meet silence".into(),
    );
    draft.rests_on = Some(Way {
        link: failed(seen)
            .next()
            .and_then(|connect| view.way_to(connect.target).link),
        beyond: Some(Family::V6),
    });
    let oldest = silent.last().map_or(seen.at, |seen| seen.at);
    let told =
        format!("{failures} TCP connections over IPv6 in a row met silence, the last to {targets}");
    draft.shown("connects", "IPv6", oldest, told);
    draft.backed("connects", "IPv4", seen.at, fact(works));
    match named {
        Some((at, probe)) => {
            let told = format!(
                "{} gives IPv6 addresses for {}: programs try them first",
                probe.resolver, probe.name
            );
            draft.backed("dns", "ipv6", at, told);
        }
        None => draft.misses("whether names have IPv6 addresses here (`aizen dns NAME AAAA`)"),
    }
    draft.explains(
        "Pages and programs start slowly: they wait for IPv6 before they fall back to IPv4",
    );
    draft.misses("where the path ends (`aizen trace` to an IPv6 address outside)");
    draft.next(
        "Ask the provider why IPv6 ends; until it works, withdraw the IPv6 router advertisement \
         on the LAN so that hosts stop trying",
    );
    Some(draft)
}

fn tried(seen: &Seen<Vec<Connect>>) -> usize {
    seen.value
        .iter()
        .filter(|connect| connect.target.is_ipv6())
        .count()
}

/// IPv6 connects without an answer. A refusal is one: the path works.
fn failed(seen: &Seen<Vec<Connect>>) -> impl Iterator<Item = &Connect> {
    seen.value.iter().filter(|connect| {
        connect.target.is_ipv6()
            && matches!(
                connect.outcome,
                ConnectOutcome::Timeout | ConnectOutcome::Unreachable
            )
    })
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{Body, ConnectOutcome, DnsAnswer, DnsPurpose, DnsTransport};

    use crate::fixture::machine::{WEB, WEB6, connect, history, question};
    use crate::fixture::{Evidence, NAME, RESOLVER, WAN, address, only, route, verdict};

    fn dual(v6: ConnectOutcome, v4: ConnectOutcome) -> Vec<Evidence> {
        history(3, |_, evidence| {
            evidence
                .addresses
                .push(address(WAN, "2001:db8:7::20/64", "global"));
            evidence.routes.push(route("::/0", Some("fe80::1"), WAN));
            evidence.see(Body::Connects(vec![connect(WEB6, v6), connect(WEB, v4)]));
            let (udp, answer) = (DnsTransport::Udp, DnsAnswer::Rcode(0));
            evidence.dns.push(question(
                RESOLVER,
                udp,
                DnsPurpose::Ipv6,
                NAME,
                answer,
                &[WEB6],
            ));
        })
    }

    #[test]
    fn silence_over_ipv6_beside_a_working_ipv4_is_told() {
        let rounds = dual(ConnectOutcome::Timeout, ConnectOutcome::Connected);
        assert_eq!(only(&verdict(&rounds)).cause.0, "ipv6_dead");
        assert_eq!(verdict(&rounds[..1]).findings, []);
    }

    #[test]
    fn a_refusal_a_device_without_ipv6_and_silence_of_both_do_not_alarm() {
        use ConnectOutcome::{Connected, Refused, Timeout};
        for (v6, v4) in [
            (Refused, Connected),
            (Connected, Connected),
            (Timeout, Timeout),
        ] {
            assert_eq!(verdict(&dual(v6, v4)).findings, [], "{v6:?} {v4:?}");
        }
        let mut local = dual(Timeout, Connected);
        for evidence in &mut local {
            evidence
                .addresses
                .retain(|address| address.address.address.is_ipv4());
        }
        assert_eq!(verdict(&local).findings, []);
        let mut one_lives = dual(Timeout, Connected);
        for evidence in &mut one_lives {
            evidence.see(Body::Connects(vec![
                connect(WEB6, Timeout),
                connect("2001:db8:81::81", Connected),
                connect(WEB, Connected),
            ]));
        }
        assert_eq!(verdict(&one_lives).findings, []);
    }
}
