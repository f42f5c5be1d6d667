//! What a rehearsal shows is what happens: every script of the library is rehearsed and then applied for real, and the
//! two effects are the same, or the difference was told.
//!
//! All of them run with `cargo xtask soak`; a dozen in every test run.

use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest};
use aizen_protocol::effect::{Effect, RehearsalResult, Rehearsed, ScriptEnd};
use aizen_protocol::envelope::PayloadType;
use aizen_protocol::id::PackageId;
use aizen_protocol::outcome::End;

use crate::device::{Device, ended, wants_on_site, with_device};
use crate::prefixes;

macro_rules! dozen {
    ($($name:ident),+ $(,)?) => {
        &[$((
            concat!("the_rehearsal_of_", stringify!($name), "_shows_what_happens"),
            || foreseen(&stringify!($name).replace('_', "-")),
        ),)+]
    };
}

/// Each kind of operation is in one of them.
pub(crate) const ALL: &[(&str, fn())] = dozen![
    failover,
    filters_rearranged,
    forwarding_on,
    ipv6_off_and_on,
    lan_renumbered,
    link_bounced,
    neighbour_corrected,
    resolver_and_service,
    source_routing,
    uci_guest,
    uplink_moved,
    everything,
];

/// What `cargo xtask soak` adds.
pub(crate) const SOAK: &[(&str, fn())] = &[(
    "the_rehearsal_of_every_repair_shows_what_happens",
    every_script,
)];

fn every_script() {
    for name in prefixes::names() {
        println!("{name}");
        // Each in a namespace and a root of its own.
        let thread = std::thread::spawn(move || foreseen(&name));
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

fn foreseen(name: &str) {
    with_device(async |mut device: Device| {
        // A deviation ends in a rollback.
        device.policy("allow_changes = true\nmin_isolation = 1\neffect_must_match = true\n");
        let services = prefixes::router(&device);
        device.start().await;
        let before = prefixes::picture(&device, &services);
        let mut package = prefixes::package(&device, name);
        let (rehearsed, approved) = rehearse(&device, &package).await;
        let said = &rehearsed.script.output;
        assert_eq!(rehearsed.script.end, ScriptEnd::Exited(0), "{name}: {said}");
        let now = prefixes::picture(&device, &services);
        assert_eq!(before, now, "{name} was only rehearsed");

        package.id = PackageId::fresh();
        package.effect = Some(approved.digest());
        let mut life = device.execute(device.sign(&package), None).await;
        let change = wants_on_site(&mut life).await;
        device.ask(ExecutorRequest::RollBack { change }).await;
        let (outcome, signed) = ended(&mut life).await;
        assert_eq!(outcome.end, End::RolledBack, "{name}: {}", outcome.detail);
        assert_eq!(
            outcome.effect_as_approved(),
            Some(true),
            "{name}, with real values"
        );
        let real = outcome.effect.unwrap();
        told(name, &rehearsed, &real);
        assert_eq!(
            device.believe(&signed).effect_as_approved(),
            Some(true),
            "{name}"
        );
    });
}

async fn rehearse(device: &Device, package: &aizen_protocol::package::Package) -> (Effect, Effect) {
    let request = ExecutorRequest::Rehearse {
        package: device.sign(package),
        bindings: Bindings::new(),
    };
    let ExecutorAnswer::Rehearsed { local, signed } = device.ask(request).await else {
        panic!("no rehearsal");
    };
    let known = [device.result.public()];
    let opened = signed.open(PayloadType::Effect, known.iter()).unwrap();
    let rehearsed: Rehearsed = serde_json::from_slice(opened.payload()).unwrap();
    let RehearsalResult::Effect(approved) = rehearsed.result else {
        panic!("no effect");
    };
    (local, approved)
}

/// Each change is the one that was shown; what could only be recorded was named.
fn told(name: &str, rehearsed: &Effect, real: &Effect) {
    for (shown, done) in rehearsed.changes.iter().zip(&real.changes) {
        assert_eq!(shown, done, "{name}");
    }
    assert_eq!(rehearsed.changes.len(), real.changes.len(), "{name}");
    assert_eq!(rehearsed.irreversible, real.irreversible, "{name}");
    use aizen_protocol::effect::ObjectKind::{Service, Wireguard};
    let recorded = real
        .changes
        .iter()
        .filter(|c| matches!(c.kind, Service | Wireguard));
    for change in recorded {
        let named = rehearsed
            .not_rehearsed
            .iter()
            .any(|line| line.0.contains(change.object.0.as_str()) && line.0.contains("recorded"));
        assert!(
            named,
            "{name}: {} {:?}",
            change.object, rehearsed.not_rehearsed
        );
    }
}
