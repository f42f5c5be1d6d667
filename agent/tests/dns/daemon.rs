//! Real DNS servers in a namespace, ended with the test.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Netns;

/// A running server.
pub(crate) struct Daemon {
    child: Child,
    _folder: TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// unbound at 192.0.2.1 with these lines in its `server:` section and behind it. It knows `www.example`, and that
/// nothing else is in `example` and `example.com`.
pub(crate) fn unbound(netns: &Netns, lines: &str) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("unbound.conf");
    let config = format!(
        "server:\n\
         directory: \"{}\"\nchroot: \"\"\nusername: \"\"\npidfile: \"\"\nuse-syslog: no\ndo-daemonize: no\n\
         interface: 192.0.2.1@53\naccess-control: 0.0.0.0/0 allow\nnum-threads: 1\nmodule-config: \"validator iterator\"\n\
         local-zone: \"example.\" static\nlocal-zone: \"example.com.\" static\n\
         local-data: \"www.example. 60 IN A 198.51.100.7\"\n\
         local-data: \"www.example. 60 IN AAAA 2001:db8::7\"\n\
         {lines}\n",
        folder.path().display()
    );
    fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap().to_owned();
    start(
        netns,
        "/usr/sbin/unbound",
        &["-d", "-c", &file],
        "192.0.2.1:53",
        folder,
    )
}

/// dnsmasq at this address, without any server above it.
pub(crate) fn dnsmasq(netns: &Netns, address: &str, options: &[&str]) -> Daemon {
    let listen = format!("--listen-address={address}");
    let fixed = [
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        &listen,
    ];
    let arguments = [&fixed[..], options].concat();
    let folder = tempfile::tempdir().unwrap();
    start(
        netns,
        "/usr/sbin/dnsmasq",
        &arguments,
        &format!("{address}:53"),
        folder,
    )
}

fn start(
    netns: &Netns,
    program: &str,
    arguments: &[&str],
    socket: &str,
    folder: TempDir,
) -> Daemon {
    assert!(
        Path::new(program).exists(),
        "{program} is missing: install unbound and dnsmasq-base"
    );
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = netns
        .enter(move || command.spawn().unwrap())
        .join()
        .unwrap();
    let mut daemon = Daemon {
        child,
        _folder: folder,
    };
    let socket = socket.to_owned();
    let answers = netns.enter(move || answers(&socket));
    assert!(
        answers.join().unwrap(),
        "{program} answers nothing: {:?}",
        daemon.child.try_wait()
    );
    daemon
}

/// Asks until something comes back, whatever it is.
fn answers(server: &str) -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(server).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";
    (0..200).any(|_| {
        socket.send(question).ok();
        let heard = socket.recv(&mut [0; 512]).is_ok();
        if !heard {
            // A refusal comes at once.
            std::thread::sleep(Duration::from_millis(20));
        }
        heard
    })
}
