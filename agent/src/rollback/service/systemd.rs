//! systemd over D-Bus (org.freedesktop.systemd1(5)).

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Deed, ServiceError};
use crate::collect::dbus::wire::Writer;
use crate::collect::dbus::{Bus, Call, DbusError, Message};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// Between two looks at a job.
const LOOK: Duration = Duration::from_millis(50);

impl From<DbusError> for ServiceError {
    fn from(error: DbusError) -> Self {
        Self::Manager(error.to_string())
    }
}

pub(super) fn is_running(bus: &Path, name: &str, until: Instant) -> Result<bool, ServiceError> {
    let mut bus = Bus::connect(bus, until)?;
    let unit = load(&mut bus, name)?;
    let state = text(&mut bus, &unit, "ActiveState")?;
    Ok(matches!(
        state.as_str(),
        "active" | "activating" | "reloading" | "refreshing"
    ))
}

pub(super) fn act(bus: &Path, name: &str, deed: Deed, until: Instant) -> Result<(), ServiceError> {
    let mut bus = Bus::connect(bus, until)?;
    let unit = load(&mut bus, name)?;
    let member = match deed {
        Deed::Start => "StartUnit",
        Deed::Stop => "StopUnit",
        Deed::Restart => "RestartUnit",
        Deed::Reload => "ReloadUnit",
    };
    let mut body = Writer::default();
    body.text(&full(name)).text("replace");
    manager(&mut bus, member, "ss", body)?;
    // The answer names a job; the unit has none when it is done.
    while job(&mut bus, &unit)? != 0 {
        std::thread::sleep(LOOK);
    }
    let state = text(&mut bus, &unit, "ActiveState")?;
    if deed != Deed::Stop && state == "failed" {
        return Err(ServiceError::Failed);
    }
    Ok(())
}

fn full(name: &str) -> String {
    match name.strip_suffix(".service") {
        Some(_) => name.to_owned(),
        None => format!("{name}.service"),
    }
}

/// The path of its unit; none of an installed one is an error.
fn load(bus: &mut Bus, name: &str) -> Result<String, ServiceError> {
    let mut body = Writer::default();
    body.text(&full(name));
    let answer = manager(bus, "LoadUnit", "s", body)?;
    let unit = answer.body().text().ok_or(DbusError::Malformed)?.to_owned();
    match text(bus, &unit, "LoadState")?.as_str() {
        "loaded" => Ok(unit),
        "not-found" => Err(ServiceError::NoService),
        other => Err(ServiceError::Manager(format!("its unit is {other}"))),
    }
}

fn manager(
    bus: &mut Bus,
    member: &str,
    signature: &str,
    body: Writer,
) -> Result<Message, DbusError> {
    let call = Call {
        destination: SYSTEMD,
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
    };
    bus.ask(call, signature, body)
}

fn get(bus: &mut Bus, unit: &str, property: &str) -> Result<Message, DbusError> {
    let call = Call {
        destination: SYSTEMD,
        path: unit,
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
    };
    let mut body = Writer::default();
    body.text(UNIT).text(property);
    bus.ask(call, "ss", body)
}

fn text(bus: &mut Bus, unit: &str, property: &str) -> Result<String, DbusError> {
    let answer = get(bus, unit, property)?;
    let mut body = answer.body();
    let is_text = body.signature() == Some("s");
    let value = is_text.then(|| body.text()).flatten();
    Ok(value.ok_or(DbusError::Malformed)?.to_owned())
}

/// `Job` is `(uo)`: its number, 0 for none, and its path.
fn job(bus: &mut Bus, unit: &str) -> Result<u32, DbusError> {
    let answer = get(bus, unit, "Job")?;
    let mut body = answer.body();
    let is_job = body.signature() == Some("(uo)") && body.next_struct(usize::MAX);
    is_job
        .then(|| body.u32())
        .flatten()
        .ok_or(DbusError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::broker::World;
    use crate::collect::dbus::serve::{Daemon, serve, socket};
    use crate::collect::dbus::wire::Reader;
    use crate::rollback::service;

    #[derive(Default)]
    struct Systemd {
        runs: bool,
        jobs: u32,
        deeds: Vec<String>,
    }

    /// Answers like systemd for one unit, whose jobs take two looks.
    fn answer(
        state: &Mutex<Systemd>,
        path: &str,
        member: &str,
        mut body: Reader<'_>,
    ) -> Option<(&'static str, Writer)> {
        let mut state = state.lock().unwrap();
        let mut answer = Writer::default();
        let first = body.text()?;
        match member {
            "LoadUnit" => {
                let known = first == "dnsmasq.service";
                answer.text(if known { "/unit/dnsmasq" } else { "/unit/none" });
                return Some(("o", answer));
            }
            "Get" => {}
            deed => {
                state.deeds.push(deed.to_owned());
                state.runs = deed != "StopUnit";
                state.jobs = 2;
                answer.text("/job/1");
                return Some(("o", answer));
            }
        }
        match (body.text()?, path) {
            ("LoadState", "/unit/none") => answer.signature("s").text("not-found"),
            ("LoadState", _) => answer.signature("s").text("loaded"),
            ("ActiveState", _) if state.runs => answer.signature("s").text("active"),
            ("ActiveState", _) => answer.signature("s").text("inactive"),
            ("Job", _) => {
                state.jobs = state.jobs.saturating_sub(1);
                answer.signature("(uo)").align(8);
                answer.u32(state.jobs).text("/")
            }
            _ => return None,
        };
        Some(("v", answer))
    }

    #[tokio::test]
    async fn systemd_is_asked_and_told_over_the_system_bus() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        let _daemon = Daemon::start(root.path());
        let state = Arc::new(Mutex::new(Systemd::default()));
        let told = Arc::clone(&state);
        serve(&socket(root.path()), SYSTEMD, move |path, member, body| {
            answer(&told, path, member, body)
        });
        let world = World::at(root.path());
        assert_eq!(service::owner(&world), "systemd");
        assert!(!service::is_running(&world, "dnsmasq").await.unwrap());
        let none = service::is_running(&world, "none").await;
        assert!(matches!(none, Err(ServiceError::NoService)), "{none:?}");
        service::act(&world, "dnsmasq", Deed::Restart)
            .await
            .unwrap();
        assert!(service::is_running(&world, "dnsmasq").await.unwrap());
        for _ in 0..2 {
            service::settle(&world, "dnsmasq", false, Some(Deed::Restart))
                .await
                .unwrap();
        }
        assert_eq!(state.lock().unwrap().deeds, ["RestartUnit", "StopUnit"]);
    }
}
