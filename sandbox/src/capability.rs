//! Capabilities: none, and no way to get any.

use std::fs;
use std::io;

use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use crate::level::Layer;

/// Empties the bounding set and locks the bits that would give root's user its powers back. Before the change of user,
/// while the process still may.
pub(crate) fn bound() -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel doesn't know.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)?;
    Ok(())
}

/// Empties the other sets. After the change of user.
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

/// What the kernel says about this process, read back instead of believed.
pub(crate) fn read_back(uid: u32) -> Vec<Layer> {
    match fs::read_to_string("/proc/self/status") {
        Ok(status) => judge(&status, uid),
        Err(error) => {
            let why = format!("could not be read back: {error}");
            ["uid", "capabilities", "no_new_privs"]
                .map(|name| Layer::off(name, why.as_str()))
                .to_vec()
        }
    }
}

fn judge(status: &str, uid: u32) -> Vec<Layer> {
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let wanted = format!("{uid}\t{uid}\t{uid}\t{uid}");
    let held: Vec<&str> = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .into_iter()
        .filter(|name| field(name).is_none_or(|set| set.bytes().any(|digit| digit != b'0')))
        .collect();
    vec![
        match field("Uid") {
            Some(found) if found == wanted => Layer::on("uid", uid.to_string()),
            found => Layer::off("uid", format!("is {}", found.unwrap_or("unknown"))),
        },
        match held.as_slice() {
            [] => Layer::on("capabilities", "all five sets empty, securebits locked"),
            held => Layer::off("capabilities", format!("not empty: {}", held.join(" "))),
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

    #[test]
    fn what_the_kernel_does_not_confirm_does_not_stand() {
        assert!(judge(STATUS, 7).iter().all(|layer| layer.enforced));
        assert!(!judge(STATUS, 8)[0].enforced);
        let bounded = STATUS.replace("CapBnd:\t00000000", "CapBnd:\t00000010");
        assert_eq!(
            judge(&bounded, 7)[1],
            Layer::off("capabilities", "not empty: CapBnd")
        );
        assert!(judge("", 7).iter().all(|layer| !layer.enforced));
    }
}
