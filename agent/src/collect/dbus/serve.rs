//! A real bus of a test's own, and a service on it that answers as it is told.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::wire::{self, Reader, Writer};
use super::{Bus, Call, DbusError};

/// A `dbus-daemon`, ended when this is dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts one whose socket is `/run/dbus/system_bus_socket` below `root`, and waits until it listens.
    pub(crate) fn start(root: &Path) -> Self {
        let socket = socket(root);
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let configuration = root.join("bus.conf");
        let text = format!(
            "<busconfig><type>custom</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/>\
             <allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&configuration, text).unwrap();
        let mut child = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", configuration.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs the Debian package dbus");
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        assert!(!address.is_empty(), "the bus did not start");
        Self(child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(crate) fn socket(root: &Path) -> PathBuf {
    root.join("run/dbus/system_bus_socket")
}

/// Owns `name` and answers every call with what `answer` makes of its path, member and body: a signature and a body, or
/// an error without one. Ends with the bus.
pub(crate) fn serve(
    socket: &Path,
    name: &str,
    answer: impl Fn(&str, &str, Reader<'_>) -> Option<(&'static str, Writer)> + Send + 'static,
) {
    let mut bus = Bus::connect(socket, Instant::now() + Duration::from_secs(600)).unwrap();
    let request = Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "RequestName",
    };
    let mut body = Writer::default();
    body.text(name).u32(0);
    bus.ask(request, "su", body).unwrap();
    thread::spawn(move || while step(&mut bus, &answer).is_ok() {});
}

fn step(
    bus: &mut Bus,
    answer: &impl Fn(&str, &str, Reader<'_>) -> Option<(&'static str, Writer)>,
) -> Result<(), DbusError> {
    let message = bus.receive()?;
    let header = &message.header;
    if header.kind != wire::CALL {
        return Ok(());
    }
    let text = |code| header.text(code).unwrap_or_default();
    let told = answer(text(wire::PATH), text(wire::MEMBER), message.body());
    let mut fields = Writer::default();
    fields.field(wire::REPLY_SERIAL, "u").u32(header.serial);
    fields.field(wire::DESTINATION, "s").text(text(SENDER));
    match told {
        Some((signature, body)) => bus.post(RETURN, fields, signature, &body),
        None => {
            fields
                .field(wire::ERROR_NAME, "s")
                .text("org.example.Unknown");
            bus.post(wire::ERROR, fields, "", &Writer::default())
        }
    }
    .map(drop)
}

const RETURN: u8 = 2;
const SENDER: u8 = 7;
