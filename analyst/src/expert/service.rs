//! Services that failed, and those that fall again and again. What somebody stopped is stopped.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Service, ServiceState};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::trend;
use crate::case::{Seen, View};

/// Services without which the network or the way to it fails.
const NETWORK: [&str; 20] = [
    "dnsmasq",
    "unbound",
    "systemd-resolved",
    "named",
    "bind9",
    "systemd-networkd",
    "NetworkManager",
    "networking",
    "network",
    "netifd",
    "hostapd",
    "wpa_supplicant",
    "odhcpd",
    "kea-dhcp4-server",
    "isc-dhcp-server",
    "nftables",
    "firewall",
    "ssh",
    "sshd",
    "dropbear",
];
/// Restarts within the window that make a loop.
const RESTARTS: u32 = 3;
const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// What systemd says once it gave up.
const GAVE_UP: &str = "start-limit-hit";

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().services else {
        return examined;
    };
    for service in &seen.value {
        let draft = looping(view, seen, service).or_else(|| failed(view, seen, service));
        examined.drafts.extend(draft);
    }
    if examined.drafts.is_empty() {
        let running = seen
            .value
            .iter()
            .filter(|service| service.state == ServiceState::Running)
            .count();
        examined
            .well
            .push(format!("No service failed, {running} run"));
    }
    examined
}

fn severity(service: &Service) -> Severity {
    if NETWORK.contains(&service.name.as_str()) {
        Severity::Critical
    } else {
        Severity::Warning
    }
}

/// `exit code 1`, `signal 11`, in the manager's word.
fn end(service: &Service) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(service.result.clone());
    parts.extend(service.signal.map(|signal| format!("signal {signal}")));
    parts.extend(service.exit_code.map(|code| format!("exit code {code}")));
    if parts.is_empty() {
        "no reason given".into()
    } else {
        parts.join(", ")
    }
}

fn find<'a>(services: &'a [Service], service: &Service) -> Option<&'a Service> {
    services
        .iter()
        .find(|other| (&other.name, other.manager) == (&service.name, service.manager))
}

fn failed(view: &View<'_>, seen: &Seen<Vec<Service>>, service: &Service) -> Option<Draft> {
    if service.state != ServiceState::Failed || service.wanted == Some(false) {
        return None;
    }
    let name = &service.name;
    let mut draft = Draft::new(
        "service_failed",
        Layer::Resource,
        name.as_str(),
        severity(service),
        format!("The service {name} failed: {}", end(service)),
    );
    let since = service
        .since
        .map_or_else(String::new, |since| format!(" since {since}"));
    draft.shown(
        "services",
        name,
        seen.at,
        format!("{name} is in the state failed{since} ({})", end(service)),
    );
    let ran = trend::readings(view, |pass| pass.services.as_ref()).find(|seen| {
        find(&seen.value, service).is_some_and(|older| older.state == ServiceState::Running)
    });
    if let Some(older) = ran {
        draft.backed(
            "services",
            "earlier",
            older.at,
            format!("{name} ran earlier in this boot"),
        );
    }
    if service.wanted == Some(true) {
        draft.noted(
            "services",
            seen.at,
            format!("{name} is to run from the start of the device on"),
        );
    }
    finish(&mut draft, service);
    Some(draft)
}

/// Growth of the count of restarts within the window, and when the window begins.
fn restarts(view: &View<'_>, service: &Service) -> Option<(u32, Timestamp)> {
    let present = service.restarts?;
    let readings = trend::readings(view, |pass| pass.services.as_ref());
    let newest = view.now().services.as_ref()?.at;
    let (oldest, before) = readings
        .take_while(|seen| newest.duration_since(seen.at) <= WINDOW)
        .filter_map(|seen| Some((seen.at, find(&seen.value, service)?.restarts?)))
        .last()?;
    Some((present.checked_sub(before)?, oldest))
}

fn looping(view: &View<'_>, seen: &Seen<Vec<Service>>, service: &Service) -> Option<Draft> {
    let grown = restarts(view, service).filter(|(grown, _)| *grown >= RESTARTS);
    let gave_up = service.result.as_deref() == Some(GAVE_UP)
        && service.state == ServiceState::Failed
        && service.wanted != Some(false);
    if grown.is_none() && !gave_up {
        return None;
    }
    let name = &service.name;
    let mut draft = Draft::new(
        "service_crash_loop",
        Layer::Resource,
        name.as_str(),
        severity(service),
        format!("The service {name} falls again and again: {}", end(service)),
    );
    if let Some((count, from)) = grown {
        draft.shown(
            "services",
            "restarts",
            seen.at,
            format!("{name} was started again {count} times since {from}"),
        );
    }
    if gave_up {
        draft.shown(
            "services",
            "gave up",
            seen.at,
            format!("its manager gave up starting {name}: {GAVE_UP}"),
        );
    }
    if service.exit_code.is_some() || service.signal.is_some() {
        draft.backed(
            "services",
            "end",
            seen.at,
            format!("its last end: {}", end(service)),
        );
    }
    finish(&mut draft, service);
    Some(draft)
}

