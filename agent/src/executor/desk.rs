//! Who may ask what, and what is done about it.

use std::cell::RefCell;
use std::rc::Rc;

use aizen_protocol::control::{Bindings, ExecutorAnswer, ExecutorRequest, Question, Refusal};
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{ChangeId, Digest};
use aizen_protocol::reason::Reason;
use tokio::sync::{mpsc, oneshot};

use super::admission::{self, NotAdmitted};
use super::door::Ask;
use super::ledger::Entry;
use super::questions::Keeper;
use super::refusal::Refusals;
use super::rescue;
use super::session::{Command, Session};
use super::shared::Shared;
use super::{ExecutorError, Job};
use crate::change::Event;
use crate::confirm::NotConfirmed;
use crate::control::{Access, Peer};
use crate::report::ReportError;
use crate::{door, recover, verify};

/// Rehearsals and commands at once.
const JOBS: usize = 4;
/// Commands that wait for the pending change.
const COMMANDS: usize = 8;

/// What a request began.
pub(crate) enum Begun {
    /// It is answered, or will be by what already runs.
    Nothing,
    /// Something that takes a while and changes nothing.
    Job(Job),
    /// A change.
    Change(Box<Session>),
}

/// Where requests are decided.
pub(crate) struct Desk {
    shared: Rc<Shared>,
    refusals: Refusals,
    pending: Option<(ChangeId, mpsc::Sender<Command>)>,
    jobs: usize,
    questions: Rc<RefCell<Keeper>>,
}

type Answers = mpsc::Sender<ExecutorAnswer>;

impl Desk {
    pub(crate) fn new(shared: Rc<Shared>) -> Self {
        Self {
            shared,
            refusals: Refusals::default(),
            pending: None,
            jobs: 0,
            questions: Rc::default(),
        }
    }

    pub(crate) fn job_ended(&mut self) {
        self.jobs = self.jobs.saturating_sub(1);
    }

    pub(crate) fn change_ended(&mut self) {
        self.pending = None;
    }

    /// Takes one request.
    ///
    /// # Errors
    /// [`ExecutorError`] if the executor can't go on.
    pub(crate) fn take(&mut self, ask: Ask) -> Result<Begun, ExecutorError> {
        let Ask {
            peer,
            request,
            answers,
        } = ask;
        if !peer.may(access(&request), self.shared.settings.daemon) {
            return Ok(said(
                &answers,
                failed("this needs root or a member of aizen-operators"),
            ));
        }
        match request {
            ExecutorRequest::Status => {
                Ok(said(&answers, ExecutorAnswer::Status(self.shared.status())))
            }
            ExecutorRequest::Verify { package } => Ok(said(&answers, self.verify(&package))),
            ExecutorRequest::Rehearse { package, bindings } => {
                Ok(self.rehearse(&package, &bindings, peer, answers))
            }
            ExecutorRequest::Execute {
                package,
                delivery,
                bindings,
            } => self.execute(&package, delivery.as_ref(), &bindings, &peer, answers),
            ExecutorRequest::Watch => Ok(self.watch(answers)),
            ExecutorRequest::Confirm { statement } => {
                Ok(self.command(answers, |answer| Command::Confirm { statement, answer }))
            }
            ExecutorRequest::ConfirmOnSite { change } => {
                if !self.is_pending(&change) {
                    return Ok(said(&answers, failed("that change is not pending")));
                }
                Ok(self.command(answers, |answer| Command::OnSite { peer, answer }))
            }
            ExecutorRequest::RollBack { change } => {
                Ok(said(&answers, self.roll_back(&change, peer.uid)))
            }
            ExecutorRequest::Clear { change } => Ok(said(&answers, self.clear(&change, peer.uid)?)),
            ExecutorRequest::Rescue => Ok(self.rescue(answers)),
            ExecutorRequest::RescueSave => Ok(self.rescue_save(answers, peer.uid)),
            ExecutorRequest::RescueApply => Ok(self.rescue_apply(answers, peer.uid)),
            ExecutorRequest::Changes => {
                let changes = self.shared.ledger.borrow().summaries();
                Ok(said(&answers, ExecutorAnswer::Changes { changes }))
            }
            ExecutorRequest::Outcomes => {
                // One that a start held back is told now, if it can be.
                if self.pending.is_none()
                    && !self.shared.seeing_out.get()
                    && let Err(error) = recover::tell_held(&self.shared)
                {
                    tracing::error!(%error, "the end of a change can't be told yet");
                }
                let told = self.outcomes().unwrap_or_else(|e| failed(&e.to_string()));
                Ok(said(&answers, told))
            }
            ExecutorRequest::Acknowledge { outcome } => {
                let told = self.acknowledge(&outcome);
                Ok(said(
                    &answers,
                    told.unwrap_or_else(|e| failed(&e.to_string())),
                ))
            }
            ExecutorRequest::Pause => {
                self.shared.set_paused(true, peer.uid)?;
                Ok(said(&answers, ExecutorAnswer::Done))
            }
            ExecutorRequest::Resume => {
                self.shared.set_paused(false, peer.uid)?;
                Ok(said(&answers, ExecutorAnswer::Done))
            }
            ExecutorRequest::See(question) => Ok(self.see(question, answers)),
        }
    }

