//! What the kernel and the machine say, without trying anything over the network: alone, or after a round.

use aizen_protocol::record::{Body, Trigger};
use aizen_sanitizer::Observation;

use super::see::{Part, door, host, tables, within};
use super::{Collector, neighbour, schedule};
use crate::clock::BootTime;
use crate::collect::schedule::Due;

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

    /// Reads what counts once more after a round that began at `began`, so that its counters can be compared with those
    /// from before it tried anything: the tables, the machine, the packet filter and WireGuard. What was tried is told
    /// again as it was seen. Sends nothing and ends with [`Body::Round`].
    pub async fn look_again(&mut self, began: BootTime) -> Vec<Observation> {
        let (_, mut pass) = self.begin();
        let due = Due::only(COUNTERS_BEHIND_DOOR);
        let settings = &self.settings;
        let (tables, neighbours, machine) = tokio::join!(
            tables::see(settings, &due, &mut self.tables),
            within(settings.budgets.local, neighbour::collect()),
            host::see(settings, &due, &mut self.host),
        );
        let behind = door::see(settings, &due, &tables).await;
        let mut parts = vec![self.see_duplicates(&tables, None)];
        parts.extend(tables.into_parts());
        parts.push(Part::new("neighbours", neighbours, Body::Neighbours));
        parts.extend(behind.parts);
        parts.extend(machine);
        let log = self.merge_log(&mut parts);
        parts.extend(log);
        self.take(&mut pass, parts, |_| true);
        pass.end(Trigger::Asked, began, 0)
    }
}

/// What changes nothing and nobody outside hears.
const COUNTERS_BEHIND_DOOR: &[&str] = &["filter", "wireguard"];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aizen_protocol::record::{Body, Record};

    use super::super::Kept;
    use super::*;
    use crate::clock;
    use crate::collect::Settings;

    #[tokio::test]
    async fn a_second_look_reads_the_tables_anew_and_tells_again_what_was_tried() {
        let mut collector = Collector::new(Settings::default());
        let tried_at = clock::now();
        let kept = Kept {
            at: tried_at,
            since: clock::since_boot(),
            body: Some(Arc::new(Body::Reach(Vec::new()))),
            gaps: vec!["one target was left out".to_owned()],
        };
        collector.kept.insert("reach", kept);
        let seen = collector.look_again(clock::since_boot()).await;
        let records: Vec<Record> = seen.iter().map(|o| Record::clone(&o.local())).collect();
        let of = |name: &str| records.iter().find(|r| r.body.collector() == name);
        assert_eq!(of("reach").map(|record| record.at), Some(tried_at));
        assert!(of("links").is_some_and(|record| record.at >= tried_at));
        assert!(of("dns").is_none() && of("traces").is_none() && of("time").is_none());
        let Some(Body::Round(round)) = records.last().map(|record| &record.body) else {
            panic!("a pass ends with its round");
        };
        assert!(round.gaps.iter().any(|gap| gap.collector == "reach"));
    }
}
