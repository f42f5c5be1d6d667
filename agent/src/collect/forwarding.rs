//! Whether the kernel forwards packets.

use std::fs;
use std::path::Path;

use aizen_protocol::record::Forwarding;

use super::Seen;

/// Reads `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding` of the calling thread's network namespace.
pub(crate) fn collect(root: &Path) -> Seen<Forwarding> {
    let mut gaps = Vec::new();
    let ipv4 = flag(&root.join("proc/sys/net/ipv4/ip_forward"));
    if ipv4.is_none() {
        gaps.push("net.ipv4.ip_forward can't be read".to_owned());
    }
    let ipv6 = flag(&root.join("proc/sys/net/ipv6/conf/all/forwarding"));
    if !root.join("proc/sys/net/ipv6").exists() {
        gaps.push("this kernel has no IPv6".to_owned());
    } else if ipv6.is_none() {
        gaps.push("net.ipv6.conf.all.forwarding can't be read".to_owned());
    }
    Seen {
        value: Forwarding { ipv4, ipv6 },
        gaps,
    }
}

fn flag(path: &Path) -> Option<bool> {
    match fs::read_to_string(path).ok()?.trim() {
        "0" => Some(false),
        // ip_forward and forwarding are integers: any other value than 0 forwards (ip-sysctl.rst).
        text => text.parse::<i32>().ok().map(|value| value != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipv6_is_a_gap_and_not_forwarding_off() {
        let root = tempfile::tempdir().unwrap();
        let ipv4 = root.path().join("proc/sys/net/ipv4");
        fs::create_dir_all(&ipv4).unwrap();
        fs::write(ipv4.join("ip_forward"), "1\n").unwrap();
        let seen = collect(root.path());
        assert_eq!(
            seen.value,
            Forwarding {
                ipv4: Some(true),
                ipv6: None
            }
        );
        assert_eq!(seen.gaps, ["this kernel has no IPv6"]);
    }

    #[test]
    fn what_is_no_number_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        for (text, want) in [
            ("0\n", Some(false)),
            ("2\n", Some(true)),
            ("", None),
            ("yes", None),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(flag(&path), want, "{text:?}");
        }
    }
}