    fn verify(&self, package: &Envelope) -> ExecutorAnswer {
        let verified = self.shared.judge(|at| verify::undelivered(package, at));
        match verified {
            Ok(verified) => ExecutorAnswer::Verified {
                package: verified.package().id.clone(),
                digest: verified.digest(),
                risk: verified.risk(),
                intent: verified.package().intent.clone(),
            },
            Err(refused) => ExecutorAnswer::Refused(Refusal {
                reason: refused.reason,
                detail: refused.detail,
                signed: None,
            }),
        }
    }

    fn execute(
        &mut self,
        package: &Envelope,
        delivery: Option<&Envelope>,
        bindings: &Bindings,
        peer: &Peer,
        answers: Answers,
    ) -> Result<Begun, ExecutorError> {
        let admitted = match admission::admit(&self.shared, package, delivery, bindings, peer) {
            Ok(admitted) => admitted,
            Err(NotAdmitted::Fatal(error)) => return Err(error),
            Err(NotAdmitted::Refused(refused)) => {
                let refusal = self.refusals.refuse(&self.shared, package, refused);
                return Ok(said(&answers, ExecutorAnswer::Refused(refusal)));
            }
        };
        let change = admitted.change.clone();
        let mut watchers = self.shared.watchers.borrow_mut();
        watchers.begin();
        watchers.follow(answers);
        watchers.tell(&ExecutorAnswer::Admitted {
            change: change.clone(),
        });
        drop(watchers);
        let (commands_tx, commands) = mpsc::channel(COMMANDS);
        self.pending = Some((change, commands_tx));
        let session = Session::new(Rc::clone(&self.shared), admitted, commands);
        Ok(Begun::Change(Box::new(session)))
    }

    fn watch(&self, answers: Answers) -> Begun {
        if self.pending.is_none() {
            return said(&answers, ExecutorAnswer::Done);
        }
        if !self.shared.watchers.borrow_mut().follow(answers.clone()) {
            return said(&answers, failed("too many follow this change already"));
        }
        Begun::Nothing
    }

    fn rehearse(
        &mut self,
        package: &Envelope,
        bindings: &Bindings,
        peer: Peer,
        answers: Answers,
    ) -> Begun {
        // Questions are counted by their keeper.
        if self.jobs.saturating_sub(self.questions.borrow().running()) >= JOBS {
            return said(&answers, failed("too much is being rehearsed: try again"));
        }
        let prepared = super::rehearsal::prepare(&self.shared, package, bindings);
        self.jobs += 1;
        let shared = Rc::clone(&self.shared);
        let package = package.clone();
        Begun::Job(Box::pin(async move {
            let answer = super::rehearsal::run(&shared, &package, prepared, &peer).await;
            // Whoever asked may be gone.
            answers.send(answer).await.ok();
        }))
    }

    fn see(&mut self, question: Question, answers: Answers) -> Begun {
        let entered = self
            .questions
            .borrow_mut()
            .enter(&question, self.shared.moment().since_boot);
        if let Err(busy) = entered {
            return said(&answers, failed(&busy.to_string()));
        }
        self.jobs += 1;
        let questions = Rc::clone(&self.questions);
        Begun::Job(Box::pin(async move {
            let answer = door::answer(&question).await;
            questions.borrow_mut().leave(&question);
            // Whoever asked may be gone.
            answers.send(answer).await.ok();
        }))
    }

    fn rescue(&mut self, answers: Answers) -> Begun {
        let shared = Rc::clone(&self.shared);
        self.job(answers, async move {
            match rescue::show(&shared).await {
                Ok(profile) => ExecutorAnswer::Rescue { profile },
                Err(error) => failed(&error),
            }
        })
    }

    fn rescue_save(&mut self, answers: Answers, uid: u32) -> Begun {
        if let Some(busy) = self.busy() {
            return said(&answers, busy);
        }
        let shared = Rc::clone(&self.shared);
        self.job(answers, async move {
            match rescue::save(&shared, uid).await {
                Ok(()) => ExecutorAnswer::Done,
                Err(error) => failed(&error),
            }
        })
    }

    fn rescue_apply(&mut self, answers: Answers, uid: u32) -> Begun {
        if let Some(busy) = self.busy() {
            return said(&answers, busy);
        }
        let moment = self.shared.moment();
        let entry = Entry::Rescue { uid, moment };
        // A disk that is full keeps nobody from mending the network.
        if let Err(error) = self.shared.ledger.borrow_mut().note(&entry) {
            tracing::error!(%error, "the journal does not know that the rescue profile is put back");
        }
        self.shared.rescuing.set(true);
        let shared = Rc::clone(&self.shared);
        self.job(answers, async move {
            let applied = rescue::apply(&shared).await;
            shared.rescuing.set(false);
            match applied {
                Ok(end) => ExecutorAnswer::Rescued(end),
                Err(error) => failed(&error),
            }
        })
    }

