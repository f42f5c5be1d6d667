//! The first story: a fault is noticed, named, rehearsed, approved, repaired, confirmed and reported.

use std::time::Duration;

use harness::fault::Fault;
use harness::lab::{DNS1, DNS2, OTHER_NAME};
use harness::shell;
use harness::world::World;

#[test]
fn a_dead_resolver_is_repaired_from_evidence_to_report() {
    let mut world = World::start(&mut |_, _| {}).unwrap();
    Fault::ResolverDead.inject(&mut world.lab).unwrap();
    let approval = world
        .cloud
        .pending_approval(Duration::from_secs(60))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    let shown = approval.to_string();
    assert!(
        !shown.contains(DNS1) && !shown.contains(DNS2),
        "the cloud saw a private address: {shown}"
    );
    world
        .cloud
        .approve(approval["id"].as_str().unwrap())
        .unwrap();
    let case = world
        .cloud
        .case("resolver_dead", "resolved", Duration::from_secs(90))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    assert_eq!(
        case["component"].as_str().map(|c| c.contains(DNS1)),
        Some(false)
    );
    shell::run(
        world
            .device
            .command("getent")
            .args(["ahostsv4", OTHER_NAME]),
    )
    .unwrap();
    let resolv = std::fs::read_to_string(world.device.etc().join("resolv.conf")).unwrap();
    assert!(
        resolv.starts_with("# made by the lab\n"),
        "other lines stay: {resolv}"
    );
    assert!(
        resolv.find(DNS2) < resolv.find(DNS1),
        "the resolver that answers comes first: {resolv}"
    );
}
