//! Files of configuration that changed shortly before a fault began.
//!
//! A change that touches what broke is told with that fault. It is a finding of its own only where services that
//! answered before stopped to answer after it and nothing else explains that.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{ConfigFile, Connect, ConnectOutcome};
use jiff::{SignedDuration, Timestamp};

use super::draft::{Draft, Examined, Layer};
use super::trend;
use crate::case::{Seen, View};

/// A change this long before a fault may have made it.
const BEFORE: SignedDuration = SignedDuration::from_mins(10);
/// Files are looked at now and then: the fault may be seen first.
const AFTER: SignedDuration = SignedDuration::from_mins(2);

/// Which files touch which causes: a word in the path, and how the causes begin.
const TOUCHES: [(&[&str], &[&str]); 9] = [
    (
        &[
            "resolv", "dnsmasq", "unbound", "named", "bind", "hosts", "dhcp",
        ],
        &["resolver_", "dns_", "nxdomain_", "dnssec_"],
    ),
    (
        &[
            "network",
            "netplan",
            "interfaces",
            "netifd",
            "dhcpcd",
            "NetworkManager",
        ],
        &[
            "link_",
            "no_default",
            "default_route",
            "gateway_",
            "upstream_",
            "route",
            "address",
            "duplicate_",
            "mtu_",
            "vlan_",
            "dhcp_",
            "ipv6_",
        ],
    ),
    (
        &["nftables", "iptables", "firewall", "ufw"],
        &["firewall_", "dns_blocked", "ntp_unreachable", "upstream_"],
    ),
    (&["chrony", "ntp", "timesyncd"], &["ntp_", "clock_"]),
    (
        &["sysctl"],
        &[
            "forwarding_",
            "conntrack_",
            "rp_filter",
            "asymmetric",
            "listen_",
            "syn_",
            "ipv6_",
            "neighbour",
        ],
    ),
    (&["wireguard", "wg"], &["vpn_"]),
    (&["ipsec", "swanctl", "strongswan"], &["ipsec_"]),
    (
        &["hostapd", "wpa_supplicant", "wireless"],
        &["wifi_", "dfs_"],
    ),
    (&["fstab"], &["file_system_", "disk_", "inodes_"]),
];

/// A file whose content changed between two readings, and when.
struct Changed<'a> {
    file: &'a ConfigFile,
    at: Timestamp,
}

/// Changes within the evidence: the content differs between two readings of this boot, which no clock can feign.
fn changes<'a>(view: &View<'a>) -> Vec<Changed<'a>> {
    let readings: Vec<&'a Seen<Vec<ConfigFile>>> =
        trend::readings(view, |pass| pass.configuration.as_ref()).collect();
    let mut all: Vec<Changed<'a>> = Vec::new();
    for pair in readings.windows(2) {
        let (after, before) = (pair[0], pair[1]);
        for file in &after.value {
            let is_known = all.iter().any(|changed| changed.file.path == file.path);
            let older = before.value.iter().find(|older| older.path == file.path);
            if !is_known && older.is_some_and(|older| older.digest != file.digest) {
                // The file's own time if it lies between the two readings; it may be set at will.
                let own = (before.at..=after.at).contains(&file.modified);
                all.push(Changed {
                    file,
                    at: if own { file.modified } else { after.at },
                });
            }
        }
    }
    all
}

fn touches(path: &str, draft: &Draft) -> bool {
    let by_cause = TOUCHES.iter().any(|(words, causes)| {
        words.iter().any(|word| path.contains(word))
            && causes.iter().any(|cause| draft.cause().starts_with(cause))
    });
    let name = draft.component();
    let by_name = draft.cause().starts_with("service_") && name.len() >= 3 && path.contains(name);
    by_cause || by_name
}

fn is_shortly_before(change: Timestamp, fault: Timestamp) -> bool {
    change >= fault - BEFORE && change <= fault + AFTER
}

/// Tells with a fault which files changed shortly before it began and touch what broke.
pub(super) fn attach(view: &View<'_>, draft: &mut Draft, since: Timestamp) {
    for changed in changes(view) {
        let path = &changed.file.path.0;
        if is_shortly_before(changed.at, since) && touches(path, draft) {
            let fact = format!(
                "{path} was changed at {}, shortly before this began",
                changed.at
            );
            draft.noted("configuration", changed.at, fact);
            draft.misses(format!(
                "what was changed in {path} (compare it with its last saved version)"
            ));
        }
    }
}

