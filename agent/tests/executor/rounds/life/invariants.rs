//! What must hold after every round.

use super::*;

impl Ground {
    /// The one report of an admitted package.
    pub(super) async fn report(
        &self,
        plan: &Plan,
        heard: &Heard,
        package: &PackageId,
    ) -> Result<Option<Outcome>, String> {
        let mut told = self.device.outcomes().await;
        // Another one that was refused meanwhile.
        told.retain(|outcome| outcome.end != End::Refused);
        if told.len() > 1 {
            return Err(format!("more than one report: {told:?}"));
        }
        let outcome = told.pop();
        if let Some(outcome) = &outcome
            && outcome.package.as_ref() != Some(package)
        {
            return Err(format!("a report of something else: {outcome:?}"));
        }
        match (&outcome, heard.refused, &heard.ended) {
            (Some(outcome), Some(reason), _) => {
                Err(format!("refused ({reason:?}) and reported: {outcome:?}"))
            }
            (None, _, Some(ended)) => Err(format!("it ended ({ended:?}) and is not reported")),
            (None, Some(Reason::NoSpace | Reason::StorageFailed), None)
                if matches!(plan.misfortune, Misfortune::Full { .. }) =>
            {
                Ok(None)
            }
            // A file of its own that can't be read is not guessed at.
            (None, Some(_), None) if matches!(plan.misfortune, Misfortune::Refused { .. }) => {
                Ok(None)
            }
            (None, Some(reason), None) => Err(format!("refused: {reason:?}")),
            (None, None, None) if plan.misfortune == Misfortune::None => {
                Err("neither refused nor reported".to_owned())
            }
            (None, None, None) => Ok(None),
            (Some(outcome), None, Some((end, _))) if outcome.end != *end => {
                Err(format!("told {end:?}, reported {outcome:?}"))
            }
            (Some(_), None, _) => Ok(outcome),
        }
    }

    /// Before or confirmed-after, never between.
    pub(super) fn state(
        &self,
        plan: &Plan,
        heard: &Heard,
        outcome: Option<&Outcome>,
        expected: &Picture,
    ) -> Result<(), String> {
        if heard.strange && !matches!(plan.misfortune, Misfortune::Rebooted { .. }) {
            let route = batch("ip", &["route", "show", STRANGE], "");
            if route.is_empty() {
                return Err("somebody else's route is gone".to_owned());
            }
            batch("ip", &["route", "delete", STRANGE], "");
        }
        let end = outcome.map(|o| o.end);
        let now = self.world.picture();
        let wanted = match (end, plan.ending) {
            (Some(End::Confirmed), Ending::Confirmed) => {
                let mut after = heard.after.clone().ok_or("confirmed, and nobody did")?;
                if matches!(plan.misfortune, Misfortune::Rebooted { .. }) {
                    after.kernel.clone_from(&expected.kernel);
                    after.services.clone_from(&expected.services);
                }
                after
            }
            (Some(End::Confirmed), other) => {
                return Err(format!("confirmed, and it was to be {other:?}"));
            }
            _ => expected.clone(),
        };
        if now != wanted {
            return Err(format!(
                "{end:?}, and the state is not so:\n{}",
                wanted.differences(&now)
            ));
        }
        let usual = match plan.ending {
            _ if plan.rough => None,
            Ending::Confirmed => Some(End::Confirmed),
            _ => Some(End::RolledBack),
        };
        match end {
            Some(End::RollbackIncomplete) => Err("the rollback is incomplete".to_owned()),
            _ if plan.misfortune == Misfortune::None && usual.is_some() && end != usual => {
                Err(format!("expected {usual:?}"))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn never_again(&self, envelope: &Envelope) -> Result<(), String> {
        let delivery = self.device.deliver(envelope);
        let mut life = self.device.execute(envelope.clone(), Some(delivery)).await;
        match life.recv::<ExecutorAnswer>().await {
            Ok(Some(ExecutorAnswer::Refused(refusal))) if refusal.reason == Reason::Replayed => {
                Ok(())
            }
            other => Err(format!("sent again: {other:?}")),
        }
    }

    /// A start with nothing to recover changes nothing.
    pub(super) async fn again(&mut self, expected: &Picture, heard: &Heard) -> Result<(), String> {
        let (state, told) = (self.world.picture(), self.device.outcomes().await);
        self.end_executor();
        self.start().await;
        if self.device.outcomes().await != told {
            return Err("another start told something else".to_owned());
        }
        let now = self.world.picture();
        if now != state {
            return Err(format!(
                "another start changed something:\n{}",
                state.differences(&now)
            ));
        }
        // Which of the two it is was looked at before.
        let known = now == *expected
            || heard
                .after
                .as_ref()
                .is_some_and(|after| after.files == now.files);
        if known {
            Ok(())
        } else {
            Err("a third state".to_owned())
        }
    }

    /// The daemon takes the report.
    pub(super) async fn collected(&self) -> Result<(), String> {
        let ExecutorAnswer::Outcomes { outcomes } =
            self.device.ask(ExecutorRequest::Outcomes).await
        else {
            return Err("no list of outcomes".to_owned());
        };
        for outcome in outcomes {
            let outcome = Digest::of(&outcome.unverified_payload().unwrap());
            self.device
                .ask(ExecutorRequest::Acknowledge { outcome })
                .await;
        }
        match self.device.outcomes().await.len() {
            0 => Ok(()),
            left => Err(format!("{left} reports are left")),
        }
    }

    pub(super) async fn nothing_left(&mut self) -> Result<(), String> {
        let own = [self.device.executor_id(), self.world.peer()];
        let since = Instant::now();
        loop {
            let left = descendants(&own);
            if left.is_empty() {
                break;
            }
            if since.elapsed() > Duration::from_secs(20) {
                return Err(format!("processes are left: {left:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Those of other people's namespaces go when these are removed.
        let mounts: Vec<String> = mounts().difference(&self.mounts).cloned().collect();
        if !mounts.is_empty() {
            return Err(format!("mounts are left: {mounts:?}"));
        }
        let state = self.device.path("state");
        let strange: Vec<String> = names(&state)
            .into_iter()
            .filter(|name| !self.entries.contains(name) && !name.starts_with("journal-"))
            .chain(names(&state.join("snapshots")))
            .chain(names(&state.join("outcomes")))
            .collect();
        if !strange.is_empty() {
            return Err(format!("files are left: {strange:?}"));
        }
        // The next script's start takes them away, once they are empty.
        self.dead.retain(|(id, _)| !groups(*id).is_empty());
        for (id, rounds) in &mut self.dead {
            *rounds += 1;
            if *rounds > 20 {
                return Err(format!("control groups are left: {:?}", groups(*id)));
            }
        }
        Ok(())
    }
}
