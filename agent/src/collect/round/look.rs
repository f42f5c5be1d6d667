//! What the kernel and the machine say, without trying anything over the network.

use aizen_protocol::id::RoundId;
use aizen_protocol::record::{Body, Trigger};
use aizen_sanitizer::Observation;

use super::see::{Part, host, tables, within};
use super::{Collector, Pass, clock, neighbour};

impl Collector {
    /// Reads every table once and ends with [`Body::Round`]; sends nothing. Rare collectors that are due run as well.
    pub async fn look(&mut self) -> Vec<Observation> {
        let began = clock::since_boot();
        self.last = RoundId(self.last.0 + 1);
        let mut pass = Pass {
            round: self.last,
            boot: self.boot.clone(),
            observations: Vec::new(),
            gaps: Vec::new(),
        };
        let due = self.schedule.start(began, Trigger::Asked);
        let settings = &self.settings;
        let (tables, neighbours, machine) = tokio::join!(
            tables::see(settings),
            within(settings.budgets.local, neighbour::collect()),
            host::see(settings, &due, &mut self.host),
        );
        let mut parts = tables.into_parts();
        parts.push(Part::new("neighbours", neighbours, Body::Neighbours));
        parts.extend(machine);
        self.take(&mut pass, parts);
        let took_ms = clock::since_boot().0.saturating_sub(began.0).as_millis();
        pass.end(
            Trigger::Asked,
            u32::try_from(took_ms).unwrap_or(u32::MAX),
            0,
        )
    }
}