/// What answered before a change and doesn't since, in two readings.
pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    examined.drafts.extend(only_explanation(view));
    if examined.drafts.is_empty() && view.now().configuration.is_some() && changes(view).is_empty()
    {
        examined
            .well
            .push("No file of network configuration was changed lately".into());
    }
    examined
}

fn only_explanation(view: &View<'_>) -> Option<Draft> {
    let readings: Vec<&Seen<Vec<Connect>>> =
        trend::readings(view, |pass| pass.connects.as_ref()).collect();
    let newest = readings.first()?;
    let lost = |connect: &Connect| {
        let failing = readings.iter().take_while(|seen| {
            outcome(&seen.value, connect)
                .is_some_and(|outcome| outcome != ConnectOutcome::Connected)
        });
        let first = failing.clone().last()?.at;
        let answered = readings
            .get(failing.clone().count())
            .and_then(|seen| outcome(&seen.value, connect))
            == Some(ConnectOutcome::Connected);
        (failing.count() >= 2 && answered).then_some(first)
    };
    let (connect, began) = newest
        .value
        .iter()
        .find_map(|connect| Some((connect, lost(connect)?)))?;
    let changed = changes(view)
        .into_iter()
        .find(|changed| is_shortly_before(changed.at, began))?;
    let path = &changed.file.path.0;
    let mut draft = Draft::new(
        "bad_configuration_change",
        Layer::Resource,
        path.as_str(),
        Severity::Warning,
        format!(
            "Since {path} was changed, {} port {} does not answer",
            connect.target, connect.port
        ),
    );
    draft.last_resort = true;
    draft.shown(
        "connects",
        &connect.target.to_string(),
        began,
        format!(
            "no TCP connection to {} port {} since {began}, which worked before",
            connect.target, connect.port
        ),
    );
    draft.backed(
        "configuration",
        path,
        changed.at,
        format!("{path} was changed at {}", changed.at),
    );
    draft.misses(format!(
        "what was changed in {path}, and whether the other end is away by itself"
    ));
    draft.next(format!(
        "Compare {path} with its last saved version; if the change explains it, put that version \
         back"
    ));
    Some(draft)
}

fn outcome(connects: &[Connect], wanted: &Connect) -> Option<ConnectOutcome> {
    let same = connects
        .iter()
        .find(|other| (other.target, other.port) == (wanted.target, wanted.port))?;
    Some(same.outcome)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Confidence;
    use aizen_protocol::record::{Body, ConnectOutcome};

    use crate::fixture::machine::{WEB, config, connect, history};
    use crate::fixture::{Evidence, kill_resolver, only, verdict};

    fn changed(path: &str, break_it: impl Fn(&mut Evidence)) -> Vec<Evidence> {
        history(5, |round, evidence| {
            let digest = if round > 2 { "bbbb" } else { "aaaa" };
            evidence.see(Body::Configuration(vec![config(path, digest)]));
            let outcome = if round > 2 && path != "quiet" {
                ConnectOutcome::Timeout
            } else {
                ConnectOutcome::Connected
            };
            evidence.see(Body::Connects(vec![connect(WEB, outcome)]));
            if round > 2 {
                break_it(evidence);
            }
        })
    }

    #[test]
    fn a_change_that_touches_what_broke_is_told_with_it() {
        let verdict = verdict(&changed("/etc/dnsmasq.conf", kill_resolver));
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "resolver_dead");
        assert!(
            finding
                .evidence
                .iter()
                .any(|fact| fact.source == "configuration")
        );
    }

    #[test]
    fn where_nothing_else_explains_a_loss_the_change_is_the_finding() {
        let verdict = verdict(&changed("/etc/network/interfaces", |_| {}));
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.confidence),
            ("bad_configuration_change", Confidence::Likely)
        );
        assert_eq!(finding.proposal, None);
    }

    #[test]
    fn a_change_after_which_all_is_well_and_one_of_something_else_are_not_told() {
        assert_eq!(verdict(&changed("quiet", |_| {})).findings, []);
        let unrelated = verdict(&changed("/etc/fstab", kill_resolver));
        let finding = only(&unrelated);
        assert!(
            finding
                .evidence
                .iter()
                .all(|fact| fact.source != "configuration")
        );
        // A loss without a change has no finding here.
        let lost = history(5, |round, evidence| {
            let outcome = if round > 2 {
                ConnectOutcome::Timeout
            } else {
                ConnectOutcome::Connected
            };
            evidence.see(Body::Connects(vec![connect(WEB, outcome)]));
            evidence.see(Body::Configuration(vec![config("/etc/hosts", "aaaa")]));
        });
        assert_eq!(verdict(&lost).findings, []);
    }
}
