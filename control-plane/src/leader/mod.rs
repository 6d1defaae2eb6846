//! The leader's loop: look, decide, commit, ask; again when anything changes.
//!
//! ```text
//! view changed, answer came, timer ─▶ round: reap sessions · merge lists · take turns · decide each job
//!                                       ├─ events ─▶ commit (fenced), wait for the view, decide again
//!                                       ├─ reads  ─▶ ask agents, answers come back to the loop
//!                                       └─ ended  ─▶ locks freed, job leaves the hot prefix
//! ```
//!
//! A wake-up carries no data: whoever is woken reads the state afresh, so that the usual path and the
//! one after a crash are one path. What is kept in memory (drift answers, soak counters, questions
//! under way) is lost with the leader and asked again by the next.
//!
//! Nothing is sent from here. Sessions send what is committed.

pub(crate) mod inventory;
mod locks;
mod memory;
mod merge;
mod questions;
mod retire;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aldis_core::decide::decide;
use aldis_core::ids::{Fence, JobId, TargetName};
use aldis_core::inventory::{Limits, Turn};
use aldis_core::job::{Event, Header, HeaderEvent, JobState, TargetEvent};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::agents::Agents;
use crate::clock::Clock;
use crate::commit::{self, Writer};
use crate::jobs::{self, Plans};
use crate::lasting::Lasting;
use crate::leadership::{self, Role, Token};
use crate::presence::{self, Known};
use crate::store::{Commit, Precondition, Revision, Store, Write};
use crate::turns::Turns;
use crate::view::View;
use memory::{Answered, Memory};

/// The longest sleep: a lost wake-up costs at most this.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Before trying again when the store has no answer.
const STORE_PAUSE: Duration = Duration::from_millis(200);

/// After each round the loop rests as long as it took to look through the jobs, up to this: a queue of thousands is
/// not to take a core for itself while it grows. Over some dozens it does not rest.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// Less than a timer can tell.
const SHORTEST_REST: Duration = Duration::from_millis(2);

/// Decisions on one job in a row, before others get their turn.
const IN_A_ROW: usize = 16;

/// Answers that may wait for the loop.
const ANSWERS: usize = 1024;

/// What the leader works with.
#[derive(Clone)]
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What is known of it.
    pub view: View,
    /// For deadlines and records.
    pub clock: Arc<dyn Clock>,
    /// Plans by id.
    pub plans: Arc<Plans>,
    /// Whose turn it is in the queue.
    pub turns: Arc<Turns>,
    /// Whom to ask.
    pub agents: Arc<dyn Agents>,
    /// Bounds and times.
    pub settings: Settings,
}

impl Parts {
    /// Writes under a term.
    fn writer<'a>(&'a self, token: &'a Token) -> Writer<'a> {
        Writer {
            store: &*self.store,
            token,
            clock: &*self.clock,
        }
    }
}

/// Bounds and times of the leader.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Times that decisions depend on.
    pub limits: Limits,
    /// How long ended jobs and unused plans are kept: a day longer than agents list their attempts.
    pub retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            retention: crate::config::RETENTION,
        }
    }
}

/// Why a round stopped half way.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Commit(#[from] commit::Error),
    #[error(transparent)]
    Jobs(#[from] jobs::Error),
}

impl From<leadership::Error> for Error {
    fn from(error: leadership::Error) -> Self {
        Self::Commit(commit::Error::Leader(error))
    }
}

impl From<crate::records::Error> for Error {
    fn from(error: crate::records::Error) -> Self {
        Self::Jobs(error.into())
    }
}

impl From<crate::store::Error> for Error {
    fn from(error: crate::store::Error) -> Self {
        Self::Jobs(error.into())
    }
}

impl Error {
    fn is_deposed(&self) -> bool {
        matches!(
            self,
            Self::Commit(commit::Error::Leader(leadership::Error::Deposed { .. }))
        )
    }

    /// Whether whatever comes next would fail the same way: the term is over, or the store does not
    /// answer. Anything else is wrong with one item, and must not keep the others from going on.
    fn concerns_all(&self) -> bool {
        use crate::store::Error as Store;
        let store = match self {
            Self::Commit(commit::Error::Leader(leadership::Error::Deposed { .. })) => return true,
            Self::Commit(commit::Error::Illegal(_))
            | Self::Jobs(jobs::Error::Record(_) | jobs::Error::NoPlan { .. }) => return false,
            Self::Commit(commit::Error::Leader(leadership::Error::Store(error)))
            | Self::Jobs(jobs::Error::Store(error)) => error,
        };
        match store {
            Store::Unavailable { .. } | Store::Unknown { .. } | Store::WentBack { .. } => true,
            Store::Refused { .. } | Store::Corrupt { .. } => false,
        }
    }

