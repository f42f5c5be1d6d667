//! Network namespaces of this test's own, removed when it ends, however it ends.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One namespace.
pub(crate) struct Netns(String);

impl Netns {
    /// Makes one, with `lo` up.
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "network namespaces need root"
        );
        let name = format!(
            "aizen-c{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let made = Self(name);
        run("ip", &["netns", "add", &made.0]);
        made.ip("link set lo up");
        made
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) {
        let words: Vec<_> = ["-n", &self.0]
            .into_iter()
            .chain(arguments.split_whitespace())
            .collect();
        run("ip", &words);
    }

    /// Runs another program inside.
    pub(crate) fn exec(&self, program: &[&str]) {
        run("ip", &[&["netns", "exec", &self.0], program].concat());
    }

    /// Joins two namespaces by a veth pair and sets both ends up.
    pub(crate) fn join(&self, dev: &str, other: &Self, other_dev: &str) {
        run(
            "ip",
            &[
                "link", "add", dev, "netns", &self.0, "type", "veth", "peer", "name", other_dev,
                "netns", &other.0,
            ],
        );
        self.ip(&format!("link set {dev} up"));
        other.ip(&format!("link set {other_dev} up"));
    }

    /// Runs `work` on a thread that lives inside.
    pub(crate) fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// Runs a future inside, on a runtime like the device's.
    pub(crate) fn block_on<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let inside = self.enter(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(work())
        });
        inside.join().unwrap()
    }

    /// Answers every datagram that comes to `address` inside with what `answer` makes of it, as long as `Served` lives.
    pub(crate) fn serve(
        &self,
        address: &str,
        answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Served {
        let address = address.to_owned();
        let socket = self
            .enter(move || UdpSocket::bind(address).unwrap())
            .join()
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let ends = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ending = ends.clone();
        let thread = thread::spawn(move || {
            let mut datagram = [0; 1500];
            while !ending.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                    socket.send_to(&answer(&datagram[..length]), from).ok();
                }
            }
        });
        Served {
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        Command::new("ip")
            .args(["netns", "del", &self.0])
            .status()
            .ok();
    }
}

/// A server of this test's own.
pub(crate) struct Served {
    ends: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A root directory with the kernel's `/proc` and `/sys` and an `/etc/resolv.conf` of its own.
pub(crate) fn root(resolv_conf: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    symlink("/proc", root.path().join("proc")).unwrap();
    symlink("/sys", root.path().join("sys")).unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/resolv.conf"), resolv_conf).unwrap();
    root
}

/// A device `wan` 192.0.2.2/24 and its gateway `isp` 192.0.2.1/24, with a default route.
pub(crate) fn device_and_gateway() -> (Netns, Netns) {
    let (device, gateway) = (Netns::new(), Netns::new());
    device.join("wan", &gateway, "isp");
    device.ip("address add 192.0.2.2/24 dev wan");
    gateway.ip("address add 192.0.2.1/24 dev isp");
    device.ip("route add default via 192.0.2.1 dev wan");
    (device, gateway)
}
