//! Dial-up over PPPoE: nobody answers the search for a concentrator, or the account is refused.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Link, LogLine, PppoeProbe};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::link;
use super::unit::list;
use crate::case::{Family, View, Way, has_default};

/// How far back a line of log counts.
const LOGGED: SignedDuration = SignedDuration::from_mins(10);

/// True for the name of a session's link: `ppp0`, `pppoe-wan`.
pub(super) fn is_session(name: &str) -> bool {
    name.starts_with("ppp")
}

/// The link over which sessions are dialled, if it was probed in this boot.
pub(super) fn carrier(view: &View<'_>) -> Option<u32> {
    let probes = view
        .backwards()
        .find_map(|pass| pass.pppoe_probes.as_ref())?;
    match probes.value.as_slice() {
        [probe] => Some(probe.link),
        probes => {
            // Of several, the one that somebody answered on.
            let mut answered = probes.iter().filter(|p| !p.concentrators.is_empty());
            answered.next().map(|probe| probe.link)
        }
    }
}

/// The session that should be there: the operator named it, or it was there earlier in this boot.
fn wanted(view: &View<'_>) -> Option<String> {
    let named = view.profile().and_then(|seen| {
        let mut all = seen.value.wan.iter().chain(&seen.value.expected_up);
        all.find(|name| is_session(name)).cloned()
    });
    named.or_else(|| {
        view.this_boot()
            .filter_map(|pass| pass.links.as_ref())
            .flat_map(|seen| &seen.value)
            .find(|link| is_session(&link.name))
            .map(|link| link.name.clone())
    })
}

fn carries(link: &Link) -> bool {
    is_session(&link.name) && link.admin_up && !link::is_without_carrier(link)
}

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(links) = &view.now().links else {
        return examined;
    };
    let Some(session) = wanted(view) else {
        return examined;
    };
    if let Some(link) = links.value.iter().find(|link| carries(link)) {
        examined
            .well
            .push(format!("The PPPoE session {} is up", link.name));
        return examined;
    }
    let probe = view.now().pppoe_probes.as_ref().and_then(|seen| {
        let carrier = carrier(view)?;
        let probe = seen.value.iter().find(|probe| probe.link == carrier)?;
        Some((seen.at, probe))
    });
    let refused = refusals(view);
    let mut draft = match probe {
        Some((at, probe)) if probe.concentrators.is_empty() => unanswered(view, at, probe),
        _ if !refused.is_empty() => {
            let mut draft = unauthenticated(view, &session, &refused);
            if let Some((at, probe)) = probe {
                let fact = format!(
                    "{} answers PPPoE discovery on {}: line and VLAN are well",
                    list(&probe.concentrators),
                    view.link_name(probe.link)
                );
                draft.backed("pppoe_probes", "concentrator", at, fact);
            } else {
                draft.misses("whether a concentrator answers discovery (`pppoe-discovery -I` on the WAN port)");
            }
            draft
        }
        _ => return examined,
    };
    let fact = format!("the session {session} is not up");
    draft.shown("links", "session", links.at, fact);
    draft.rests_on = Some(Way {
        link: carrier(view),
        beyond: None,
    });
    // Sessions over it are down with it.
    draft.breaks_links.extend(carrier(view));
    if !has_default(view.routes(), Family::V4) {
        draft.breaks_beyond.push(Family::V4);
    }
    examined.drafts.push(draft);
    examined
}

/// Lines of the dial-up program that tell of a refused account. Anybody may write such a line.
fn refusals<'a>(view: &View<'a>) -> Vec<&'a LogLine> {
    let Some(seen) = &view.now().log else {
        return Vec::new();
    };
    let refused = |line: &&LogLine| {
        let text = line.text.0.to_ascii_lowercase();
        line.program.starts_with("ppp")
            && seen.at.duration_since(line.at) <= LOGGED
            && (text.contains("authentication failed") || text.contains("auth failed"))
    };
    seen.value.iter().filter(refused).collect()
}

fn unanswered(view: &View<'_>, at: Timestamp, probe: &PppoeProbe) -> Draft {
    let name = view.link_name(probe.link);
    let mut draft = Draft::new(
        "pppoe_no_concentrator",
        Layer::Link,
        name.as_str(),
        Severity::Critical,
        format!("Nobody answers PPPoE discovery on {name}"),
    );
    let fact = format!("PADI on {name} met no PADO");
    draft.shown("pppoe_probes", "silence", at, fact);
    let lines = view.now().log.iter().flat_map(|seen| &seen.value);
    let mut logged =
        lines.filter(|line| line.program.starts_with("ppp") && line.text.0.contains("PADO"));
    if let Some(line) = logged.next() {
        let fact = format!("{} logged that it waits for PADO", line.program);
        draft.backed("log", "pado", line.at, fact);
    }
    draft.misses(format!(
        "the modem's own view of the line (DSL synchronisation, optical signal), and the VLAN that the provider wants on {name}"
    ));
    draft.next(format!(
        "Check that the modem behind {name} has a signal, and that {name} bears the VLAN tag of the provider"
    ));
    draft
}

