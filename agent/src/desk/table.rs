//! The attempts of this agent and their runners: what an order leads to, what may begin, what a runner left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aldis_core::assignments::{Assignment, Wanted};
use aldis_core::ids::{self, JobId};
use aldis_core::job::{Direction, Report};
use aldis_core::outcome::SegmentOutcome;
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use tracing::{Instrument, Span, error, info, warn};

use super::amend::Again;
use super::weigh::{self, Weighed};
use super::{Pauses, Word};
use crate::journal::{AttemptKey, Entry};
use crate::ledger::{self, notes};
use crate::parts::Parts;
use crate::runner::{Left, Run, Told};

/// Attempts at once: jobs of one cluster lock their objects, so more than this means that something is wrong.
pub(super) const ATTENDED: usize = 64;

/// An attempt with a runner.
pub(super) struct Attended {
    pub(super) told: watch::Sender<Told>,
    pub(super) assignment: Assignment,
    pub(super) purpose: Purpose,
    /// How many runners of it have broken before this one.
    pub(super) broken: u32,
}

/// What a runner is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To run the attempt.
    Run,
    /// To look for what another journal held of it, as ordered.
    Observe,
    /// To look for an effect of which the attempt itself could not say whether it landed. Nobody orders this.
    Doubt,
}

/// One for each agent. A task owns it.
pub(super) struct Table {
    pub(super) parts: Parts,
    pub(super) pauses: Pauses,
    pub(super) attended: BTreeMap<AttemptKey, Attended>,
    running: JoinSet<Result<Left, ledger::Error>>,
    /// Which attempt a task runs.
    tasks: BTreeMap<task::Id, AttemptKey>,
    /// Ordered, and not begun: without permit, told to hold, or behind an earlier attempt.
    pub(super) waiting: BTreeMap<AttemptKey, Assignment>,
    /// What this session has ordered.
    ordered: BTreeSet<AttemptKey>,
    /// When unordered attempts are not wanted any more.
    patience_ends: Option<Instant>,
    /// Attempts whose runner left without an end, and what the next one is to know.
    pub(super) again: BTreeMap<AttemptKey, Again>,
    /// When there may be room in the journal again, and the next runner of those is due.
    pub(super) room_at: Option<Instant>,
    pub(super) closing: bool,
}

impl Table {
    pub(super) fn new(parts: Parts, pauses: Pauses) -> Self {
        Self {
            parts,
            pauses,
            attended: BTreeMap::new(),
            running: JoinSet::new(),
            tasks: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ordered: BTreeSet::new(),
            patience_ends: None,
            again: BTreeMap::new(),
            room_at: None,
            closing: false,
        }
    }

    pub(super) async fn serve(mut self, mut words: mpsc::Receiver<Word>) {
        loop {
            let permits = self.parts.permits.clone();
            let wants_permit = !self.waiting.is_empty() && !permits.holds();
            let (patience, room) = (self.patience_ends, self.room_at);
            tokio::select! {
                word = words.recv() => match word {
                    Some(word) => self.hear(word).await,
                    None => return,
                },
                Some(ended) = self.running.join_next_with_id() => self.left(ended),
                () = permits.held(), if wants_permit => {}
                () = sleep_until(patience), if patience.is_some() => self.lose_patience(),
                () = sleep_until(room), if room.is_some() => {
                    self.room_at = None;
                    self.begin_again();
                }
            }
            self.begin_what_waits().await;
        }
    }

    async fn hear(&mut self, word: Word) {
        match word {
            Word::Order(assignment) => {
                let span = span(&notes::key(&assignment.order), &assignment);
                self.order(*assignment).instrument(span).await;
            }
            Word::Registered => {
                self.waiting.clear();
                self.ordered.clear();
                self.parts.reports.ordered_anew();
                self.patience_ends = None;
            }
            Word::Merged { done } => {
                self.rest_unordered();
                self.patience_ends = Some(Instant::now() + self.pauses.grace);
                // Whoever said it may have gone with its stream.
                let _ = done.send(());
            }
            Word::SetAside { reason, done } => {
                // Whoever asked may have gone with its stream.
                let _ = done.send(self.set_aside(reason).await);
            }
            Word::Close { within, done } => {
                self.close(within).await;
                let _ = done.send(());
            }
        }
    }

