//! The machine itself: everything side by side, each part on a thread of its own.

use std::path::Path;

use aizen_protocol::record::{Body, Conntrack, Host};

use super::{Part, Told, within};
use crate::clock;
use crate::collect::aside::Hung;
use crate::collect::schedule::Due;
use crate::collect::{
    CollectError, Seen, Settings, configuration, conntrack, cpu, dhcp, disk, host, log, pressure,
    protocols, services, softnet,
};

/// What one round keeps for the next.
#[derive(Debug, Default)]
pub(in crate::collect::round) struct Memory {
    before: host::Before,
    hung: Hung,
    procd: services::procd::Memory,
}

pub(in crate::collect::round) async fn see(
    settings: &Settings,
    due: &Due,
    memory: &mut Memory,
) -> Vec<Part> {
    let hung = &memory.hung;
    let deadline = settings.budgets.local;
    let procd = memory.procd.clone();
    let tables = async {
        tokio::join!(
            look(settings, hung, "protocols", Body::Protocols, move |root| {
                protocols::collect(root, deadline)
            }),
            look(settings, hung, "softnet", Body::Softnet, softnet::collect),
            see_conntrack(settings, hung),
            look(settings, hung, "cpu", Body::Cpu, cpu::collect),
            look(settings, hung, "pressure", Body::Pressure, |root| {
                Ok(pressure::collect(root))
            }),
        )
    };
    let files = async {
        tokio::join!(
            look(settings, hung, "log", Body::Log, move |root| {
                Ok(log::collect(root, clock::now(), deadline / 2))
            }),
            if_due(
                due,
                "dhcp",
                look(settings, hung, "dhcp", Body::Dhcp, move |root| {
                    Ok(dhcp::collect(root, clock::now(), deadline))
                })
            ),
            if_due(
                due,
                "services",
                look(settings, hung, "services", Body::Services, move |root| {
                    services::collect(root, deadline, &procd)
                })
            ),
            if_due(
                due,
                "configuration",
                look(
                    settings,
                    hung,
                    "configuration",
                    Body::Configuration,
                    |root| { Ok(configuration::collect(root)) }
                ),
            ),
        )
    };
    let ((host, before), tables, files) = tokio::join!(
        see_host(settings, memory.before.clone(), hung),
        tables,
        files
    );
    memory.before = before.unwrap_or(std::mem::take(&mut memory.before));
    let (protocols, softnet, conntrack, cpu, pressure) = tables;
    let (log, dhcp, services, configuration) = files;
    let mut parts = vec![
        Part::new("host", host, Body::Host),
        protocols,
        softnet,
        cpu,
        pressure,
        log,
    ];
    parts.extend(
        [conntrack, dhcp, services, configuration]
            .into_iter()
            .flatten(),
    );
    parts
}

/// Runs one collector aside, unless it still hangs in an earlier round.
async fn look<T: Send + 'static>(
    settings: &Settings,
    hung: &Hung,
    collector: &'static str,
    wrap: impl FnOnce(T) -> Body,
    collect: impl FnOnce(&Path) -> Result<Seen<T>, CollectError> + Send + 'static,
) -> Part {
    let root = settings.root.clone();
    let work = async { hung.run(collector, move || collect(&root)).await? };
    // What has a deadline of its own ends before this one does.
    let told = within(settings.budgets.probe, work).await;
    Part::new(collector, told, wrap)
}

async fn if_due(due: &Due, collector: &str, work: impl Future<Output = Part>) -> Option<Part> {
    if due.runs(collector) {
        Some(work.await)
    } else {
        None
    }
}

/// A kernel that tracks no connections has no part in it.
async fn see_conntrack(settings: &Settings, hung: &Hung) -> Option<Part> {
    let root = settings.root.clone();
    let read = within(settings.budgets.local, async {
        let seen = hung
            .run("conntrack", move || conntrack::collect(&root))
            .await?;
        Ok(Seen {
            gaps: seen
                .as_ref()
                .map(|seen| seen.gaps.clone())
                .unwrap_or_default(),
            value: seen.map(|seen| seen.value),
        })
    });
    let told: Told<Option<Conntrack>> = read.await;
    let result = match told.result {
        Ok(seen) => Ok(Seen {
            value: seen.value?,
            gaps: seen.gaps,
        }),
        Err(error) => Err(error),
    };
    let told = Told {
        at: told.at,
        result,
    };
    Some(Part::new("conntrack", told, Body::Conntrack))
}

async fn see_host(
    settings: &Settings,
    before: host::Before,
    hung: &Hung,
) -> (Told<Host>, Option<host::Before>) {
    let root = settings.root.clone();
    let mut kept = None;
    let work = async {
        let (read, disks) = tokio::join!(
            hung.run("host", move || host::collect(&root, before)),
            disk::collect(&settings.root, hung, settings.budgets.disk),
        );
        let (mut seen, after) = read?;
        kept = Some(after);
        seen.value.disks = disks.value;
        seen.gaps.extend(disks.gaps);
        Ok(seen)
    };
    let told = within(settings.budgets.probe, work).await;
    (told, kept)
}
