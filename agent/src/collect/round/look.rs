//! What the kernel and the machine say, without trying anything over the network.

use aizen_protocol::record::{Body, Trigger};
use aizen_sanitizer::Observation;

use super::see::{Part, host, tables, within};
use super::{Collector, neighbour, schedule};

impl Collector {
    /// Reads every table once and ends with [`Body::Round`]; sends nothing. Rare collectors that are due run as well.
    pub async fn look(&mut self) -> Vec<Observation> {
        let (began, mut pass) = self.begin();
        let due = self.schedule.start(began, Trigger::Asked);
        let settings = &self.settings;
        let (tables, neighbours, machine) = tokio::join!(
            tables::see(settings, &due, &mut self.tables),
            within(settings.budgets.local, neighbour::collect()),
            host::see(settings, &due, &mut self.host),
        );
        let mut parts = tables.into_parts();
        parts.push(Part::new("neighbours", neighbours, Body::Neighbours));
        parts.extend(machine);
        self.keep(&parts, schedule::is_rare);
        self.take(&mut pass, parts, schedule::is_rare);
        pass.end(Trigger::Asked, began, 0)
    }
}
