//! TLS certificates that nobody should accept: too old, too young, for another name, or from nobody's authority.

use std::net::IpAddr;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Certificate, TlsOutcome};
use jiff::Timestamp;

use super::draft::{Draft, Examined, Layer};
use super::portal;
use super::trend;
use crate::case::View;

/// Offset from time servers up to which this clock is right for certificates, milliseconds.
const RIGHT_MS: u64 = 60_000;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().certificates else {
        return examined;
    };
    // Behind a walled garden every host shows the garden's certificate.
    if portal::is_walled(view) {
        return examined;
    }
    for certificate in &seen.value {
        let draft = match certificate.outcome {
            TlsOutcome::Expired => Some(expired(view, seen.at, certificate)),
            TlsOutcome::NotYetValid => Some(not_yet_valid(view, seen.at, certificate)),
            TlsOutcome::WrongName => Some(wrong_name(seen.at, certificate)),
            TlsOutcome::UnknownIssuer => intercepted(view, seen.at, certificate, &seen.value),
            TlsOutcome::Trusted | TlsOutcome::Invalid | TlsOutcome::NoHandshake => None,
        };
        match draft {
            Some(mut draft) => {
                before(&mut draft, view, certificate);
                examined.drafts.push(draft);
            }
            None if certificate.outcome == TlsOutcome::Trusted => {
                examined
                    .well
                    .push(format!("The certificate of {} is good", certificate.host));
            }
            None => {}
        }
    }
    examined
}

