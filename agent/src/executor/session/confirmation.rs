//! Probes and the confirmation, until both are there or it is too late.

use super::*;

impl Session {
    /// Probes and waits for the confirmation, until both are there or a cause to undo it.
    pub(super) async fn probe(
        &mut self,
        watch: &mut Watch,
        deadline: &Deadline,
    ) -> Result<Result<Confirmed, Cause>, ExecutorError> {
        let nonce = confirm::nonce().map_err(|source| ExecutorError::Random { source })?;
        self.record(Event::Probing {
            nonce: nonce.clone(),
        })?;
        let wanted = self.ask_for_confirmation(nonce, deadline)?;
        let probes = self.admitted.probes.clone();
        let sample = async |pause| {
            tokio::time::sleep(pause).await;
            probes.sample().await
        };
        let mut sampling = Box::pin(sample(Duration::ZERO));
        let mut holds = false;
        let mut confirmed: Option<Confirmed> = None;
        loop {
            tokio::select! {
                samples = &mut sampling => {
                    match watch.take(samples, self.shared.moment().since_boot) {
                        Health::Holds => holds = true,
                        Health::Unsettled => holds = false,
                        Health::Broken { probe } => return Ok(Err(Cause::Broken { probe })),
                    }
                    sampling = Box::pin(sample(PAUSE));
                }
                command = self.commands.recv() => match command {
                    Some(Command::RollBack { uid }) => return Ok(Err(Cause::Asked { uid })),
                    Some(Command::Confirm { statement, answer }) => {
                        let checked = self.check_statement(&statement, &wanted);
                        Self::answer(checked, answer, &mut confirmed);
                    }
                    Some(Command::OnSite { peer, answer }) => {
                        let checked = self.check_on_site(&peer);
                        Self::answer(checked, answer, &mut confirmed);
                    }
                    None => return Ok(Err(Cause::Storage { detail: "the executor is stopping".to_owned() })),
                },
                () = tokio::time::sleep(TICK) => {}
            }
            let now = self.shared.moment();
            if deadline.passed(&now.boot, now.since_boot) {
                let missing = missing(watch, confirmed.is_some());
                return Ok(Err(Cause::Deadline { missing }));
            }
            if holds && let Some(confirmed) = confirmed.take() {
                return Ok(Ok(confirmed));
            }
        }
    }

    pub(super) fn answer(
        checked: Result<Confirmed, NotConfirmed>,
        answer: oneshot::Sender<Result<(), NotConfirmed>>,
        confirmed: &mut Option<Confirmed>,
    ) {
        let told = match checked {
            Ok(by) => {
                *confirmed = Some(by);
                Ok(())
            }
            Err(not) => Err(not),
        };
        // Whoever asked may be gone; the change does not depend on it.
        answer.send(told).ok();
    }

    pub(super) fn ask_for_confirmation(
        &self,
        nonce: aizen_protocol::statement::Nonce,
        deadline: &Deadline,
    ) -> Result<Confirmation, ExecutorError> {
        let device = {
            let standing = self.shared.standing.borrow();
            let standing = standing.as_ref().ok_or(ExecutorError::NotEnrolled)?;
            standing.device.clone()
        };
        let confirmation = Confirmation {
            device,
            package: self.admitted.package.digest(),
            change: self.change().clone(),
            nonce,
        };
        let now = self.shared.moment();
        let left = deadline.left(&now.boot, now.since_boot).as_secs();
        let ask = match self.admitted.package.package().delivery {
            DeliveryMode::Uplink => ExecutorAnswer::ConfirmWanted {
                confirmation: confirmation.clone(),
            },
            DeliveryMode::OnSite => ExecutorAnswer::ConfirmOnSiteWanted {
                change: self.change().clone(),
                within_s: u32::try_from(left).unwrap_or(u32::MAX),
            },
        };
        self.shared.watchers.borrow_mut().tell(&ask);
        Ok(confirmation)
    }

    pub(super) fn check_statement(
        &self,
        statement: &Envelope,
        wanted: &Confirmation,
    ) -> Result<Confirmed, NotConfirmed> {
        if self.admitted.package.package().delivery != DeliveryMode::Uplink {
            return Err(NotConfirmed::OtherWay);
        }
        let standing = self.shared.standing.borrow();
        let standing = standing.as_ref().ok_or(NotConfirmed::OtherChange)?;
        confirm::by_statement(statement, wanted, &standing.trust, self.shared.moment().at)
    }

    pub(super) fn check_on_site(&self, peer: &Peer) -> Result<Confirmed, NotConfirmed> {
        if self.admitted.package.package().delivery != DeliveryMode::OnSite {
            return Err(NotConfirmed::OtherWay);
        }
        let ledger = self.shared.ledger.borrow();
        let asked_by = ledger
            .find(self.change())
            .and_then(|change| change.admission().asked_by);
        confirm::on_site(peer, asked_by)
    }

    /// Journals the confirmation: from here on the change stays.
    pub(super) async fn keep_change(&mut self, confirmed: &Confirmed) -> Told {
        let after = self.state().await;
        let after = after.map(|state| state.digest());
        if let Err(error) = &after {
            self.evidence
                .notes
                .push(format!("the state after can't be read: {error}"));
        }
        self.record(Event::Confirmed {
            by: confirmed.by().clone(),
            after: after.ok(),
        })
    }
}

fn missing(watch: &Watch, confirmed: bool) -> String {
    let mut missing = watch.failing();
    if !confirmed {
        missing.push("a confirmation".to_owned());
    }
    if missing.is_empty() {
        missing.push("the probes' whole window".to_owned());
    }
    missing.join(", ")
}
