//! Namespaces: what the script doesn't see it can't touch.
//!
//! All but the user namespace are made while the process is still root, so they belong to the initial user namespace:
//! even a full set of capabilities in the script's own would have no power over them.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use crate::level::Layer;
use crate::profile::{Network, Powers};

/// The pid namespace: the next child of the calling process is its init.
pub(crate) fn processes() -> Layer {
    try_one("pid_namespace", CloneFlags::CLONE_NEWPID)
}

/// Mounts, System V IPC, host name and, if asked, the network.
pub(crate) fn surroundings(network: Network) -> Vec<Layer> {
    let mut layers = vec![
        try_one("mount_namespace", CloneFlags::CLONE_NEWNS),
        try_one("ipc_namespace", CloneFlags::CLONE_NEWIPC),
        try_one("uts_namespace", CloneFlags::CLONE_NEWUTS),
    ];
    if network == Network::Empty {
        layers.push(try_one("network_namespace", CloneFlags::CLONE_NEWNET));
    }
    layers
}

/// The control groups, of which the process's own become the root.
pub(crate) fn groups() -> Layer {
    try_one("cgroup_namespace", CloneFlags::CLONE_NEWCGROUP)
}

/// The user namespace. The process has no user in it until the keeper has written its map.
pub(crate) fn user() -> Layer {
    try_one("user_namespace", CloneFlags::CLONE_NEWUSER)
}

/// None, for this reason.
pub(crate) fn no_user(why: &str) -> Layer {
    Layer::off("user_namespace", why)
}

/// Gives the user namespace of process `pid` one user and one group; from outside, by root.
pub(crate) fn map(pid: i32, uid: u32, gid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), format!("{uid} {uid} 1"))?;
    // Groups stay as they are for good: dropping one can open what a group is shut out of.
    fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    fs::write(format!("/proc/{pid}/gid_map"), format!("{gid} {gid} 1"))
}

/// True if `name` stands in `layers`.
pub(crate) fn stands(layers: &[Layer], name: &str) -> bool {
    layers
        .iter()
        .any(|layer| layer.name == name && layer.enforced)
}

/// Out of reach means: nothing to configure in one's own namespace, or no socket to configure the host's with.
pub(crate) fn network(layers: &[Layer], powers: Powers) -> Layer {
    let unreachable = "no socket but unix, no capability, no /proc/sys";
    if powers.any() {
        Layer::off("network", format!("the host's, with {}", powers.names()))
    } else if stands(layers, "network_namespace") {
        Layer::on("network", "own empty namespace")
    } else if stands(layers, "seccomp")
        && stands(layers, "capabilities")
        && stands(layers, "mount_namespace")
    {
        Layer::on("network", unreachable)
    } else {
        Layer::off("network", "the host's, with sockets")
    }
}

fn try_one(name: &str, flag: CloneFlags) -> Layer {
    match unshare(flag) {
        Ok(()) => Layer::on(name, ""),
        // The kernel's answer for a full quota.
        Err(Errno::ENOSPC) => Layer::off(name, "the limit in /proc/sys/user forbids it"),
        Err(error) => Layer::off(name, error.desc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_network_is_out_of_reach_only_behind_walls_that_stand() {
        let on = |names: &[&str]| -> Vec<Layer> {
            names.iter().map(|name| Layer::on(name, "")).collect()
        };
        let none = Powers::default();
        assert!(network(&on(&["network_namespace"]), none).enforced);
        assert!(network(&on(&["seccomp", "capabilities", "mount_namespace"]), none).enforced);
        assert!(!network(&on(&["capabilities", "mount_namespace"]), none).enforced);
        assert!(!network(&[Layer::off("network_namespace", "not permitted")], none).enforced);
        let admin = Powers {
            net_admin: true,
            ..none
        };
        let walls = on(&[
            "network_namespace",
            "seccomp",
            "capabilities",
            "mount_namespace",
        ]);
        assert!(!network(&walls, admin).enforced);
    }
}
