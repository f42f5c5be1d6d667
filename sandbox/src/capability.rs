//! Capabilities: those that the profile declares, mostly none, and no way to get another.

use std::fs;
use std::io;

use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use crate::level::Layer;
use crate::profile::Powers;

/// The sets of capabilities(7) as they stand in `/proc/self/status`.
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

fn declared(powers: Powers) -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    set.set(CapabilitySet::NET_ADMIN, powers.net_admin);
    set.set(CapabilitySet::NET_RAW, powers.net_raw);
    set
}

/// Empties the bounding set but for what is declared, and locks the bits that would give root's user its powers back.
/// Before the change of user, while the process still may.
pub(crate) fn bound(powers: Powers) -> io::Result<()> {
    let declared = declared(powers);
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if declared.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel doesn't know.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    rustix::thread::set_capabilities_secure_bits(BITS)?;
    Ok(())
}

/// Makes the other sets what is declared, for this process and for programs that it executes, and ends the raising of
/// more. After the change of user, which with these bits took nothing away yet.
pub(crate) fn settle(powers: Powers) -> io::Result<()> {
    let declared = declared(powers);
    let mut sets = rustix::thread::capabilities(None)?;
    sets.inheritable = declared;
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::clear_ambient_capability_set()?;
    // Without it an executed program keeps nothing (capabilities(7), "ambient").
    for capability in declared.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    let last = CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(BITS | last)?;
    sets.effective = declared;
    sets.permitted = declared;
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// Empties every set but the bounding one: the sandbox's own processes need nothing.
pub(crate) fn drop_all() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let nothing = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, nothing)?;
    Ok(())
}

const BITS: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED);

/// What the kernel says about this process, read back instead of believed.
pub(crate) fn read_back(uid: u32, powers: Powers) -> Vec<Layer> {
    match fs::read_to_string("/proc/self/status") {
        Ok(status) => judge(&status, uid, powers),
        Err(error) => {
            let why = format!("could not be read back: {error}");
            ["uid", "capabilities", "no_new_privs"]
                .map(|name| Layer::off(name, why.as_str()))
                .to_vec()
        }
    }
}

fn judge(status: &str, uid: u32, powers: Powers) -> Vec<Layer> {
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let wanted = format!("{uid}\t{uid}\t{uid}\t{uid}");
    let declared = declared(powers).bits();
    let is = |name: &str| field(name).and_then(|set| u64::from_str_radix(set, 16).ok());
    let others: Vec<&str> = SETS
        .into_iter()
        .filter(|name| is(name) != Some(declared))
        .collect();
    vec![
        match field("Uid") {
            Some(found) if found == wanted => Layer::on("uid", uid.to_string()),
            found => Layer::off("uid", format!("is {}", found.unwrap_or("unknown"))),
        },
        match others.as_slice() {
            [] if powers.any() => Layer::on(
                "capabilities",
                format!(
                    "all five sets exactly {}, securebits locked",
                    powers.names()
                ),
            ),
            [] => Layer::on("capabilities", "all five sets empty, securebits locked"),
            others => Layer::off(
                "capabilities",
                format!("not what is declared: {}", others.join(" ")),
            ),
        },
        match field("NoNewPrivs") {
            Some("1") => Layer::on("no_new_privs", ""),
            _ => Layer::off("no_new_privs", "the kernel says it is not set"),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsh\nUid:\t7\t7\t7\t7\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
        CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";

    const NONE: Powers = Powers {
        net_admin: false,
        net_raw: false,
        generic_netlink: false,
    };

    #[test]
    fn what_the_kernel_does_not_confirm_does_not_stand() {
        assert!(judge(STATUS, 7, NONE).iter().all(|layer| layer.enforced));
        assert!(!judge(STATUS, 8, NONE)[0].enforced);
        let bounded = STATUS.replace("CapBnd:\t00000000", "CapBnd:\t00000010");
        assert_eq!(
            judge(&bounded, 7, NONE)[1],
            Layer::off("capabilities", "not what is declared: CapBnd")
        );
        assert!(judge("", 7, NONE).iter().all(|layer| !layer.enforced));
    }

    #[test]
    fn declared_capabilities_stand_in_every_set_and_no_other_does() {
        let admin = Powers {
            net_admin: true,
            ..NONE
        };
        assert!(!judge(STATUS, 7, admin)[1].enforced);
        let held = STATUS.replace("0000000000000000", "0000000000001000");
        assert!(judge(&held, 7, admin)[1].enforced);
        assert!(!judge(&held, 7, NONE)[1].enforced);
        let more = held.replace("CapAmb:\t0000000000001000", "CapAmb:\t0000000000003000");
        assert_eq!(
            judge(&more, 7, admin)[1],
            Layer::off("capabilities", "not what is declared: CapAmb")
        );
    }
}
