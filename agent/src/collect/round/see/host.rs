//! The machine itself.

use aizen_protocol::record::{Body, Host};

use super::{Part, Told, within};
use crate::collect::disk::Hung;
use crate::collect::host::Ticks;
use crate::collect::{Settings, aside, disk, host};

/// What one round keeps for the next.
#[derive(Debug, Default)]
pub(in crate::collect::round) struct Memory {
    ticks: Option<Ticks>,
    hung: Hung,
}

pub(in crate::collect::round) async fn see(settings: &Settings, memory: &mut Memory) -> Vec<Part> {
    let (host, ticks) = see_host(settings, memory.ticks, &memory.hung).await;
    memory.ticks = ticks.or(memory.ticks);
    vec![Part::new("host", host, Body::Host)]
}

async fn see_host(
    settings: &Settings,
    before: Option<Ticks>,
    hung: &Hung,
) -> (Told<Host>, Option<Ticks>) {
    let root = settings.root.clone();
    let mut ticks = None;
    let work = async {
        let (read, disks) = tokio::join!(
            aside::run("aizen-host", move || host::collect(&root, before)),
            disk::collect(&settings.root, hung, settings.budgets.disk),
        );
        let (mut seen, after) = read?;
        ticks = after;
        seen.value.disks = disks.value;
        seen.gaps.extend(disks.gaps);
        Ok(seen)
    };
    let told = within(settings.budgets.probe, work).await;
    (told, ticks)
}
