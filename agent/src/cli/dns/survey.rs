//! The asking itself: every server in every way at the same time, each question with its own deadline.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::plan::{Plan, Target};
use crate::clock;
use crate::collect::resolve::absent;
use crate::probe::dns::{Client, Failure, Kind, Question, Reply, Transport};

/// What one server said in one way.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) target: Target,
    /// The last answer, or why there is none.
    pub(super) ended: Result<Reply, Failure>,
    /// The answer over UDP was cut, and what stands here came over TCP.
    pub(super) cut: bool,
    /// How long opening a connection took.
    pub(super) setup: Duration,
    /// Whether the certificate was judged and is good; none without TLS.
    pub(super) verified: Option<bool>,
    pub(super) asked: u32,
    pub(super) rtts: Vec<Duration>,
    /// What it says with validation off, where it failed with it.
    pub(super) unvalidated: Option<Result<Reply, Failure>>,
    /// What it says to a name that can't exist.
    pub(super) absent: Option<(String, Result<Reply, Failure>)>,
}

impl Told {
    fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            ended: Err(Failure::Timeout),
            cut: false,
            setup: Duration::ZERO,
            verified: None,
            asked: 0,
            rtts: Vec::new(),
            unvalidated: None,
            absent: None,
        }
    }

    /// What several that asked the same target heard together; an answer says more than a failure.
    fn and(mut self, other: Self) -> Self {
        self.asked += other.asked;
        self.rtts.extend(other.rtts);
        self.setup = self.setup.max(other.setup);
        self.verified = self.verified.or(other.verified);
        if self.ended.is_err() {
            self.ended = other.ended;
        }
        self
    }

    /// The middle one of the round-trip times.
    pub(super) fn median(&self) -> Option<Duration> {
        let mut sorted = self.rtts.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Asked more than once, Ctrl-C ends it after the question under way, and what was heard is told.
pub(super) async fn ask_all(plan: &Plan) -> Vec<Told> {
    let (end, ended) = watch::channel(false);
    let asking = plan.targets.iter().map(|t| ask(plan, t, ended.clone()));
    let mut asking = std::pin::pin!(join_all(asking));
    if plan.count > 1 {
        tokio::select! {
            told = &mut asking => return told,
            _ = tokio::signal::ctrl_c() => drop(end.send(true)),
        }
    }
    asking.await
}

async fn ask(plan: &Plan, target: &Target, ended: watch::Receiver<bool>) -> Told {
    let repeated = async {
        let left = Cell::new(plan.count);
        let asking = (0..plan.at_once).map(|_| repeat(plan, target, &left, ended.clone()));
        let heard = join_all(asking).await.into_iter().reduce(Told::and);
        let mut told = heard.unwrap_or_else(|| Told::new(target));
        if told.ended.as_ref().is_ok_and(|r| r.message.flags.truncated)
            && target.transport == Transport::Udp
        {
            told.cut = true;
            let over_tcp = Target {
                transport: Transport::Tcp,
                ..target.clone()
            };
            if let Ok(whole) = once(plan, &over_tcp, &plan.question).await {
                told.ended = Ok(whole);
            }
        }
        if told
            .ended
            .as_ref()
            .is_ok_and(|r| r.message.rcode == SERVFAIL)
        {
            let mut question = plan.question.clone();
            question.options.unvalidated = true;
            told.unvalidated = Some(once(plan, target, &question).await);
        }
        told
    };
    let (mut told, absent) = tokio::join!(repeated, absent(plan, target));
    told.absent = absent;
    told
}

/// Asks one after the other as long as some are left, over one connection as long as it lasts.
async fn repeat(
    plan: &Plan,
    target: &Target,
    left: &Cell<u32>,
    mut ended: watch::Receiver<bool>,
) -> Told {
    let mut told = Told::new(target);
    let mut open: Option<Client> = None;
    while left.get() > 0 && !*ended.borrow() {
        left.set(left.get() - 1);
        if told.asked > 0 && !plan.interval.is_zero() {
            tokio::select! {
                () = sleep(plan.interval) => {}
                Ok(_) = ended.wait_for(|ended| *ended) => break,
            }
        }
        told.asked += 1;
        let until = Instant::now() + plan.timeout;
        let client = match open.take() {
            Some(client) => Ok(client),
            None => connect(plan, target, until).await,
        };
        let mut client = match client {
            Ok(client) => client,
            Err(failure) => {
                told.ended = Err(failure);
                continue;
            }
        };
        told.setup = told.setup.max(client.setup);
        told.verified = client.verified;
        told.ended = client.ask(&plan.question, until).await;
        if let Ok(reply) = &told.ended {
            told.rtts.push(reply.rtt);
            open = client.is_lasting().then_some(client);
        }
    }
    told
}

async fn connect(plan: &Plan, target: &Target, until: Instant) -> Result<Client, Failure> {
    Client::connect(
        &target.server,
        &target.transport,
        plan.roots.as_ref(),
        until,
    )
    .await
}

async fn once(plan: &Plan, target: &Target, question: &Question) -> Result<Reply, Failure> {
    let until = Instant::now() + plan.timeout;
    connect(plan, target, until)
        .await?
        .ask(question, until)
        .await
}

/// A name that can't exist; where the zone seems to answer for every name (RFC 4592), one of a zone that doesn't.
async fn absent(plan: &Plan, target: &Target) -> Option<(String, Result<Reply, Failure>)> {
    let beside = plan.beside.as_deref()?;
    let mut zone = absent::zone(Some(beside));
    loop {
        let name = absent::name(clock::since_boot(), &zone);
        let ended = once(plan, target, &Question::new(&name, Kind::A)?).await;
        let answered = ended
            .as_ref()
            .is_ok_and(|r| r.message.addresses().next().is_some());
        if !answered || zone == absent::WITHOUT_WILDCARD {
            return Some((name, ended));
        }
        zone = absent::WITHOUT_WILDCARD.to_owned();
    }
}

const SERVFAIL: u16 = 2;
