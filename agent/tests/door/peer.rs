//! The other ends: servers that Debian has, and a station that speaks LLDP.

use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{MsgFlags, bind, send};
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;

use crate::netns::Netns;

/// A program that runs inside a namespace until this is dropped.
pub(crate) struct Running {
    child: Child,
    _folder: TempDir,
}

impl Running {
    /// A DHCP server on `port`; `dnsmasq` is its own only configuration.
    pub(crate) fn dnsmasq(inside: &Netns, options: &[&str]) -> Self {
        let fixed = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=port",
            "--bind-interfaces",
            "--no-ping",
            "--user=root",
            "--pid-file=",
        ];
        Self::start(
            inside,
            "dnsmasq",
            tempfile::tempdir().unwrap(),
            |command, _| {
                command.args(fixed).args(options);
            },
        )
    }

    pub(crate) fn radvd(inside: &Netns, configuration: &str) -> Self {
        inside.exec(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("radvd.conf"), configuration).unwrap();
        Self::start(inside, "radvd", folder, |command, folder| {
            command.arg("--nodaemon").arg("--logmethod").arg("stderr");
            command.arg("--config").arg(folder.join("radvd.conf"));
            command.arg("--pidfile").arg(folder.join("radvd.pid"));
        })
    }

    pub(crate) fn pppoe(inside: &Netns, dev: &str, name: &str) -> Self {
        Self::start(
            inside,
            "pppoe-server",
            tempfile::tempdir().unwrap(),
            |command, _| {
                command.args(["-F", "-I", dev, "-C", name]);
            },
        )
    }

    fn start(
        inside: &Netns,
        program: &str,
        folder: TempDir,
        arguments: impl FnOnce(&mut Command, &std::path::Path),
    ) -> Self {
        let mut command = Command::new(program);
        arguments(&mut command, folder.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = inside.enter(move || command.spawn().unwrap());
        let child = child.join().unwrap();
        Self {
            child,
            _folder: folder,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A device with the link `wan`, and so many others with the link `port`, on one bridge of a namespace of its own, which
/// lives as long as the last of them.
pub(crate) fn switch(others: usize) -> (Netns, Vec<Netns>) {
    let (device, middle) = (Netns::new(), Netns::new());
    middle.ip("link add br0 type bridge");
    middle.ip("link set br0 up");
    device.join("wan", &middle, "p0");
    middle.ip("link set p0 master br0");
    let mut peers: Vec<_> = (1..=others)
        .map(|n| {
            let peer = Netns::new();
            let port = format!("p{n}");
            peer.join("port", &middle, &port);
            middle.ip(&format!("link set {port} master br0"));
            peer
        })
        .collect();
    peers.push(middle);
    (device, peers)
}

/// Announces itself again and again, until it is dropped.
pub(crate) struct Speaker {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn lldp_speaker(inside: &Netns, dev: &'static str, system: &'static str) -> Speaker {
    let ends = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&ends);
    let thread = inside.enter(move || {
        let at = getifaddrs()
            .unwrap()
            .filter(|interface| interface.interface_name == dev)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .unwrap();
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).unwrap();
        bind(socket.as_raw_fd(), &at).unwrap();
        let frame = announcement(at.addr().unwrap(), system);
        while !ending.load(Ordering::Relaxed) {
            send(socket.as_raw_fd(), &frame, MsgFlags::empty()).ok();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    Speaker {
        ends,
        thread: Some(thread),
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn announcement(mac: [u8; 6], system: &str) -> Vec<u8> {
    let tlv = |kind: u16, value: &[u8]| {
        let head = kind << 9 | u16::try_from(value.len()).unwrap();
        [&head.to_be_bytes()[..], value].concat()
    };
    let chassis = [&[4][..], &mac].concat();
    [
        &[0x01, 0x80, 0xc2, 0, 0, 0x0e][..],
        &mac,
        &[0x88, 0xcc],
        &tlv(1, &chassis),
        &tlv(2, b"\x05port-1"),
        &tlv(3, &[0, 120]),
        &tlv(5, system.as_bytes()),
        &tlv(127, &[0, 0x80, 0xc2, 1, 0, 20]),
        &tlv(0, &[]),
    ]
    .concat()
}
