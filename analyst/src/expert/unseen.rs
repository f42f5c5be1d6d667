//! What a verdict could not see, and why.

use std::collections::BTreeSet;

use aizen_protocol::private::Text;
use aizen_protocol::record::Gap;

use super::family::FAMILIES;
use super::unit::list;
use crate::case::View;

/// Collectors that tell nothing where there is nothing of their kind: no such link, table or setting. If one fails, the
/// device says so itself.
const OF_SOME_DEVICES: [&str; 10] = [
    "modules",
    "wireguard",
    "dhcp_probes",
    "pppoe_probes",
    "router_probes",
    "lldp",
    "conntrack",
    "certificates",
    "portal",
    // A test that somebody asks for.
    "load",
];
/// Families that a gap names.
const NAMED: usize = 3;

/// The gaps that the device reports, the collectors that gave neither a record nor a reason although a family rests on
/// them, and records that were lost on the device.
pub(super) fn gaps(view: &View<'_>) -> Vec<Gap> {
    let now = view.now();
    let mut gaps = now.ended.value.gaps.clone();
    let told: BTreeSet<String> = gaps.iter().map(|gap| gap.collector.clone()).collect();
    let mut asked = BTreeSet::new();
    let wanted = FAMILIES.iter().flat_map(|family| family.rests_on);
    for &collector in wanted {
        let is_known = now.has(collector) || told.contains(collector);
        if is_known || OF_SOME_DEVICES.contains(&collector) || !asked.insert(collector) {
            continue;
        }
        gaps.push(Gap {
            collector: collector.into(),
            reason: Text(format!("no record in this round: {}", judged_by(collector))),
        });
    }
    gaps.extend(lost(view));
    gaps
}

/// What is judged without it, or less surely.
fn judged_by(collector: &str) -> String {
    let about: Vec<&str> = FAMILIES
        .iter()
        .filter(|family| family.rests_on.contains(&collector))
        .map(|family| family.about)
        .collect();
    let more = about.len().saturating_sub(NAMED);
    let named = list(about.iter().take(NAMED));
    match more {
        0 => format!("{named} can't be judged fully"),
        _ => format!("{named} and {more} more can't be judged fully"),
    }
}

fn lost(view: &View<'_>) -> Option<Gap> {
    let before = view
        .this_boot()
        .next()
        .map(|pass| pass.ended.value.dropped)?;
    let lost = view.now().ended.value.dropped.saturating_sub(before);
    (lost > 0).then(|| Gap {
        collector: "round".into(),
        reason: Text(format!(
            "{lost} records were dropped on the device since the round before"
        )),
    })
}

#[cfg(test)]
mod tests {
    use aizen_protocol::record::{COLLECTORS, Record};

    use super::*;
    use crate::case::Case;
    use crate::expert::analyze;
    use crate::fixture::healthy;

    #[test]
    fn each_collector_that_a_family_rests_on_is_missed() {
        let records: Vec<Record> = healthy(1).records();
        let kept = |record: &Record| record.body.collector() == "round";
        let alone: Vec<Record> = records.into_iter().filter(kept).collect();
        let unseen = analyze(&Case::new(alone)).unseen;
        for collector in COLLECTORS {
            let silent = ["profile", "history", "round"].contains(collector)
                || OF_SOME_DEVICES.contains(collector);
            let missed = unseen.iter().filter(|gap| gap.collector == *collector);
            assert_eq!(missed.count(), usize::from(!silent), "{collector}");
        }
        let of = |collector: &str| {
            let mut gaps = unseen.iter().filter(|gap| gap.collector == collector);
            gaps.next().unwrap().reason.0.clone()
        };
        assert_eq!(
            of("filter"),
            "no record in this round: the packet filter, connection tracking can't be judged fully"
        );
        assert!(of("links").contains("more can't be judged"));
    }

    #[test]
    fn what_only_some_devices_have_is_no_gap_elsewhere() {
        for collector in OF_SOME_DEVICES {
            assert!(COLLECTORS.contains(&collector));
        }
    }
}
