//! Faults that the lab can make, each real.

use anyhow::Result;

use crate::lab::{GATEWAY, Lab};
use crate::shell;

/// A fault, as `cargo xtask lab` and the tests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first resolver's process ends.
    ResolverDead,
    /// The first resolver is stopped (`SIGSTOP`): questions time out.
    ResolverSilent,
    /// The device's default route is deleted.
    NoDefaultRoute,
    /// The provider's router ignores the device altogether.
    GatewayDead,
    /// The device's LAN interface is set down by mistake.
    LinkDown,
    /// Packets above 1400 bytes vanish behind the provider's router, without "fragmentation needed".
    MtuBlackHole,
    /// The LAN host takes the device's address.
    DuplicateAddress,
    /// The device forwards no more.
    ForwardingOff,
}

impl Fault {
    /// Every fault there is.
    pub const ALL: &[Self] = &[
        Self::ResolverDead,
        Self::ResolverSilent,
        Self::NoDefaultRoute,
        Self::GatewayDead,
        Self::LinkDown,
        Self::MtuBlackHole,
        Self::DuplicateAddress,
        Self::ForwardingOff,
    ];

    /// The cause that the expert must name.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::ResolverDead | Self::ResolverSilent => "resolver_dead",
            Self::NoDefaultRoute => "no_default_route",
            Self::GatewayDead => "gateway_dead",
            Self::LinkDown => "link_admin_down",
            Self::MtuBlackHole => "mtu_black_hole",
            Self::DuplicateAddress => "duplicate_address",
            Self::ForwardingOff => "forwarding_off",
        }
    }

    /// Makes it.
    ///
    /// # Errors
    /// If a command of the lab fails.
    pub fn inject(self, lab: &mut Lab) -> Result<()> {
        match self {
            Self::ResolverDead => lab.stop_resolver(0),
            Self::ResolverSilent => {
                // The process under `ip netns exec` is dnsmasq itself: ip(8) execs it.
                lab.resolver(0)?.signal(nix::sys::signal::Signal::SIGSTOP)?;
            }
            Self::NoDefaultRoute => drop(lab.device.ip("route delete default")?),
            Self::GatewayDead => {
                nft(
                    lab,
                    &lab.isp,
                    "table netdev dead {\n chain in {\n type filter hook ingress device cpe priority 0\n drop\n }\n}\n",
                )?;
                lab.device.ip(&format!("neighbour flush to {GATEWAY}"))?;
            }
            Self::LinkDown => drop(lab.device.ip("link set lan0 down")?),
            Self::MtuBlackHole => {
                nft(
                    lab,
                    &lab.isp,
                    "table ip hole {\n\
                     chain forward {\n type filter hook forward priority 0\n ip length > 1400 drop\n }\n\
                     chain output {\n type filter hook output priority 0\n icmp type destination-unreachable drop\n }\n\
                     chain input {\n type filter hook input priority 0\n ip length > 1400 drop\n }\n}\n",
                )?;
            }
            Self::DuplicateAddress => drop(lab.lan.ip("address add 192.168.77.1/32 dev eth0")?),
            Self::ForwardingOff => lab.device.sysctl("net.ipv4.ip_forward", "0")?,
        }
        Ok(())
    }
}

fn nft(lab: &Lab, netns: &crate::netns::Netns, ruleset: &str) -> Result<()> {
    let file = lab.folder().join("fault.nft");
    std::fs::write(&file, ruleset)?;
    shell::run(netns.command("nft").arg("-f").arg(&file))?;
    Ok(())
}
