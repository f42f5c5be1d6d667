//! From the fault to the confirmed repair in the lab, approved at once, and where the time goes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::fault::Fault;
use harness::world::World;

pub(super) fn rows() -> Result<String> {
    let mut world = World::start(&mut |_, _| {})?;
    let began = Instant::now();
    Fault::ResolverDead.inject(&mut world.lab)?;
    world
        .cloud
        .case("resolver_dead", "*", Duration::from_secs(60))?;
    let named = began.elapsed();
    let approval = world.cloud.pending_approval(Duration::from_secs(60))?;
    let rehearsed = began.elapsed();
    world
        .cloud
        .approve(approval["id"].as_str().context("an approval has an id")?)?;
    let approved = began.elapsed();
    world
        .cloud
        .case("resolver_dead", "resolved", Duration::from_secs(120))?;
    let confirmed = began.elapsed();
    Ok(format!(
        "| fault to confirmed repair in the lab, approved at once | {confirmed:.1?} | | |\n\
         | … of it: fault to named cause | {named:.1?} | | |\n\
         | … rehearsal | {:.1?} | | |\n\
         | … approval by command line | {:.1?} | | |\n\
         | … delivery, execution, probes, confirmation, report | {:.1?} | | |\n",
        rehearsed - named,
        approved - rehearsed,
        confirmed - approved
    ))
}
