//! A router that doesn't forward.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Role;

use super::draft::{Draft, Examined, Layer};
use crate::case::View;
use crate::repair;

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let (Some(seen), Some(profile)) = (&view.now().forwarding, view.profile()) else {
        return examined;
    };
    if profile.value.role != Role::Router {
        return examined;
    }
    let needs_ipv4 = view.now().addresses.is_none()
        || view
            .global_addresses()
            .any(|address| address.address.address.is_ipv4());
    match seen.value.ipv4 {
        Some(true) => examined.well.push("IPv4 forwarding is on".into()),
        Some(false) if needs_ipv4 => {
            let mut draft = Draft::new(
                "forwarding_off",
                Layer::Resource,
                "net.ipv4.ip_forward",
                Severity::Critical,
                "This router does not forward IPv4 packets".into(),
            );
            draft.shown(
                "forwarding",
                "ipv4",
                seen.at,
                "net.ipv4.ip_forward is 0".into(),
            );
            draft.backed(
                "profile",
                "role",
                profile.at,
                "the operator says that this device is a router".into(),
            );
            let before = view.this_boot().find_map(|pass| {
                let seen = pass.forwarding.as_ref()?;
                (seen.value.ipv4 == Some(true)).then_some(seen.at)
            });
            if let Some(at) = before {
                let fact = "net.ipv4.ip_forward was 1 earlier in this boot";
                draft.backed("forwarding", "earlier", at, fact.into());
            }
            draft.explains("Hosts behind this router reach the router but nothing beyond it");
            draft.misses(
                "who set it: the files below /etc/sysctl.d and the log of the network service",
            );
            draft.next(
                "Switch forwarding on (`sysctl net.ipv4.ip_forward=1`) and keep it on in /etc/sysctl.d",
            );
            draft.propose(Some(repair::forwarding::switch_on(view)));
            examined.drafts.push(draft);
        }
        Some(false) | None => {}
    }
    examined
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use super::*;
    use crate::fixture::{healthy, only, stop_forwarding, verdict};

    #[test]
    fn a_router_that_stopped_forwarding_is_switched_on_by_the_proposal() {
        let mut broken = healthy(2);
        stop_forwarding(&mut broken);
        let verdict = verdict(&[healthy(1), broken]);
        let finding = only(&verdict);
        assert_eq!(
            (finding.cause.0.as_str(), finding.confidence),
            ("forwarding_off", Confidence::Certain)
        );
        let script = &finding.proposal.as_ref().unwrap().script;
        assert!(
            script.ends_with("change sysctl net.ipv4.ip_forward=1\n"),
            "{script}"
        );
    }

    #[test]
    fn hosts_unknown_devices_and_routers_that_could_not_be_read_do_not_alarm() {
        for role in [Role::Host, Role::Unknown] {
            let mut evidence = healthy(1);
            stop_forwarding(&mut evidence);
            evidence.profile.role = role;
            assert_eq!(evidence.verdict().health, Health::Healthy);
        }
        let mut unread = healthy(1);
        (unread.forwarding.ipv4, unread.forwarding.ipv6) = (None, Some(false));
        assert_eq!(unread.verdict().health, Health::Healthy);
    }
}
