//! The orchestrator is away for a while: nothing is lost, nothing arrives twice.

use std::time::Duration;

use harness::wait;
use harness::world::World;

fn numbers(world: &World) -> Vec<i64> {
    let db = world.cloud.data().join("orchestrator.db");
    let output = harness::shell::run(
        std::process::Command::new("python3")
            .arg("-c")
            .arg("import sqlite3,sys\nfor (n,) in sqlite3.connect(sys.argv[1]).execute('select seq from records order by seq'): print(n)")
            .arg(db),
    )
    .unwrap();
    output.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn while_the_orchestrator_is_down_records_wait_and_arrive_once_afterwards() {
    let mut world = World::start(&mut |_, _| {}).unwrap();
    world.cloud.stop().unwrap();
    let newest = || world.device.ask(&["status"]).ok()?["daemon"]["newest"].as_u64();
    let at_stop = newest().unwrap();
    let made = wait::until(
        "records to be made meanwhile",
        Duration::from_secs(30),
        || newest().filter(|n| *n > at_stop + 20),
    )
    .unwrap();
    world.cloud.serve(&world.lab.cloud).unwrap();
    wait::until(
        "everything to be acknowledged",
        Duration::from_secs(30),
        || {
            let status = world.device.ask(&["status"]).ok()?;
            (status["daemon"]["acknowledged"].as_u64()? >= made).then_some(())
        },
    )
    .unwrap_or_else(|e| panic!("{e:#}\n{}", world.said()));
    let numbers = numbers(&world);
    let first = numbers[0];
    let through: Vec<i64> = numbers
        .iter()
        .copied()
        .take_while(|n| *n <= i64::try_from(made).unwrap())
        .collect();
    let expected: Vec<i64> = (first..=i64::try_from(made).unwrap()).collect();
    assert_eq!(through, expected, "a gap or a double");
}
