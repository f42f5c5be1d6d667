//! The Debian packages that the lab needs: installed if possible, named if not.

use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// A program, and the package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("dnsmasq", "dnsmasq-base"),
    ("unbound", "unbound"),
    ("nft", "nftables"),
    ("pppoe-server", "pppoe"),
    ("python3", "python3"),
    ("ping", "iputils-ping"),
    ("sysctl", "procps"),
    ("bwrap", "bubblewrap"),
    ("strace", "strace"),
    ("dbus-daemon", "dbus"),
    // The lab's servers.
    ("radvd", "radvd"),
    ("dhclient", "isc-dhcp-client"),
];

/// Makes sure that every program is there.
///
/// # Errors
/// Names what is missing if it can't be installed.
pub fn ensure(say: &mut dyn FnMut(&str)) -> Result<()> {
    ensure_all(NEEDED, say)
}

/// Makes sure that the given programs are there.
///
/// # Errors
/// Names what is missing if it can't be installed.
pub fn ensure_all(needed: &[(&str, &str)], say: &mut dyn FnMut(&str)) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| !present(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "these Debian packages are missing: {list}. Install them with 'apt-get install {list}', or run this as root"
        );
    }
    say(&format!("installing Debian packages: {list}"));
    shell::run(Command::new("apt-get").args(["update", "-qq"]))?;
    shell::run(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    match needed.iter().find(|(program, _)| !present(program)) {
        Some((program, package)) => {
            bail!("'{program}' is still missing after 'apt-get install {package}'")
        }
        None => Ok(()),
    }
}

fn present(program: &str) -> bool {
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .any(|folder| std::path::Path::new(folder).join(program).exists())
}