    /// Whether something that was sent may be written yet.
    fn is_unsure(&self) -> bool {
        use crate::store::Error as S;
        matches!(
            self,
            Self::Commit(commit::Error::Leader(leadership::Error::Store(
                S::Unknown { .. }
            )))
        )
    }
}

/// Leads in every term that this replica wins, until it has led and lost.
pub async fn run(parts: Parts, mut role: watch::Receiver<Role>) {
    loop {
        let current = role.borrow_and_update().clone();
        match current {
            Role::Leading(token) => {
                let epoch = token.epoch;
                info!(epoch, "leading");
                lead(&parts, token).await;
                info!(epoch, "not leading any more");
            }
            Role::Lost { .. } => return,
            Role::Standby { .. } | Role::Held { .. } => {}
        }
        if role.changed().await.is_err() {
            return;
        }
    }
}

/// One term.
async fn lead(parts: &Parts, token: Token) {
    let _sweeping = Lasting::start("the sweep", sweep::run(parts.clone(), token.clone()));
    let (answers, mut answered) = mpsc::channel(ANSWERS);
    let mut changed = parts.view.changed();
    let mut term = Term {
        fence: Fence {
            incarnation: token.incarnation,
            epoch: token.epoch,
        },
        led_since: aldis_core::ids::Timestamp(parts.clock.wall_now()),
        parts,
        token,
        memory: Memory::default(),
        answers,
        looked: Duration::ZERO,
    };
    while term.token.is_live(&*parts.clock) {
        changed.borrow_and_update();
        let sleep = match term.round().await {
            Ok(sleep) => sleep,
            Err(error) if error.is_deposed() => return,
            Err(error) => {
                warn!(
                    error = crate::telemetry::chain(&error),
                    "round ended half way"
                );
                STORE_PAUSE
            }
        };
        tokio::select! {
            _ = changed.changed() => {}
            Some(answer) = answered.recv() => {
                let mut all = vec![answer];
                while let Ok(answer) = answered.try_recv() {
                    all.push(answer);
                }
                term.take_all(all).await;
            }
            () = tokio::time::sleep(sleep.min(LONGEST_SLEEP)) => {}
        }
        if term.looked >= SHORTEST_REST {
            tokio::time::sleep(term.looked.min(LONGEST_REST)).await;
        }
    }
}

/// One term under way.
struct Term<'a> {
    parts: &'a Parts,
    token: Token,
    fence: Fence,
    /// When it began.
    led_since: aldis_core::ids::Timestamp,
    memory: Memory,
    answers: mpsc::Sender<Answered>,
    /// How long the last round took to look through the jobs.
    looked: Duration,
}