fn finish(draft: &mut Draft, service: &Service) {
    let name = &service.name;
    // A forwarder that fell is why nothing listens on this device's own address.
    if ["dnsmasq", "unbound", "systemd-resolved", "named", "bind9"].contains(&name.as_str()) {
        draft.covers("resolver_localhost_dead", None);
    }
    draft.explains(format!("What {name} does for others is not done"));
    draft.misses(format!(
        "its last words (`journalctl -u {name} -n 50`, `logread -e {name}`)"
    ));
    draft.next(format!(
        "Read the last words of {name} (`journalctl -u {name} -n 50`), correct what they name, \
         then start it once; if it falls again, put its last good configuration back"
    ));
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Severity};
    use aizen_protocol::record::{Body, DnsAnswer, Service, ServiceState};

    use crate::fixture::machine::{history, service};
    use crate::fixture::{Evidence, SECOND, dns, fill_disk, ip, only, verdict};

    fn with(services: impl Fn(u64) -> Vec<Service>) -> Vec<Evidence> {
        history(4, |round, evidence| {
            evidence.see(Body::Services(services(round)))
        })
    }

    fn fallen(name: &str) -> Vec<Evidence> {
        let name = name.to_owned();
        with(move |round| {
            let state = if round > 1 {
                ServiceState::Failed
            } else {
                ServiceState::Running
            };
            vec![service(&name, state, Some(true))]
        })
    }

    #[test]
    fn a_service_that_ran_and_failed_is_told_the_networks_ones_as_critical() {
        let verdict_network = verdict(&fallen("hostapd"));
        let finding = only(&verdict_network);
        assert_eq!(
            (
                finding.cause.0.as_str(),
                finding.severity,
                finding.confidence
            ),
            ("service_failed", Severity::Critical, Confidence::Likely)
        );
        assert_eq!(
            only(&verdict(&fallen("backup"))).severity,
            Severity::Warning
        );
    }

    #[test]
    fn three_restarts_in_five_minutes_and_a_manager_that_gave_up_are_a_loop() {
        let restarting = with(|round| {
            let mut one = service("frr", ServiceState::Running, Some(true));
            one.restarts = Some(u32::try_from(round).unwrap() * 2);
            vec![one]
        });
        assert_eq!(only(&verdict(&restarting)).cause.0, "service_crash_loop");
        let given_up = with(|_| {
            let mut one = service("frr", ServiceState::Failed, Some(true));
            one.result = Some("start-limit-hit".into());
            vec![one]
        });
        assert_eq!(only(&verdict(&given_up)).cause.0, "service_crash_loop");
    }

    #[test]
    fn stopped_unwanted_and_once_restarted_services_do_not_alarm() {
        let services: [fn(u64) -> Vec<Service>; 4] = [
            |_| vec![service("rsync", ServiceState::Stopped, Some(true))],
            |_| vec![service("bluetooth", ServiceState::Failed, Some(false))],
            |_| vec![service("frr", ServiceState::Starting, Some(true))],
            |round| {
                let mut one = service("frr", ServiceState::Running, Some(true));
                one.restarts = Some(40 + u32::from(round > 2));
                vec![one]
            },
        ];
        for services in services {
            assert_eq!(verdict(&with(services)).findings, []);
        }
    }

    #[test]
    fn a_full_disk_explains_a_service_that_fell() {
        let mut rounds = fallen("dnsmasq");
        rounds[1..].iter_mut().for_each(fill_disk);
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "disk_full");
        assert!(
            finding
                .consequences
                .iter()
                .any(|text| text.0.contains("dnsmasq"))
        );
    }

    #[test]
    fn a_forwarder_that_fell_explains_the_closed_port() {
        let mut rounds = fallen("dnsmasq");
        for evidence in &mut rounds[1..] {
            evidence.resolvers.configured = vec![ip("127.0.0.1")];
            evidence.resolvers.alternates = vec![ip(SECOND)];
            evidence.dns = vec![
                dns("127.0.0.1", true, &[DnsAnswer::PortUnreachable; 5], 0),
                dns(SECOND, false, &[DnsAnswer::Rcode(0); 5], 9_000),
            ];
        }
        assert_eq!(only(&verdict(&rounds)).cause.0, "service_failed");
    }
}