    /// What the journal holds when the process begins.
    pub(super) fn take_up(&mut self) {
        let (open, ended) = self.parts.ledger.read(|attempts| {
            let (mut open, mut ended) = (Vec::new(), Vec::new());
            for (key, attempt) in attempts.list(self.parts.clock.wall_now_ms()) {
                if attempt.is_running() {
                    open.push((key.clone(), notes::assignment(attempt)));
                } else {
                    ended.push((key.clone(), attempt.acked_at.is_some()));
                }
            }
            (open, ended)
        });
        for (key, acknowledged) in ended {
            if !acknowledged {
                self.say_end(&key);
            }
            self.doubt(key);
        }
        for (key, assignment) in open {
            match assignment {
                Some(assignment) => {
                    info!(attempt = %key, "goes on after a restart");
                    self.attend(key, assignment, Told::Unordered);
                }
                None => {
                    error!(attempt = %key, "written by a later version of the agent; left as it is")
                }
            }
        }
    }

    async fn order(&mut self, assignment: Assignment) {
        let key = notes::key(&assignment.order);
        if self.closing {
            return;
        }
        if let Err(reason) = self.is_for_us(&assignment) {
            return self.refuse(&key, reason);
        }
        self.ordered.insert(key.clone());
        let wanted = assignment.order.wanted;
        if self.tell(&key, told(wanted)) {
            return self.taken(&key);
        }
        match weigh::weigh(&self.parts.ledger, &key) {
            Weighed::Ended => {
                self.taken(&key);
                self.say_end(&key);
            }
            Weighed::Open => self.order_again(&key, told(wanted), &key),
            Weighed::TooLate(why) => self.refuse(&key, why.to_string()),
            Weighed::Behind(earlier) => {
                // Its number was given, so nobody waits for the one before it.
                self.wait_or_bury(key.clone(), assignment).await;
                if !self.tell(&earlier, Told::Stop) {
                    self.order_again(&earlier, Told::Stop, &key);
                }
            }
            Weighed::New => match wanted {
                Wanted::Observe if self.may_attend() => {
                    self.taken(&key);
                    self.spawn(key, assignment, Told::Go, Purpose::Observe, 0);
                }
                Wanted::Observe => self.refuse(&key, too_many()),
                Wanted::Go | Wanted::Hold | Wanted::Stop => {
                    self.wait_or_bury(key, assignment).await;
                }
            },
        }
    }

    fn is_for_us(&self, assignment: &Assignment) -> Result<(), String> {
        let order = &assignment.order;
        let ours = self.parts.ledger.core_id();
        if order.target != self.parts.target || assignment.part.target != self.parts.target {
            return Err(format!(
                "it is for {}, and this agent acts on {}",
                order.target, self.parts.target
            ));
        }
        if order.journal != ours {
            return Err(format!(
                "it was committed for journal {}, and this agent writes to {ours}",
                order.journal
            ));
        }
        if assignment.format > Assignment::FORMAT {
            return Err(format!(
                "it has layout {}, and this agent reads up to {}",
                assignment.format,
                Assignment::FORMAT
            ));
        }
        if self.waiting.len() >= ATTENDED {
            return Err(too_many());
        }
        Ok(())
    }

    async fn wait_or_bury(&mut self, key: AttemptKey, assignment: Assignment) {
        match assignment.order.wanted {
            Wanted::Go | Wanted::Hold => {
                self.taken(&key);
                self.waiting.insert(key, assignment);
            }
            Wanted::Stop | Wanted::Observe => {
                self.waiting.remove(&key);
                self.bury(key, assignment).await;
            }
        }
    }