    fn job(
        &mut self,
        answers: Answers,
        work: impl Future<Output = ExecutorAnswer> + 'static,
    ) -> Begun {
        self.jobs += 1;
        Begun::Job(Box::pin(async move {
            // Whoever asked may be gone.
            answers.send(work.await).await.ok();
        }))
    }

    /// A refusal while the network is somebody else's.
    fn busy(&self) -> Option<ExecutorAnswer> {
        let detail = if self.shared.rescuing.get() {
            "the rescue profile is being put back".to_owned()
        } else {
            let ledger = self.shared.ledger.borrow();
            let open = ledger.open_change()?;
            format!("the change {} is open", open.admission().change)
        };
        Some(ExecutorAnswer::Refused(Refusal {
            reason: Reason::Busy,
            detail,
            signed: None,
        }))
    }

    fn is_pending(&self, change: &ChangeId) -> bool {
        self.pending.as_ref().is_some_and(|(p, _)| p == change)
    }

    /// Hands a confirmation to the pending change; the answer comes when it was checked.
    fn command(
        &mut self,
        answers: Answers,
        make: impl FnOnce(oneshot::Sender<Result<(), NotConfirmed>>) -> Command,
    ) -> Begun {
        let Some((_, commands)) = &self.pending else {
            return said(&answers, failed("no change is pending"));
        };
        let (answer, answered) = oneshot::channel();
        if commands.try_send(make(answer)).is_err() {
            return said(&answers, failed("the change does not take this any more"));
        }
        self.jobs += 1;
        Begun::Job(Box::pin(async move {
            let told = match answered.await {
                Ok(Ok(())) => ExecutorAnswer::Done,
                Ok(Err(not)) => failed(&not.to_string()),
                Err(_) => failed("the change ended before it looked at this"),
            };
            // Whoever asked may be gone.
            answers.send(told).await.ok();
        }))
    }

    fn roll_back(&self, change: &ChangeId, uid: u32) -> ExecutorAnswer {
        match &self.pending {
            Some((pending, commands)) if pending == change => {
                match commands.try_send(Command::RollBack { uid }) {
                    Ok(()) => ExecutorAnswer::Done,
                    Err(_) => failed("the change is being rolled back already"),
                }
            }
            Some(_) | None => failed("that change is not pending"),
        }
    }

    fn clear(&self, change: &ChangeId, uid: u32) -> Result<ExecutorAnswer, ExecutorError> {
        let waits = {
            let ledger = self.shared.ledger.borrow();
            ledger
                .blocking()
                .is_some_and(|b| b.admission().change == *change)
        };
        if !waits || self.is_pending(change) {
            return Ok(failed("that change has no incomplete rollback to clear"));
        }
        self.shared.record(change, Event::Cleared { uid })?;
        self.shared.snapshots.remove(change.as_str())?;
        Ok(ExecutorAnswer::Done)
    }

    fn outcomes(&self) -> Result<ExecutorAnswer, ReportError> {
        // One line of the socket holds a bounded number of them; the rest follows after these are acknowledged.
        let mut room = aizen_protocol::limit::FRAME - 4096;
        let mut outcomes = Vec::new();
        for envelope in self.shared.outbox.all()? {
            let size = serde_json::to_vec(&envelope)?.len() + 1;
            let Some(left) = room.checked_sub(size) else {
                break;
            };
            room = left;
            outcomes.push(envelope);
        }
        Ok(ExecutorAnswer::Outcomes { outcomes })
    }

    fn acknowledge(&self, outcome: &Digest) -> Result<ExecutorAnswer, ReportError> {
        self.shared.outbox.acknowledge(outcome)?;
        // One that is not there was acknowledged before: the daemon may have crashed in between.
        Ok(ExecutorAnswer::Done)
    }
}

fn access(request: &ExecutorRequest) -> Access {
    match request {
        ExecutorRequest::Status | ExecutorRequest::Verify { .. } | ExecutorRequest::Changes => {
            Access::Anybody
        }
        ExecutorRequest::Rehearse { .. }
        | ExecutorRequest::Execute { .. }
        | ExecutorRequest::Watch
        | ExecutorRequest::Confirm { .. }
        | ExecutorRequest::Outcomes
        | ExecutorRequest::Acknowledge { .. }
        | ExecutorRequest::See(_) => Access::Daemon,
        ExecutorRequest::ConfirmOnSite { .. }
        | ExecutorRequest::RollBack { .. }
        | ExecutorRequest::Clear { .. }
        | ExecutorRequest::Rescue
        | ExecutorRequest::RescueSave
        | ExecutorRequest::RescueApply
        | ExecutorRequest::Pause
        | ExecutorRequest::Resume => Access::Operator,
    }
}

/// Answers at once; a peer that is gone hears nothing.
fn said(answers: &Answers, answer: ExecutorAnswer) -> Begun {
    answers.try_send(answer).ok();
    Begun::Nothing
}

fn failed(message: &str) -> ExecutorAnswer {
    ExecutorAnswer::Failed {
        message: message.to_owned(),
    }
}