impl Term<'_> {
    fn writer(&self) -> Writer<'_> {
        self.parts.writer(&self.token)
    }

    fn now(&self) -> aldis_core::ids::Timestamp {
        aldis_core::ids::Timestamp(self.parts.clock.wall_now())
    }

    /// Looks at everything once; how long nothing more is to be done unless something changes.
    async fn round(&mut self) -> Result<Duration, Error> {
        let known = self.fleet();
        self.reap_sessions(&known).await?;
        self.ask_for_lists(&known);
        self.memory.watch(&known, self.fence, self.now());
        let mut sleep = LONGEST_SLEEP;
        let began = Instant::now();
        let turns = self.parts.turns.all().await?;
        let asked = self.parts.view.read(jobs::with_requests);
        let headers = self.headers();
        self.looked = began.elapsed();
        for header in headers {
            let waits = turns.get(&header.id).is_some_and(|turn| *turn != Turn::Yes);
            if waits && !asked.contains(&header.id) {
                continue;
            }
            match self.job(&header.id).await {
                Ok(wake) => sleep = sleep.min(wake),
                Err(error) if error.concerns_all() => return Err(error),
                Err(error) => self.complain(header.id.as_str(), "job cannot go on", &error),
            }
        }
        Ok(sleep)
    }

    /// Agents whose records can be read; the others are named.
    fn fleet(&mut self) -> BTreeMap<TargetName, Known> {
        let mut readable = BTreeMap::new();
        for (target, known) in self.parts.view.read(presence::fleet) {
            match known {
                Ok(known) => {
                    readable.insert(target, known);
                }
                Err(error) => self.complain(&target.to_string(), "agent left out", &error),
            }
        }
        readable
    }

    /// Headers of hot jobs that can be read; the others are named.
    fn headers(&mut self) -> Vec<Header> {
        let headers = jobs::headers(&self.parts.view);
        for error in &headers.unreadable {
            self.complain(&error.to_string(), "job left out", error);
        }
        headers.readable
    }

    /// Once for each thing that is wrong, not once a second.
    fn complain(&mut self, about: &str, what: &str, error: &dyn std::error::Error) {
        let error = crate::telemetry::chain(error);
        if self.memory.is_news(about, &error) {
            error!(about, error, "{what}");
        }
    }

    /// Decides one job until there is nothing left to decide.
    async fn job(&mut self, id: &JobId) -> Result<Duration, Error> {
        for _ in 0..IN_A_ROW {
            let Some(loaded) = jobs::load(&self.parts.view, &self.parts.plans, id).await? else {
                self.memory.forget(id);
                return Ok(LONGEST_SLEEP);
            };
            if self.memory.unsure.contains(id) {
                self.make_sure(&loaded).await?;
                continue;
            }
            if loaded.job.header.state.is_ended() {
                self.retire(&loaded).await?;
                continue;
            }
            let inventory = self.inventory(&loaded).await?;
            let decision = decide(&loaded.job, &inventory, self.now());
            if decision.events.is_empty() {
                if matches!(loaded.job.header.state, JobState::NeedsOperator { .. }) {
                    self.let_go(&loaded).await?;
                }
                self.ask(&loaded, &decision.reads);
                debug!(job = %id, waiting = ?decision.waiting, "nothing to decide");
                let wake = decision.wake_at.map(|at| at.since(self.now()));
                return Ok(wake.unwrap_or(LONGEST_SLEEP));
            }
            let committed = self.commit(&loaded, decision.events).await;
            if committed.as_ref().is_err_and(Error::is_unsure) {
                self.memory.unsure.insert(id.clone());
            }
            self.parts.view.reaches(committed?).await;
        }
        Ok(Duration::ZERO)
    }

    /// A decision whose answer was lost may be written yet, beside what would be decided next. The header
    /// is put again: what was decided on the one before cannot be written any more, or has been by now.
    async fn make_sure(&mut self, loaded: &jobs::Loaded) -> Result<(), Error> {
        let key = loaded.header.key.clone();
        let commit = Commit {
            preconditions: vec![Precondition::unchanged(&key, Some(&loaded.header))],
            writes: vec![Write::put(key, loaded.header.value.clone())],
        };
        let store = &*self.parts.store;
        let outcome = self.writer().fenced()?.commit(store, commit).await?;
        if outcome.is_committed() {
            self.memory.unsure.remove(&loaded.job.header.id);
        }
        self.parts.view.reaches(outcome.revision()).await;
        Ok(())
    }

    async fn commit(
        &mut self,
        loaded: &jobs::Loaded,
        events: Vec<Event>,
    ) -> Result<Revision, Error> {
        for event in &events {
            say(&loaded.job.header, event);
            pass_failpoint(event);
        }
        if events
            .iter()
            .any(|e| matches!(e, Event::Header(HeaderEvent::Started { .. })))
        {
            return self.start(loaded, events).await;
        }
        if goes_on(loaded, &events) {
            return self.go_on(loaded, events).await;
        }
        Ok(self.writer().write(loaded, events).await?)
    }
}

/// Whether a job that waited for an operator is to give work again.
fn goes_on(loaded: &jobs::Loaded, events: &[Event]) -> bool {
    let waited = matches!(loaded.job.header.state, JobState::NeedsOperator { .. });
    let moves = |event: &Event| {
        matches!(
            event,
            Event::Header(HeaderEvent::Moved {
                state: JobState::Running | JobState::Unwinding { .. },
                ..
            })
        )
    };
    waited && events.iter().any(moves)
}

fn say(header: &Header, event: &Event) {
    let (job, trace) = (&header.id, header.trace.as_deref().unwrap_or_default());
    match event {
        Event::Header(HeaderEvent::Moved { state, .. }) => {
            info!(%job, trace, state = state.word(), "job moves");
        }
        Event::Header(HeaderEvent::Started { .. }) => info!(%job, trace, "job starts"),
        Event::Header(HeaderEvent::WaveDone) => info!(%job, trace, "wave done"),
        Event::Target(target, TargetEvent::Lost { evidence }) => {
            warn!(%job, trace, %target, ?evidence, "outcome unknown");
        }
        Event::Header(_) | Event::Target(..) => {}
    }
}

/// Crash points of tests, named by what is about to be committed.
fn pass_failpoint(event: &Event) {
    match event {
        Event::Header(HeaderEvent::WaveDone) => aldis_proto::failpoint::hit("between-waves"),
        Event::Header(HeaderEvent::Soaked { .. }) => aldis_proto::failpoint::hit("soak"),
        Event::Header(HeaderEvent::Moved {
            state: JobState::Unwinding { .. },
            ..
        })
        | Event::Target(_, TargetEvent::UndoOpened { .. }) => {
            aldis_proto::failpoint::hit("unwind");
        }
        Event::Header(_) | Event::Target(..) => {}
    }
}
