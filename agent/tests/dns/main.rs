//! Names and what stands before the web, against real servers: each test lays out its own network namespaces and lets
//! one server lie, fail or be silent.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't lay out its network must fail"
)]

mod certificates;
mod collected;
mod daemon;
#[path = "../collect/netns.rs"]
mod netns;
mod portal;
mod secure;
mod tool;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use aizen_agent::collect::resolve::Asking;
use aizen_agent::collect::{Collector, Settings};
use aizen_protocol::record::{Body, Certificate, DnsProbe, Portal, Round, Trigger};
use netns::Netns;

/// What one round saw.
#[derive(Debug, Default)]
struct Pass {
    dns: Vec<DnsProbe>,
    certificates: Vec<Certificate>,
    portal: Option<Portal>,
    end: Option<Round>,
}

impl Pass {
    fn gap(&self, collector: &str) -> Option<&str> {
        let gaps = &self.end.as_ref().unwrap().gaps;
        gaps.iter()
            .find(|g| g.collector == collector)
            .map(|g| g.reason.0.as_str())
    }
}

fn see(device: &Netns, settings: Settings) -> Pass {
    device.block_on(|| async {
        let mut pass = Pass::default();
        for observation in Collector::new(settings).round(Trigger::Asked, 0).await {
            match observation.local().body.clone() {
                Body::Dns(seen) => pass.dns = seen,
                Body::Certificates(seen) => pass.certificates = seen,
                Body::Portal(seen) => pass.portal = Some(seen),
                Body::Round(seen) => pass.end = Some(seen),
                _ => {}
            }
        }
        pass
    })
}

/// Few questions, and patience: the machine may be busy.
fn settings(root: &Path) -> Settings {
    Settings {
        root: root.to_owned(),
        names: vec!["www.example".to_owned()],
        asking: Asking {
            times: 2,
            pause: Duration::from_millis(10),
            deadline: Duration::from_millis(1500),
        },
        ..Settings::default()
    }
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}
