//! The machine that this test runs on, as the device would tell it.

use std::time::Duration;

use aizen_agent::collect::schedule::Budgets;
use aizen_agent::collect::{Collector, Settings};
use aizen_protocol::record::{Body, Trigger};

#[tokio::test(flavor = "current_thread")]
async fn everything_readable_of_this_machine_is_told_within_the_round() {
    // A busy machine must not make a collector late.
    let budgets = Budgets {
        local: Duration::from_secs(60),
        probe: Duration::from_secs(60),
        disk: Duration::from_secs(60),
        whole: Duration::from_secs(180),
        ..Budgets::default()
    };
    let settings = Settings {
        budgets,
        ..Settings::default()
    };
    let mut collector = Collector::new(settings);
    let mut gaps = Vec::new();
    let mut told = Vec::new();
    for observation in collector.round(Trigger::Asked, 0).await {
        match &observation.local().body {
            Body::Round(round) => gaps.clone_from(&round.gaps),
            Body::Protocols(seen) => {
                assert!(seen.counters.contains_key("Tcp.RetransSegs"), "{seen:?}");
                told.push("protocols");
            }
            Body::Softnet(seen) => {
                assert!(!seen.is_empty());
                told.push("softnet");
            }
            Body::Cpu(seen) => {
                assert!(
                    seen.iter().any(|cpu| cpu.idle_ms + cpu.user_ms > 0),
                    "{seen:?}"
                );
                told.push("cpu");
            }
            Body::Host(seen) => {
                assert!(
                    seen.memory_total_bytes > 0 && !seen.disks.is_empty(),
                    "{seen:?}"
                );
                told.push("host");
            }
            Body::Configuration(seen) => {
                let hosts = seen.iter().any(|file| file.path.0 == "/etc/hosts");
                assert!(hosts, "{seen:?}");
                told.push("configuration");
            }
            _ => {}
        }
    }
    assert_eq!(
        told,
        ["protocols", "softnet", "host", "cpu", "configuration"],
        "{gaps:?}"
    );
    for machine in ["protocols", "softnet", "cpu", "host", "log", "dhcp"] {
        let late = gaps
            .iter()
            .find(|gap| gap.collector == machine && gap.reason.0.contains("no result within"));
        assert!(late.is_none(), "{late:?}");
    }
}