    /// Closes an attempt that never began.
    pub(super) async fn bury(&mut self, key: AttemptKey, assignment: Assignment) {
        let order = &assignment.order;
        let answer = notes::Answer {
            outcome: SegmentOutcome::Stopped { after: None },
            direction: order.direction,
            segment: order.segment,
        };
        let entry = Entry::Tombstone {
            attempt: key.clone(),
            answer: serde_json::to_value(&answer).expect("our own types have text keys"),
            at: self.parts.clock.wall_now_ms(),
        };
        let of = self.parts.ledger.id();
        match self.parts.ledger.append(of, vec![entry]).await {
            Ok(_) => {
                info!(attempt = %key, "closed before it began");
                self.taken(&key);
                self.say_end(&key);
            }
            Err(error) => self.wait_for_room(key, assignment, &error),
        }
    }

    /// Begins what may begin now.
    async fn begin_what_waits(&mut self) {
        if self.closing || self.room_at.is_some() {
            return;
        }
        self.bury_what_waits().await;
        if !self.parts.permits.holds() {
            return;
        }
        let ready = self.waiting.iter().filter(|(key, assignment)| {
            let new = matches!(weigh::weigh(&self.parts.ledger, key), Weighed::New);
            new && assignment.order.wanted == Wanted::Go
        });
        let ready: Vec<AttemptKey> = ready.map(|(key, _)| key.clone()).collect();
        for key in ready {
            if self.may_attend()
                && let Some(assignment) = self.waiting.remove(&key)
            {
                self.accept(key, assignment).await;
            }
        }
    }

    async fn accept(&mut self, key: AttemptKey, assignment: Assignment) {
        let entry = Entry::Accepted {
            attempt: key.clone(),
            assignment: serde_json::to_value(&assignment).expect("our own types have text keys"),
            at: self.parts.clock.wall_now_ms(),
        };
        let of = self.parts.ledger.id();
        match self.parts.ledger.append(of, vec![entry]).await {
            Ok(sequence) => {
                let span = span(&key, &assignment);
                info!(parent: &span, attempt = %key, runbook = %assignment.runbook, "begins");
                self.taken(&key);
                self.end_doubts(&key);
                let order = &assignment.order;
                self.parts.reports.add(
                    order.job.clone(),
                    order.attempt,
                    sequence,
                    Report::Accepted,
                );
                self.attend(key, assignment, Told::Go);
            }
            Err(error) => self.wait_for_room(key, assignment, &error),
        }
    }

    fn attend(&mut self, key: AttemptKey, assignment: Assignment, told: Told) {
        self.spawn(key, assignment, told, Purpose::Run, 0);
    }

    pub(super) fn spawn(
        &mut self,
        key: AttemptKey,
        assignment: Assignment,
        told: Told,
        purpose: Purpose,
        broken: u32,
    ) {
        let span = span(&key, &assignment);
        let (sender, receiver) = watch::channel(told);
        let run = Run::new(self.parts.clone(), assignment.clone(), receiver);
        let pause = self.pauses.doubt;
        let work = async move {
            match purpose {
                Purpose::Run => run.run().await,
                Purpose::Observe => run.observe(pause).await,
                Purpose::Doubt => run.doubt(pause).await,
            }
        };
        let started = self.running.spawn(work.instrument(span));
        self.tasks.insert(started.id(), key.clone());
        let attended = Attended {
            told: sender,
            assignment,
            purpose,
            broken,
        };
        self.attended.insert(key, attended);
    }