fn unauthenticated(view: &View<'_>, session: &str, refused: &[&LogLine]) -> Draft {
    let mut draft = Draft::new(
        "pppoe_authentication",
        Layer::Link,
        session,
        Severity::Critical,
        format!("The provider refuses the account of {session}"),
    );
    let last = refused.iter().map(|line| line.at).max();
    let fact = format!(
        "pppd logged {} times within 10 minutes that the authentication failed",
        refused.len()
    );
    draft.backed("log", "refused", last.unwrap_or(view.now().ended.at), fact);
    draft.misses("whether user name and password are still those of the provider (its letter; the account page)");
    draft.next(format!(
        "Check user name and password of {session} with the provider, and slow its retries down meanwhile: many in a row \
         lock the account"
    ));
    draft
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::record::{Body, LogOrigin};

    use super::*;
    use crate::fixture::{Evidence, GATEWAY, WAN, at, healthy, lose_default_route, only, verdict};

    /// A router that dials over `wan`; its session is gone.
    fn dialling(round: u64, answered: bool) -> Evidence {
        let mut evidence = healthy(round);
        lose_default_route(&mut evidence);
        evidence.silence(GATEWAY);
        evidence.profile.wan = vec!["ppp0".into()];
        evidence.profile.gateway = None;
        evidence.routes.retain(|route| route.link != Some(WAN));
        evidence.addresses.retain(|ours| ours.link != WAN);
        evidence.neighbours.remove(0);
        let concentrators = if answered {
            vec!["02:00:5e:10:ac:01".parse().unwrap()]
        } else {
            vec![]
        };
        evidence.extra.push(Body::PppoeProbes(vec![PppoeProbe {
            link: WAN,
            concentrators,
            names: vec![],
        }]));
        evidence
    }

    fn logged(program: &str, text: &str) -> Body {
        Body::Log(vec![LogLine {
            at: at(2),
            origin: LogOrigin::File,
            program: program.into(),
            severity: 3,
            text: text.into(),
        }])
    }

    #[test]
    fn silence_after_padi_is_told_and_the_missing_session_follows_from_it() {
        let told = verdict(&[dialling(1, false), dialling(2, false)]);
        let finding = only(&told);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("pppoe_no_concentrator", "wan")
        );
        assert!(finding.confidence >= Confidence::Likely);
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.starts_with("ppp0 is expected"))
        );
    }

    #[test]
    fn a_refused_account_is_told_apart_by_the_concentrator_that_answers() {
        let mut rounds = [dialling(1, true), dialling(2, true)];
        rounds[1]
            .extra
            .push(logged("pppd", "PAP authentication failed"));
        let told = verdict(&rounds);
        let finding = only(&told);
        assert_eq!(finding.cause.0, "pppoe_authentication");
        assert_eq!(finding.confidence, Confidence::Certain);
        assert_eq!(finding.proposal, None);
    }

    #[test]
    fn a_session_that_is_being_dialled_was_not_switched_off() {
        let dialled = |logged: Option<Body>| {
            let mut rounds = [dialling(1, true), dialling(2, true)];
            // The link is there before the session is, and without a carrier.
            let mut ppp = crate::fixture::link(9, "ppp0", false);
            (ppp.admin_up, ppp.driver_kind) = (false, Some("ppp".into()));
            rounds[1].links.push(ppp);
            rounds[1].extra.extend(logged);
            verdict(&rounds)
        };
        let refused = dialled(Some(logged("pppd", "PAP authentication failed")));
        let finding = only(&refused);
        assert_eq!(finding.cause.0, "pppoe_authentication");
        assert_eq!(finding.proposal, None);
        let waits = dialled(None);
        let finding = only(&waits);
        assert_eq!(
            (finding.cause.0.as_str(), finding.component.0.as_str()),
            ("link_down", "ppp0")
        );
        assert_eq!(finding.proposal, None);
    }

    #[test]
    fn a_pulled_cable_explains_the_silence_of_the_concentrator() {
        let mut rounds = [dialling(1, false), dialling(2, false)];
        let wan = rounds[1].link(WAN);
        (wan.carrier, wan.oper) = (Some(false), aizen_protocol::record::OperState::Down);
        let told = verdict(&rounds);
        assert_eq!(only(&told).cause.0, "link_down");
        assert_eq!(only(&told).component.0, "wan");
    }

    #[test]
    fn a_device_without_dial_up_and_one_whose_session_is_up_do_not_alarm() {
        let mut none = healthy(2);
        none.extra = dialling(2, false).extra;
        none.extra
            .push(logged("pppd", "CHAP authentication failed"));
        assert_eq!(verdict(&[healthy(1), none]).health, Health::Healthy);
        let mut up = healthy(2);
        up.profile.wan = vec!["ppp0".into()];
        up.links.push(crate::fixture::link(9, "ppp0", true));
        up.extra = dialling(2, false).extra;
        up.extra.push(logged("pppd", "PAP authentication failed"));
        assert_eq!(up.verdict().health, Health::Healthy);
    }
}