fn severity(certificate: &Certificate) -> Severity {
    if certificate.uplink {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

fn draft(cause: &'static str, certificate: &Certificate, summary: String) -> Draft {
    let mut draft = Draft::new(
        cause,
        Layer::Resource,
        certificate.host.0.as_str(),
        severity(certificate),
        summary,
    );
    if certificate.uplink {
        draft.explains("This device can not reach its orchestrator");
    } else {
        draft.explains(format!("Programs and browsers refuse {}", certificate.host));
    }
    draft
}

/// The same host was trusted earlier.
fn before(draft: &mut Draft, view: &View<'_>, certificate: &Certificate) {
    let trusted = trend::readings(view, |pass| pass.certificates.as_ref()).find(|seen| {
        seen.value
            .iter()
            .any(|other| other.host == certificate.host && other.outcome == TlsOutcome::Trusted)
    });
    if let Some(seen) = trusted {
        let fact = format!("the certificate of {} was good before", certificate.host);
        draft.backed("certificates", "earlier", seen.at, fact);
    }
}

/// How far the clock is off, by the time servers: the smallest offset that one of them tells.
fn clock_error(view: &View<'_>) -> Option<(Timestamp, u64)> {
    let seen = view.now().time.as_ref()?;
    let offsets = seen
        .value
        .servers
        .iter()
        .filter_map(|server| server.offset_ms);
    Some((seen.at, offsets.map(i64::unsigned_abs).min()?))
}

fn right_clock(draft: &mut Draft, view: &View<'_>) {
    match clock_error(view) {
        Some((at, error)) if error <= RIGHT_MS => {
            draft.backed(
                "time",
                "offset",
                at,
                format!("this clock is right within {error} ms"),
            );
        }
        Some((at, error)) => {
            draft.contradicted("time", at, format!("this clock is {} s off", error / 1000));
        }
        None => draft.misses("whether this clock is right (`timedatectl`, `chronyc tracking`)"),
    }
}

fn expired(view: &View<'_>, at: Timestamp, certificate: &Certificate) -> Draft {
    let host = &certificate.host;
    let mut draft = draft(
        "certificate_expired",
        certificate,
        format!("The certificate of {host} has expired"),
    );
    let ended = certificate
        .not_after
        .map_or_else(String::new, |end| format!("; it was valid until {end}"));
    draft.shown(
        "certificates",
        &host.0,
        at,
        format!(
            "{host} port {} showed an expired certificate{ended}",
            certificate.port
        ),
    );
    right_clock(&mut draft, view);
    draft.misses("why it was not renewed (the log of the ACME client on that host)");
    draft.next(format!(
        "Renew the certificate on {host} and reload the service there; keep the old file"
    ));
    draft
}

fn not_yet_valid(view: &View<'_>, at: Timestamp, certificate: &Certificate) -> Draft {
    let host = &certificate.host;
    let mut draft = draft(
        "certificate_not_yet_valid",
        certificate,
        format!("The certificate of {host} is not valid yet"),
    );
    let begins = certificate
        .not_before
        .map_or_else(String::new, |begin| format!("; it is valid from {begin}"));
    draft.shown(
        "certificates",
        &host.0,
        at,
        format!(
            "{host} port {} showed a certificate from the future{begins}",
            certificate.port
        ),
    );
    right_clock(&mut draft, view);
    draft.misses("the clock of the authority that signed it");
    draft.next(format!(
        "Compare this clock with a time server; if it is right, have the certificate of {host} \
         issued anew"
    ));
    draft
}

fn wrong_name(at: Timestamp, certificate: &Certificate) -> Draft {
    let host = &certificate.host;
    let mut draft = draft(
        "certificate_wrong_name",
        certificate,
        format!("{host} shows a certificate for another name"),
    );
    draft.shown(
        "certificates",
        &host.0,
        at,
        format!(
            "{host} port {} showed a certificate that does not hold this name{}",
            certificate.port,
            issuer(certificate)
        ),
    );
    draft.misses(
        "to which address the name should lead (`aizen dns NAME` with a second resolver named)",
    );
    draft.next(format!(
        "Check that {host} leads to the right address, then that its server has the right \
         certificate configured"
    ));
    draft
}

fn issuer(certificate: &Certificate) -> String {
    certificate
        .issuer
        .as_ref()
        .map_or_else(String::new, |issuer| format!(", issued by {issuer}"))
}

/// Somebody between signs in place of the host. A self-signed certificate of one host is its own business: two hosts
/// with one unknown issuer, one that was trusted before, or the orchestrator's show it.
fn intercepted(
    view: &View<'_>,
    at: Timestamp,
    certificate: &Certificate,
    all: &[Certificate],
) -> Option<Draft> {
    if !certificate.address.is_none_or(is_public) && !certificate.uplink {
        return None;
    }
    let same: Vec<&Certificate> = all
        .iter()
        .filter(|other| {
            other.host != certificate.host
                && other.outcome == TlsOutcome::UnknownIssuer
                && other.issuer.is_some()
                && other.issuer == certificate.issuer
                && other.address.is_none_or(is_public)
        })
        .collect();
    let was_trusted = trend::readings(view, |pass| pass.certificates.as_ref()).any(|seen| {
        seen.value
            .iter()
            .any(|other| other.host == certificate.host && other.outcome == TlsOutcome::Trusted)
    });
    if same.is_empty() && !was_trusted && !certificate.uplink {
        return None;
    }
    let host = &certificate.host;
    let mut draft = draft(
        "tls_intercepted",
        certificate,
        format!(
            "The certificate of {host} comes from an unknown authority: somebody between may \
             read along"
        ),
    );
    draft.shown(
        "certificates",
        &host.0,
        at,
        format!(
            "{host} port {} showed a certificate of an unknown authority{}",
            certificate.port,
            issuer(certificate)
        ),
    );
    if let Some(other) = same.first() {
        draft.backed(
            "certificates",
            "same issuer",
            at,
            format!("{} shows one of the same authority", other.host),
        );
    }
    draft.misses(
        "whether this network inspects TLS on purpose, and the chain itself (`openssl s_client \
         -showcerts`)",
    );
    draft.next(format!(
        "Ask whoever runs this network whether it inspects TLS; send nothing secret to {host} \
         until that is known"
    ));
    Some(draft)
}

/// Not of a private, shared, loopback or link-local range.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared)
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Severity};
    use aizen_protocol::private::Text;
    use aizen_protocol::record::{Body, Certificate, TlsOutcome};

    use crate::fixture::machine::{certificate, history};
    use crate::fixture::{Evidence, healthy, ip, only, shift_clock, verdict};

    const HOST: &str = "host-aaaa.host-bbbb";

    fn with(certificates: Vec<Certificate>) -> Evidence {
        let mut evidence = healthy(1);
        evidence.see(Body::Certificates(certificates));
        evidence
    }

    #[test]
    fn an_expired_certificate_is_told_where_the_clock_is_right() {
        let mut expired = with(vec![certificate(HOST, TlsOutcome::Expired)]);
        let verdict = expired.verdict();
        let finding = only(&verdict);
        assert_eq!(
            (
                finding.cause.0.as_str(),
                finding.severity,
                finding.confidence
            ),
            ("certificate_expired", Severity::Warning, Confidence::Likely)
        );
        // The clock explains it.
        shift_clock(&mut expired);
        assert_eq!(only(&expired.verdict()).cause.0, "ntp_offset");
    }

    #[test]
    fn one_from_the_future_and_one_for_another_name_have_names_of_their_own() {
        for (outcome, cause) in [
            (TlsOutcome::NotYetValid, "certificate_not_yet_valid"),
            (TlsOutcome::WrongName, "certificate_wrong_name"),
        ] {
            let mut own = certificate(HOST, outcome);
            own.uplink = true;
            let verdict = with(vec![own]).verdict();
            assert_eq!(only(&verdict).cause.0, cause);
            assert_eq!(only(&verdict).severity, Severity::Critical);
        }
    }

    #[test]
    fn two_hosts_with_one_unknown_issuer_or_one_that_was_trusted_are_intercepted() {
        let unknown = |host: &str| Certificate {
            issuer: Some(Text("Corporate Proxy".into())),
            ..certificate(host, TlsOutcome::UnknownIssuer)
        };
        let two = with(vec![unknown(HOST), unknown("host-cccc")]).verdict();
        assert!(
            two.findings
                .iter()
                .all(|finding| finding.cause.0 == "tls_intercepted")
        );
        assert_eq!(two.findings.len(), 2);
        let turned = history(2, |round, evidence| {
            let outcome = if round > 1 {
                TlsOutcome::UnknownIssuer
            } else {
                TlsOutcome::Trusted
            };
            evidence.see(Body::Certificates(vec![certificate(HOST, outcome)]));
        });
        assert_eq!(only(&verdict(&turned)).cause.0, "tls_intercepted");
    }

    #[test]
    fn self_signed_hosts_of_the_own_network_and_hosts_that_are_away_do_not_alarm() {
        let mut own = certificate(HOST, TlsOutcome::UnknownIssuer);
        own.address = Some(ip("192.168.40.9"));
        let mut other = own.clone();
        other.host = aizen_protocol::private::Name("host-cccc".into());
        let cases = [
            vec![own, other],
            vec![certificate(HOST, TlsOutcome::UnknownIssuer)],
            vec![certificate(HOST, TlsOutcome::NoHandshake)],
            vec![certificate(HOST, TlsOutcome::Trusted)],
        ];
        for certificates in cases {
            assert_eq!(
                with(certificates.clone()).verdict().findings,
                [],
                "{certificates:?}"
            );
        }
    }
}
