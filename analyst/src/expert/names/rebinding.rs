//! A forwarder that drops private answers as a guard against DNS rebinding, and drops a wanted one.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{DnsAnswer, DnsPurpose};

use crate::case::View;
use crate::expert::draft::{Draft, Layer};
use crate::expert::log;

/// What dnsmasq and unbound write.
const SAID: [&str; 2] = ["possible dns-rebind attack", "private address removed"];
const MINUTES: i64 = 15;
/// One such answer is a guard at work; somebody who wants a name asks again.
const LINES: usize = 2;

pub(super) fn examine(view: &View<'_>) -> Option<Draft> {
    let lines: Vec<_> = log::recent(view, MINUTES, &SAID).collect();
    let oldest = lines.first()?;
    let newest = lines.last()?;
    if lines.len() < LINES {
        return None;
    }
    let mut draft = Draft::new(
        "dns_rebinding_filter",
        Layer::Names,
        newest.program.as_str(),
        Severity::Warning,
        "The forwarder drops private answers for a name, as a guard against DNS rebinding".into(),
    );
    draft.shown("log", "rebinding", oldest.at, log::quote(newest));
    draft.noted(
        "log",
        newest.at,
        format!("{} such lines within {MINUTES} min", lines.len()),
    );
    // The measured side: a name that one resolver leaves empty and another one gives a private address.
    let probes = || {
        view.now()
            .dns
            .iter()
            .flat_map(|seen| seen.value.iter().map(|probe| (seen.at, probe)))
            .filter(|(_, probe)| probe.purpose == DnsPurpose::Lookup)
    };
    let dropped = probes().find_map(|(at, probe)| {
        let is_empty = probe.configured
            && probe.addresses.is_empty()
            && probe
                .answers
                .iter()
                .any(|answer| matches!(answer, DnsAnswer::Rcode(0 | 5)));
        let other = probes().find(|(_, other)| {
            other.resolver != probe.resolver
                && other.name == probe.name
                && other.addresses.iter().any(is_private)
        })?;
        is_empty.then_some((at, probe, other.1))
    });
    match dropped {
        Some((at, probe, other)) => {
            let fact = format!(
                "{} has no address for {}, and {} gives a private one",
                probe.resolver, probe.name, other.resolver
            );
            draft.backed("dns", &probe.name.0, at, fact);
        }
        None => draft.misses(
            "what another resolver answers for that name (`aizen dns NAME` with a second \
             resolver named)",
        ),
    }
    draft.misses("whether somebody wants that name: only then it is a fault");
    draft.explains("Hosts of the own network that have public names are not found by name");
    draft.next(
        "If the name belongs to this network, allow that one domain in the forwarder (dnsmasq: \
         `rebind-domain-ok`; unbound: `private-domain`); leave the guard on for all others",
    );
    Some(draft)
}

/// RFC 1918 and RFC 4193.
fn is_private(address: &std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(address) => address.is_private(),
        std::net::IpAddr::V6(address) => address.segments()[0] & 0xfe00 == 0xfc00,
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Confidence;
    use aizen_protocol::record::Body;

    use crate::fixture::machine::log;
    use crate::fixture::{healthy, only};

    const LINE: &str = "possible DNS-rebind attack detected: nas.host-b6tgy2jx4rv3c";

    #[test]
    fn lines_of_log_alone_are_only_suspected_and_justify_no_change() {
        let mut evidence = healthy(3);
        evidence.see(Body::Log(vec![
            log(1, "dnsmasq", LINE),
            log(3, "dnsmasq", LINE),
        ]));
        let verdict = evidence.verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.confidence),
            ("dns_rebinding_filter", Confidence::Suspected)
        );
        assert_eq!(finding.proposal, None);
    }

    #[test]
    fn one_line_and_old_lines_do_not_alarm() {
        let mut once = healthy(3);
        once.see(Body::Log(vec![log(3, "dnsmasq", LINE)]));
        assert_eq!(once.verdict().findings, []);
        let mut old = healthy(900);
        old.see(Body::Log(vec![
            log(1, "dnsmasq", LINE),
            log(2, "dnsmasq", LINE),
        ]));
        assert_eq!(old.verdict().findings, []);
    }
}