    fn left(&mut self, ended: Result<(task::Id, Result<Left, ledger::Error>), task::JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(broken) => broken.id(),
        };
        let Some(key) = self.tasks.remove(&id) else {
            return;
        };
        let Some(attended) = self.attended.remove(&key) else {
            return;
        };
        match ended {
            Ok((_, Ok(Left::Ended))) => {
                self.taken(&key);
                self.doubt(key);
            }
            Ok((_, Ok(Left::Resting))) => {}
            Ok((_, Err(error))) if error.is_full() => self.found_no_room(key, attended, &error),
            // A failed journal ends the process; one that was set aside has a successor.
            Ok((_, Err(error))) => warn!(attempt = %key, %error, "left without an end"),
            Err(broken) => self.broke(key, attended, &broken),
        }
    }

    /// Tells the runner of an attempt. False where it has none; what only looks back is told nothing.
    fn tell(&self, key: &AttemptKey, told: Told) -> bool {
        match self.attended.get(key) {
            Some(attended) if attended.purpose != Purpose::Doubt => {
                attended.told.send_replace(told);
                true
            }
            Some(_) | None => false,
        }
    }

    /// What nobody ordered in a merged session is not wanted any more.
    fn lose_patience(&mut self) {
        self.patience_ends = None;
        for (key, attended) in &self.attended {
            if self.ordered.contains(key) || attended.purpose == Purpose::Doubt {
                continue;
            }
            let told = unwanted(&attended.assignment);
            info!(attempt = %key, ?told, "not ordered any more");
            attended.told.send_replace(told);
        }
        let unordered = self.again.iter_mut();
        for (_, again) in unordered.filter(|(key, _)| !self.ordered.contains(*key)) {
            again.told = unwanted(&again.assignment);
        }
    }

    /// What an earlier session ordered and this one has not may not be wanted any more: its job may have
    /// ended meanwhile. It goes on when it is ordered again, which comes right after the merge where it is.
    fn rest_unordered(&self) {
        for (key, attended) in &self.attended {
            if !self.ordered.contains(key) {
                attended.told.send_if_modified(|told| {
                    let goes = *told == Told::Go;
                    if goes {
                        *told = Told::Unordered;
                    }
                    goes
                });
            }
        }
    }

    /// Says again how an attempt ended.
    fn say_end(&self, key: &AttemptKey) {
        let ended = self.parts.ledger.read(|attempts| {
            let attempt = attempts.attempt(key)?;
            Some((notes::outcome(attempt)?, notes::steps(attempt)))
        });
        if let Some((outcome, steps)) = ended {
            let (job, number) = (JobId::new(key.job.clone()), ids::Attempt(key.number));
            let report = Report::Ended { outcome, steps };
            self.parts
                .reports
                .add(job, number, self.parts.ledger.sequence(), report);
        }
    }

    async fn set_aside(&mut self, reason: String) -> Result<(), ledger::Error> {
        warn!(
            reason,
            "the journal is set aside; what it held is observed and never run again"
        );
        self.running.shutdown().await;
        self.tasks.clear();
        self.attended.clear();
        self.waiting.clear();
        self.ordered.clear();
        self.again.clear();
        self.parts.ledger.set_aside(reason).await?;
        self.parts.reports.clear();
        Ok(())
    }

    async fn close(&mut self, within: Duration) {
        self.closing = true;
        self.waiting.clear();
        for attended in self.attended.values() {
            attended.told.send_replace(Told::Close);
        }
        let rested = async {
            while let Some(ended) = self.running.join_next_with_id().await {
                self.left(ended);
            }
        };
        if tokio::time::timeout(within, rested).await.is_err() {
            let left: Vec<String> = self.attended.keys().map(ToString::to_string).collect();
            warn!(
                ?left,
                "cut off before a safe point; the next start observes what was begun"
            );
            self.running.shutdown().await;
        }
    }
}

/// Whatever is logged of an attempt carries the trace that the command line began.
fn span(key: &AttemptKey, assignment: &Assignment) -> Span {
    let trace = assignment.trace.as_deref().unwrap_or_default();
    tracing::info_span!("attempt", job = key.job, number = key.number, trace)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What an attempt is told that nobody orders: nobody ever wants half of an undo.
fn unwanted(assignment: &Assignment) -> Told {
    match assignment.order.direction {
        Direction::Forward => Told::Stop,
        Direction::Undo => Told::Go,
    }
}

fn told(wanted: Wanted) -> Told {
    match wanted {
        Wanted::Go | Wanted::Observe => Told::Go,
        Wanted::Hold => Told::Hold,
        Wanted::Stop => Told::Stop,
    }
}

fn too_many() -> String {
    format!("more than {ATTENDED} attempts at once")
}
