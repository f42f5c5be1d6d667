//! The script's run: watched, judged, and what it really did.

use super::*;

impl Session {
    /// Journals how far a script's own hands reached: anything, until it is known.
    pub(super) fn record_reach(&self, judged: &Judged) -> Told {
        let change = self.change().as_str();
        let inverse = self.shared.seal.seal_inverse(change, &judged.inverse())?;
        match self.shared.record(self.change(), Event::Acting { inverse }) {
            // Without it, what stands in the journal holds: anything.
            Err(LedgerError::Long) => Ok(()),
            recorded => Ok(recorded?),
        }
    }

    /// Compares what the script did itself with its manifest; a cause if it did more.
    pub(super) async fn judge(
        &self,
        before: &Checkpoint,
        attempt: &mut Attempt,
    ) -> Result<Option<Cause>, ExecutorError> {
        let unread = |detail: String| Ok(Some(Cause::Storage { detail }));
        let now = match before.again(&self.shared.world).await {
            Ok(now) => now,
            Err(error) => return unread(format!("the state after can't be read: {error}")),
        };
        let brokered = closing::inverses(&self.shared, self.change());
        let brokered = match brokered {
            Ok(brokered) => brokered,
            Err(error) => return unread(error),
        };
        let judged = broker::direct::judge(
            &self.shared.world,
            &self.admitted.grants,
            before,
            &now,
            &brokered,
        );
        let judged = match judged {
            Ok(judged) => judged,
            Err(error) => return unread(error.to_string()),
        };
        self.record_reach(&judged)?;
        attempt.changes.extend(judged.changes);
        attempt.undeclared = judged.undeclared;
        let count = attempt.undeclared.len();
        let first = attempt.undeclared.iter().take(UNDECLARED);
        Ok((count > 0).then(|| Cause::PolicyViolation {
            undeclared: first.map(|text| text.0.clone()).collect(),
            count,
        }))
    }

    /// One run, watched: the deadline and a person may end it.
    pub(super) async fn attempt(
        &mut self,
        deadline: Option<&Deadline>,
    ) -> Result<(Attempt, Option<Cause>), Cause> {
        let lost = |error: std::io::Error| Cause::Storage {
            detail: format!("the sandbox was lost: {error}"),
        };
        // Only now: that it runs is durable.
        let Waiting { sandbox, cancel } = self.waiting().map_err(lost)?;
        let change = self.admitted.change.clone();
        let shared = Rc::clone(&self.shared);
        let mut before_act = |inverse: &Inverse| {
            let inverse = shared
                .seal
                .seal_inverse(change.as_str(), inverse)
                .map_err(std::io::Error::other)?;
            shared
                .record(&change, Event::Acting { inverse })
                .map_err(std::io::Error::other)
        };
        let ground = Ground {
            package: &self.admitted.package,
            values: &self.admitted.values,
            grants: &self.admitted.grants,
            min_isolation: self.admitted.min_isolation,
            world: &self.shared.world,
            settings: &self.shared.settings.execute,
        };
        let mut stopped = None;
        let running = sandbox.run(ground, &mut before_act);
        tokio::pin!(running);
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                command = self.commands.recv(), if stopped.is_none() => match command {
                    Some(Command::RollBack { uid }) => stopped = Some(Cause::Asked { uid }),
                    Some(Command::Confirm { answer, .. } | Command::OnSite { answer, .. }) => {
                        // Whoever asked may be gone; the change does not depend on it.
                        answer.send(Err(NotConfirmed::TooEarly)).ok();
                    }
                    None => stopped = Some(Cause::Storage { detail: "the executor is stopping".to_owned() }),
                },
                () = tokio::time::sleep(TICK) => {
                    let now = self.shared.moment();
                    if stopped.is_none() && deadline.is_some_and(|d| d.passed(&now.boot, now.since_boot)) {
                        stopped = Some(Cause::Deadline { missing: "the end of the script".to_owned() });
                    }
                }
            }
            if stopped.is_some() {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        match ended {
            Ok(attempt) => Ok((attempt, stopped)),
            Err(error) => Err(lost(error)),
        }
    }

    /// How packets leave for the orchestrator, in a network that was read just now or is read for this; none if the
    /// kernel doesn't say.
    pub(super) async fn ways(&self, network: Option<&Network>) -> Option<Ways> {
        let kernel = Kernel::open().ok()?;
        let read;
        let network = match network {
            Some(network) => network,
            None => {
                read = Network::read(&kernel).await.ok()?;
                &read
            }
        };
        Ways::read(&kernel, network, &self.shared.uplink())
            .await
            .ok()
    }

    /// What really changed.
    pub(super) async fn effect(&self, before: Option<Ways>, attempt: &Attempt) -> Effect {
        let management_path = match (before, self.ways(None).await) {
            (Some(before), Some(after)) => way::touched(&before, &after, &attempt.changes),
            (None, _) | (_, None) => true,
        };
        let risk = self.admitted.package.risk();
        Effect {
            changes: attempt.changes.clone(),
            undeclared: attempt.undeclared.clone(),
            not_rehearsed: Vec::new(),
            lock_outs: Vec::new(),
            irreversible: crate::rehearse::irreversible(&attempt.changes),
            management_path,
            risk: if management_path { Risk::High } else { risk },
            script: bare(&attempt.run),
        }
    }

    /// Keeps what a run showed for the report; gives its run without the output, for the journal.
    pub(super) fn keep(&mut self, attempt: Attempt) -> ScriptRun {
        let bare = bare(&attempt.run);
        for denied in &attempt.denied {
            self.evidence.notes.push(format!("denied: {denied}"));
        }
        if attempt.isolation.level > 0 {
            self.evidence.isolation = attempt.isolation;
        }
        self.evidence.script = Some(attempt.run);
        bare
    }

    /// True if what changed, as the approver would see it, is not what was approved.
    pub(super) fn deviates(&self) -> bool {
        let (Some(effect), Some(_)) = (
            self.evidence.effect.clone(),
            self.admitted.package.package().effect,
        ) else {
            return false;
        };
        let Some(approved) = self.admitted.approved_changes else {
            return true;
        };
        let Some(mut sanitizer) = self.shared.sanitizer() else {
            return true;
        };
        sanitizer
            .sanitize_value(effect)
            .map_or(true, |effect| effect.get().changes_digest() != approved)
    }
}

/// A run without its output: that stands in the outcome once, and not in the journal.
fn bare(run: &ScriptRun) -> ScriptRun {
    ScriptRun {
        output: Text::default(),
        end: run.end,
        took_ms: run.took_ms,
        output_bytes: run.output_bytes,
        leftover_processes: run.leftover_processes,
    }
}
