//! The gateway lives and nothing beyond it answers: the provider, or a gateway that doesn't forward.

use aizen_protocol::finding::Severity;

use super::draft::{Draft, Examined, Layer};
use super::gateway::Gateway;
use super::reach;
use super::unit::list;
use crate::case::{Family, View, Way, default_route, has_default};

/// Silent targets that make it more than one dead host.
const TARGETS: usize = 2;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    for family in [Family::V4, Family::V6] {
        let Some(route) = default_route(view.routes(), family) else {
            continue;
        };
        let gateway = Gateway::of(view, family);
        if gateway
            .as_ref()
            .is_some_and(|gateway| gateway.is_dead(family))
        {
            continue;
        }
        let far = match &gateway {
            Some(gateway) => &gateway.far,
            None => &reach::far(view, family, None),
        };
        let silent = reach::all_silent(far);
        if silent.len() >= TARGETS && view.uses(family) {
            let mut draft = cut_off(view, family, gateway.as_ref());
            for far in far.iter().filter(|far| far.silent) {
                draft.shown(
                    far.source,
                    &far.address.to_string(),
                    far.at,
                    far.fact.clone(),
                );
            }
            draft.explains(format!(
                "Nothing outside is reached: {} are silent",
                list(&silent)
            ));
            draft.rests_on = Some(Way {
                link: route.link,
                beyond: Some(family),
            });
            examined.drafts.push(draft);
        } else if let Some(far) = far.iter().find(|far| far.answered) {
            examined
                .well
                .push(format!("Targets beyond the gateway answer: {}", far.fact));
        }
    }
    examined
}

fn cut_off(view: &View<'_>, family: Family, gateway: Option<&Gateway>) -> Draft {
    let severity = match family {
        Family::V6 if has_default(view.routes(), Family::V4) => Severity::Warning,
        Family::V4 | Family::V6 => Severity::Critical,
    };
    let (component, behind) = match gateway {
        Some(gateway) => (
            gateway.address.to_string(),
            format!("gateway {}", gateway.address),
        ),
        None => ("default route".into(), "default route".into()),
    };
    let mut draft = Draft::new(
        "upstream_dead",
        Layer::Upstream,
        component,
        severity,
        format!(
            "Nothing beyond the {} answers over {}",
            behind,
            family.name()
        ),
    );
    draft.breaks_beyond.push(family);
    let Some(gateway) = gateway else {
        draft.next("Check the line and the provider's status; restart the modem");
        return draft;
    };
    let address = gateway.address;
    if let Some(ping) = reach::ping(view.now(), address) {
        draft.noted("reach", ping.at, ping.fact(address));
    }
    if !gateway.is_alive() {
        draft.misses(format!(
            "whether {address} itself lives (`aizen ping {address}`, `aizen neighbours`)"
        ));
    }
    draft.misses("where the path ends (`aizen trace` to an address outside)");
    let expected = view.profile().and_then(|profile| profile.value.gateway);
    match expected.filter(|expected| *expected != address && Family::of(*expected) == family) {
        Some(expected) => {
            if let Some(profile) = view.profile() {
                let fact = format!("the operator expects {expected} as the default gateway");
                draft.backed("profile", "gateway", profile.at, fact);
            }
            draft.next(format!(
                "The default route leads over {address} instead of {expected} as the operator expects: find out who \
                 changed it and put it back"
            ));
        }
        None => draft.next(format!(
            "Check the line behind {address} and the provider's status; restart the modem; if {address} is not the \
             provider's device, check that it forwards"
        )),
    }
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Health;

    use crate::fixture::{ANCHOR, Evidence, GATEWAY, RESOLVER, SECOND, healthy, ip, only};

    #[test]
    fn a_living_gateway_with_silence_beyond_is_the_providers_fault() {
        let mut broken = healthy(1);
        Evidence::silence_outside(&mut broken);
        let verdict = broken.verdict();
        assert_eq!(only(&verdict).cause.0, "upstream_dead");
        assert_eq!(only(&verdict).proposal, None);
    }

    #[test]
    fn a_default_route_over_another_host_than_expected_is_said() {
        let mut broken = healthy(1);
        Evidence::silence_outside(&mut broken);
        broken.profile.gateway = Some(ip("100.64.7.9"));
        let verdict = broken.verdict();
        assert!(only(&verdict).next_step.0.contains("instead of 100.64.7.9"));
    }

    #[test]
    fn a_time_server_that_answered_before_the_outage_is_no_sign_of_life() {
        let mut broken = healthy(3);
        let answered = broken.time.clone();
        Evidence::silence_outside(&mut broken);
        broken.time = answered;
        let causes = broken
            .verdict()
            .findings
            .into_iter()
            .map(|finding| finding.cause.0);
        assert_eq!(
            causes.collect::<Vec<_>>(),
            ["resolver_dead", "resolver_dead"]
        );
        let mut records = broken.records();
        for record in &mut records {
            if record.body.collector() == "time" {
                record.at = crate::fixture::at(1);
            }
        }
        let verdict = crate::expert::analyze(&crate::case::Case::new(records));
        assert_eq!(only(&verdict).cause.0, "upstream_dead");
    }

    #[test]
    fn one_silent_target_is_no_outage() {
        let mut evidence = healthy(1);
        Evidence::silence_outside(&mut evidence);
        evidence.dns.clear();
        evidence
            .reach
            .retain(|reach| [ip(GATEWAY), ip(ANCHOR)].contains(&reach.target));
        assert_eq!(evidence.verdict().health, Health::Healthy);
    }

    #[test]
    fn blocked_echo_outside_is_no_outage_while_names_resolve() {
        let mut evidence = healthy(1);
        for target in [RESOLVER, SECOND, ANCHOR] {
            evidence.silence(target);
        }
        assert_eq!(evidence.verdict().health, Health::Healthy);
    }
}
