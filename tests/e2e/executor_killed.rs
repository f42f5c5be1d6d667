//! The executor dies in the middle of a change: after its restart the device is as before.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::package::{alice, hosts_manifest, package, sign, stick};
use harness::wait;
use harness::world::World;
use serde_json::Value;

fn begin(world: &World, script: &str, within_s: u32) -> std::process::Child {
    let package = package(world, script, hosts_manifest(within_s).unwrap()).unwrap();
    let file = stick(
        world,
        "package.json",
        &sign(&package, &[&alice(world).unwrap()]).unwrap(),
    )
    .unwrap();
    let mut apply = world
        .device
        .aizen(&["apply", "--yes", file.to_str().unwrap()])
        .unwrap();
    apply
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn stage(world: &World) -> Option<String> {
    let changes = world.device.ask(&["changes", "list"]).ok()?;
    Some(changes["changes"][0]["stage"].as_str()?.to_owned())
}

fn wait_stage(world: &World, wanted: &[&str]) {
    wait::until(
        &format!("the change to be {wanted:?}"),
        Duration::from_secs(30),
        || stage(world).filter(|s| wanted.contains(&s.as_str())),
    )
    .unwrap_or_else(|e| panic!("{e:#}, it is {:?}\n{}", stage(world), world.said()));
}

fn hosts(world: &World) -> String {
    std::fs::read_to_string(Path::new(&world.device.etc()).join("hosts")).unwrap()
}

fn killed_and_restarted(world: &mut World, before: &str) {
    world.device.executor().unwrap().kill().unwrap();
    world.device.start_executor().unwrap();
    wait_stage(world, &["rolled_back", "reported"]);
    assert_eq!(world.device.state_of_network().unwrap(), before);
    let status: Value = world.device.ask(&["status"]).unwrap();
    assert!(status["executor"]["pending"].is_null(), "{status}");
}

#[test]
fn killed_while_the_script_runs_the_device_is_as_before_after_the_restart() {
    let mut world = World::start(&mut |_, _| {}).unwrap();
    let before = world.device.state_of_network().unwrap();
    let mut apply = begin(
        &world,
        "echo 192.0.2.1 broken | change file write /etc/hosts\nsleep 15\n",
        60,
    );
    wait::until("the file to change", Duration::from_secs(30), || {
        hosts(&world).contains("broken").then_some(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    killed_and_restarted(&mut world, &before);
    assert!(!hosts(&world).contains("broken"));
    apply.wait().unwrap();
}

#[test]
fn killed_while_it_waits_for_confirmation_the_device_is_as_before_after_the_restart() {
    let mut world = World::start(&mut |_, _| {}).unwrap();
    let before = world.device.state_of_network().unwrap();
    let mut apply = begin(
        &world,
        "echo 192.0.2.1 broken | change file write /etc/hosts\n",
        60,
    );
    wait_stage(&world, &["probing"]);
    assert!(hosts(&world).contains("broken"));
    killed_and_restarted(&mut world, &before);
    apply.wait().unwrap();
}

#[test]
fn a_change_that_nobody_confirms_on_the_spot_is_undone_at_its_deadline() {
    let world = World::start(&mut |_, _| {}).unwrap();
    let before = world.device.state_of_network().unwrap();
    let mut apply = begin(
        &world,
        "echo 192.0.2.1 broken | change file write /etc/hosts\n",
        5,
    );
    wait_stage(&world, &["probing"]);
    assert_eq!(apply.wait().unwrap().code(), Some(5), "{}", world.said());
    assert_eq!(world.device.state_of_network().unwrap(), before);
}

#[test]
fn a_change_that_is_confirmed_from_a_new_login_is_kept() {
    let world = World::start(&mut |_, _| {}).unwrap();
    let mut apply = begin(
        &world,
        "echo 192.0.2.1 kept | change file write /etc/hosts\n",
        60,
    );
    wait_stage(&world, &["probing"]);
    let changes = world.device.ask(&["changes", "list"]).unwrap();
    let change = changes["changes"][0]["change"].as_str().unwrap().to_owned();
    let confirmed = world
        .device
        .try_aizen(&["changes", "confirm", &change])
        .unwrap();
    assert!(confirmed.status.success(), "{confirmed:?}");
    assert_eq!(apply.wait().unwrap().code(), Some(0), "{}", world.said());
    assert!(hosts(&world).contains("kept"));
}
