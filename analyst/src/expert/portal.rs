//! Captive portals: the web answers, but with somebody else's page.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{DnsPurpose, Portal, TlsOutcome};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use crate::case::{Family, View, Way, default_route};

/// "Network Authentication Required" (RFC 6585).
const AUTHENTICATION_REQUIRED: u16 = 511;
/// Different names that lead to one address before that is odd: two sites may share a host.
const NAMES: usize = 3;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().portal else {
        return examined;
    };
    let portal = &seen.value;
    if portal.expected {
        examined.well.push(format!(
            "Plain web pages arrive unchanged: {} gave the known answer",
            portal.host
        ));
    } else if let Some(answer) = foreign(portal) {
        examined.drafts.push(walled(view, seen.at, portal, answer));
    }
    examined
}

/// True if something else than the known page was answered: until somebody logs in, a login page answers for every name
/// and host.
pub(super) fn is_walled(view: &View<'_>) -> bool {
    let seen = view.now().portal.as_ref();
    seen.is_some_and(|seen| !seen.value.expected && seen.value.status.is_some())
}

/// What was answered in place of the known page. A server error is no portal, and neither is a redirect to the same host.
fn foreign(portal: &Portal) -> Option<String> {
    let status = portal.status?;
    match (&portal.redirect, status) {
        (Some(to), 300..=399) if *to != portal.host => {
            Some(format!("with status {status} and leads to {to}"))
        }
        (None, 200..=299) => Some(format!("with status {status} and another page")),
        (_, AUTHENTICATION_REQUIRED) => Some(format!("with status {status}: log in first")),
        _ => None,
    }
}

fn walled(view: &View<'_>, at: Timestamp, portal: &Portal, answer: String) -> Draft {
    let host = &portal.host;
    let certificate = foreign_certificate(view);
    let names = same_address(view);
    let severity = if certificate.is_some() || names.is_some() {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let mut draft = Draft::new(
        "captive_portal",
        Layer::Upstream,
        "web access",
        severity,
        "A login page stands between this device and the web".into(),
    );
    let fact = format!("a plain request to {host} was answered {answer}");
    draft.shown("portal", "answer", at, fact);
    let is_sure = portal.status == Some(AUTHENTICATION_REQUIRED);
    if let Some((at, fact)) = certificate {
        draft.shown("certificates", "foreign", at, fact);
    }
    if let Some((at, fact)) = names {
        draft.shown("dns", "one_address", at, fact);
    }
    let way = default_route(view.routes(), Family::V4);
    draft.rests_on = way.map(|route| Way {
        link: route.link,
        beyond: Some(Family::V4),
    });
    if severity == Severity::Critical || is_sure {
        draft.breaks_beyond.push(Family::V4);
    }
    draft.explains("Pings may work while web pages and updates fail or show certificate warnings");
    draft.misses(
        "what the page says, and who runs it: open any http page in a browser on this network",
    );
    draft.next(
        "Log in on the page in a browser behind this device, or ask the provider to let this device through: it does not \
         log in by itself",
    );
    draft
}

/// A host shows a certificate that isn't its own.
fn foreign_certificate(view: &View<'_>) -> Option<(Timestamp, String)> {
    let seen = view.now().certificates.as_ref()?;
    let mut foreign = seen.value.iter().filter(|certificate| {
        matches!(
            certificate.outcome,
            TlsOutcome::WrongName | TlsOutcome::UnknownIssuer
        )
    });
    let certificate = foreign.next()?;
    let what = match certificate.outcome {
        TlsOutcome::WrongName => "for another name",
        _ => "of an unknown issuer",
    };
    Some((
        seen.at,
        format!("{} shows a certificate {what}", certificate.host),
    ))
}

/// Many names lead to one address.
fn same_address(view: &View<'_>) -> Option<(Timestamp, String)> {
    let seen = view.now().dns.as_ref()?;
    let mut names: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    for probe in &seen.value {
        let counts = matches!(probe.purpose, DnsPurpose::Lookup | DnsPurpose::Nonexistent);
        if let ([address], true) = (probe.addresses.as_slice(), counts) {
            names.entry(*address).or_default().insert(&probe.name.0);
        }
    }
    let (address, names) = names.into_iter().max_by_key(|(_, names)| names.len())?;
    (names.len() >= NAMES).then(|| {
        let fact = format!("{} different names lead to {address}", names.len());
        (seen.at, fact)
    })
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};
    use aizen_protocol::private::Name;
    use aizen_protocol::record::{Body, Certificate};

    use super::*;
    use crate::fixture::{Evidence, RESOLVER, dns, healthy, ip, kill_gateway, only};

    fn answered(status: Option<u16>, redirect: Option<&str>, expected: bool) -> Evidence {
        let mut evidence = healthy(1);
        evidence.extra.push(Body::Portal(Portal {
            host: Name("check.example".into()),
            status,
            expected,
            redirect: redirect.map(|host| Name(host.into())),
            error: None,
        }));
        evidence
    }

    #[test]
    fn a_redirect_to_a_login_page_is_suspected_and_a_foreign_certificate_makes_it_likely() {
        let mut evidence = answered(Some(302), Some("login.hotel.example"), false);
        let told = evidence.verdict();
        let finding = only(&told);
        assert_eq!(finding.cause.0, "captive_portal");
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Warning, Confidence::Suspected)
        );
        evidence.extra.push(Body::Certificates(vec![Certificate {
            host: Name("orchestrator.example".into()),
            address: None,
            port: 443,
            uplink: true,
            outcome: TlsOutcome::WrongName,
            not_before: None,
            not_after: None,
            issuer: None,
            detail: None,
        }]));
        let told = evidence.verdict();
        let mut portals = told
            .findings
            .iter()
            .filter(|f| f.cause.0 == "captive_portal");
        let finding = portals.next().unwrap();
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Critical, Confidence::Likely)
        );
    }

    #[test]
    fn one_address_for_every_name_bears_it_out() {
        let mut evidence = answered(Some(200), None, false);
        for name in ["a.example", "b.example", "c.example"] {
            let mut probe = dns(RESOLVER, true, &[], 0);
            (probe.name, probe.addresses) = (Name(name.into()), vec![ip("172.31.9.9")]);
            probe.answers = vec![aizen_protocol::record::DnsAnswer::Rcode(0)];
            probe.rtt_us = vec![2_000];
            evidence.dns.push(probe);
        }
        let told = evidence.verdict();
        let mut portals = told
            .findings
            .iter()
            .filter(|f| f.cause.0 == "captive_portal");
        assert_eq!(portals.next().unwrap().confidence, Confidence::Likely);
    }

    #[test]
    fn known_answers_errors_and_upgrades_to_https_do_not_alarm() {
        for evidence in [
            answered(Some(204), None, true),
            answered(None, None, false),
            answered(Some(503), None, false),
            answered(Some(404), None, false),
            answered(Some(301), Some("check.example"), false),
        ] {
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
    }

    #[test]
    fn an_answer_from_before_the_outage_is_no_finding_of_its_own() {
        let mut evidence = answered(Some(302), Some("login.hotel.example"), false);
        kill_gateway(&mut evidence);
        assert_eq!(only(&evidence.verdict()).cause.0, "gateway_dead");
    }
}
