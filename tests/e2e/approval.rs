//! What a person may and may not do with an approval.

use std::time::Duration;

use harness::fault::Fault;
use harness::world::World;

#[test]
fn a_denied_proposal_changes_nothing_and_a_stranger_s_key_approves_nothing() {
    let mut world = World::start(&mut |_, _| {}).unwrap();
    let before = world.device.state_of_network().unwrap();
    Fault::ResolverDead.inject(&mut world.lab).unwrap();
    let approval = world
        .cloud
        .pending_approval(Duration::from_secs(60))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    let id = approval["id"].as_str().unwrap();
    let stranger = world.lab.folder().join("stranger.key");
    world
        .cloud
        .run(&["key", "new", "--out", stranger.to_str().unwrap()])
        .unwrap();
    let error = world
        .cloud
        .ask(&["approve", id, "--yes", "--key", stranger.to_str().unwrap()])
        .unwrap_err();
    assert!(format!("{error:#}").contains("key"), "{error:#}");
    world
        .cloud
        .ask(&["deny", id, "--reason", "not today"])
        .unwrap();
    assert!(
        world.cloud.approve(id).is_err(),
        "a denied approval was approved"
    );
    assert_eq!(world.device.state_of_network().unwrap(), before);
}
