//! A port that runs slower than both ends can.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::LogOrigin;

use super::reading::Port;
use crate::case::View;
use crate::expert::draft::Draft;

/// The present speed and the one that both ends offer, where it negotiated less. A computer that sleeps offers less
/// itself; who fixed the speed wanted it so.
pub(super) fn downshift(port: &Port<'_>) -> Option<(u32, u32)> {
    let ethernet = port.now?;
    let speed = ethernet.speed_mbps?;
    let ours = ethernet.advertised_mbps.or(ethernet.supported_mbps)?;
    let possible = ours.min(ethernet.partner_mbps?);
    let slow = speed > 0 && speed < possible && ethernet.autonegotiation == Some(true);
    slow.then_some((speed, possible))
}

pub(super) fn slow(view: &View<'_>, port: &Port<'_>, speed: u32, possible: u32) -> Draft {
    let name = &port.link.name;
    let mut draft = port.draft(
        "link_downshift",
        Severity::Warning,
        format!("{name} runs at {speed} Mb/s although both ends offer {possible} Mb/s"),
    );
    let fact = format!(
        "{name} runs at {}; the other end offers {possible} Mb/s or more",
        port.mode()
    );
    draft.shown("ethernet", "speed", port.driver_at, fact);
    let earlier = view.this_boot().find_map(|pass| {
        let seen = pass.ethernet.as_ref()?;
        let older = seen
            .value
            .iter()
            .find(|older| older.link == port.link.index)?;
        let faster = older.speed_mbps.filter(|mbps| *mbps > speed)?;
        Some((seen.at, faster))
    });
    if let Some((at, mbps)) = earlier {
        let fact = format!("{name} ran at {mbps} Mb/s earlier in this boot");
        draft.backed("ethernet", "earlier", at, fact);
    }
    let lines = view.now().log.iter().flat_map(|seen| &seen.value);
    let mut told = lines.filter(|line| {
        let text = line.text.0.to_ascii_lowercase();
        line.origin == LogOrigin::Kernel
            && text.contains("downshift")
            && text.contains(&name.to_ascii_lowercase())
    });
    if let Some(line) = told.next() {
        let fact = format!("the kernel logged a downshift of {name}");
        draft.backed("log", "downshift", line.at, fact);
    }
    draft.misses(format!(
        "which pair is broken: a cable test (`ethtool --cable-test {name}`, `aizen links --watch`)"
    ));
    draft.next(format!(
        "Reseat the plugs of {name} and try a cable with all four pairs (Cat 5e or better): gigabit needs each of them"
    ));
    draft
}
