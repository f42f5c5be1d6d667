//! device - r1 - r2 - r3 - target, each in a namespace of its own.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use crate::netns::Netns;

/// `device` 10.0.1.1, routers 10.0.1.2, 10.0.2.2 and 10.0.3.2 (seen from the device), target 10.0.4.2.
pub(crate) struct Chain {
    pub(crate) device: Netns,
    pub(crate) routers: [Netns; 3],
    pub(crate) target: Netns,
}

pub(crate) const TARGET: &str = "10.0.4.2";

impl Chain {
    pub(crate) fn lay_out() -> Self {
        let chain = Self {
            device: Netns::new(),
            routers: [Netns::new(), Netns::new(), Netns::new()],
            target: Netns::new(),
        };
        let [r1, r2, r3] = &chain.routers;
        let nodes = [&chain.device, r1, r2, r3, &chain.target];
        for (n, pair) in nodes.windows(2).enumerate() {
            let net = n + 1;
            pair[0].join("right", pair[1], "left");
            pair[0].ip(&format!("address add 10.0.{net}.1/24 dev right"));
            pair[1].ip(&format!("address add 10.0.{net}.2/24 dev left"));
        }
        for (n, node) in nodes.iter().enumerate() {
            // The last router stands in the target's network, the first one in the device's.
            if n < 3 {
                let next = n + 1;
                node.ip(&format!("route add 10.0.4.0/24 via 10.0.{next}.2"));
            }
            if n > 1 {
                node.ip(&format!("route add 10.0.1.0/24 via 10.0.{n}.1"));
            }
        }
        for router in &chain.routers {
            // Rate limits are what real routers have; here every answer is to count.
            for setting in [
                "net.ipv4.ip_forward=1",
                "net.ipv4.icmp_ratelimit=0",
                "net.ipv4.conf.all.rp_filter=0",
            ] {
                router.exec(&["sysctl", "-qw", setting]);
            }
        }
        chain
            .target
            .exec(&["sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"]);
        chain
    }

    /// Runs `aizen` on the device.
    pub(crate) fn aizen(&self, arguments: &str) -> Output {
        aizen(&self.device, arguments, false)
    }
}

/// Adds one nft rule to a chain of its own at a hook.
pub(crate) fn filter(netns: &Netns, hook: &str, rule: &str) {
    let rules =
        format!("table inet t {{ chain c {{ type filter hook {hook} priority 0; {rule}; }}; }}");
    netns.exec(&["nft", &rules]);
}

/// Runs `aizen` inside, as root or as somebody without any privilege.
pub(crate) fn aizen(netns: &Netns, arguments: &str, nobody: bool) -> Output {
    let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let inside = netns.enter(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aizen"));
        command.args(words);
        if nobody {
            command.uid(65534).gid(65534);
        }
        command.output().unwrap()
    });
    inside.join().unwrap()
}

/// What `--json` printed.
pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}
