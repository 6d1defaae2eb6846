//! The steps of one segment, in order, each as core says.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::action::{Class, Effect};
use aldis_core::ids::{Digest, StepId};
use aldis_core::outcome::{Failure, SegmentOutcome, StepState};
use aldis_core::segment::{self, Next, Progress, StepProgress, Try, TryResult};
use serde_json::Value;
use tokio::time::Instant;

use super::control::Rest;
use super::effect::{Effected, left, steadily, too_slow};
use super::{Left, Run, cut};
use crate::actions::{self, Applied, Call, Trouble};
use crate::journal::Half;
use crate::ledger::Error;
use crate::ledger::notes;

/// A reading that is over before this is not reported as running: each report is a write into the store.
const WORTH_A_WORD: Duration = Duration::from_millis(500);

/// A failure waits so long to be explained: a few small lists, of an API server that has just answered.
const EXPLAINS: Duration = Duration::from_secs(5);

/// Times that an effect which provably did not happen is begun again within one try of the runbook's.
const AGAIN: u32 = 3;

pub(super) async fn run(run: Run) -> Result<Left, Error> {
    let mut forward = Forward::resume(run);
    loop {
        let next = segment::advance(&forward.run.assignment, &forward.progress, forward.now());
        let over = match next {
            Next::Finished(outcome) => Some(forward.end(outcome).await?),
            Next::WaitUntil(at) => forward.wait(at).await?,
            Next::Try(one) => forward.turn(one).await?,
        };
        if let Some(left) = over {
            return Ok(left);
        }
    }
}

struct Forward {
    run: Run,
    progress: Progress,
    /// Effects begun by a process before this one, with what was captured, by step.
    open: BTreeMap<StepId, Value>,
    /// Whether the target may rest while the current step only reads.
    may_rest: bool,
    /// The current step, while it reads and was reported as running.
    reading: Option<StepId>,
    again: u32,
}

/// A reading that ended, or was left.
enum Read {
    Ended(TryResult),
    Left,
}

impl Forward {
    /// From what is journalled of the attempt: nothing, when it has just been accepted.
    fn resume(run: Run) -> Self {
        let (progress, open) = journalled(&run);
        Self {
            run,
            progress,
            open,
            may_rest: false,
            reading: None,
            again: 0,
        }
    }

    fn now(&self) -> Duration {
        self.run.parts.clock.boot_now().0
    }

    /// One try. Returns how the runner left, if it did.
    async fn turn(&mut self, one: Try) -> Result<Option<Left>, Error> {
        if let Some(before) = self.open.remove(&one.step) {
            return self.settle_open(&one, before).await;
        }
        let reads = one.action.effect() == Effect::Read;
        let first = !self.progress.steps.contains_key(&one.step);
        if first {
            self.may_rest = one.at_safe_point;
        }
        if self.may_rest && (first || reads) {
            match self.rest().await {
                Rest::Go { rested: false } => {}
                // Time has passed: ask again what is next.
                Rest::Go { rested: true } => return Ok(None),
                Rest::Stop => return self.stop().await.map(Some),
                Rest::Close => return Ok(Some(Left::Resting)),
            }
        }
        let skipped = segment::before_try(&self.run.assignment, &self.progress, &one.step);
        if let Some(state) = skipped {
            self.skip(&one.step, state).await?;
        } else if reads {
            self.read(&one).await?;
        } else {
            self.write(&one).await?;
        }
        Ok(None)
    }

    async fn rest(&mut self) -> Rest {
        let pen = &self.run.pen;
        self.run
            .control
            .rest(|parked| pen.report_parked(parked))
            .await
    }

    /// Waits for the next try; a wait between two readings is as good a place to rest as the reading itself.
    async fn wait(&mut self, at: Duration) -> Result<Option<Left>, Error> {
        let pause = at.saturating_sub(self.now());
        if self.may_rest && self.reading.is_some() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.run.control.interrupted() => {
                    return match self.rest().await {
                        Rest::Go { .. } => Ok(None),
                        Rest::Stop => self.stop().await.map(Some),
                        Rest::Close => Ok(Some(Left::Resting)),
                    };
                }
            }
        } else {
            tokio::time::sleep(pause).await;
        }
        Ok(None)
    }

    async fn skip(&mut self, step: &StepId, state: StepState) -> Result<(), Error> {
        let now = self.now();
        let after = StepProgress {
            state,
            tries: 0,
            first_at: now,
            next_at: now,
            last: None,
        };
        self.take(step, after, None, true).await
    }

    async fn read(&mut self, one: &Try) -> Result<(), Error> {
        let began = self.now();
        let call = self.call_of(one);
        let result = match self.run.allowed(&call) {
            Err(failure) => TryResult::Failed {
                failure,
                applied: false,
            },
            Ok(()) => match self.reading(&call, one.number).await {
                Read::Ended(result) => result,
                Read::Left => return Ok(()),
            },
        };
        self.conclude(one, result, began, None, false).await
    }

    /// Reads until it ends, is too slow, or is to be left.
    async fn reading(&mut self, call: &Call, number: u32) -> Read {
        let Self {
            run,
            reading,
            may_rest,
            ..
        } = self;
        let (parts, pen, control) = (&run.parts, &run.pen, &mut run.control);
        let progress = pen.progress(&call.stamp.step);
        let until = Instant::now() + call.timeout;
        let right = run_right_cluster(parts, &run.assignment, number);
        let looked = async {
            right.await?;
            let read = || parts.actions.apply(call, &Value::Null, &progress);
            steadily(call, until, read).await
        };
        let looked = tokio::time::timeout_at(until, looked);
        tokio::pin!(looked);
        let known = reading.as_ref() == Some(&call.stamp.step);
        let worth_a_word = tokio::time::sleep(WORTH_A_WORD);
        tokio::pin!(worth_a_word);
        let mut said = known;
        loop {
            tokio::select! {
                ended = &mut looked => {
                    return Read::Ended(read_result(call, ended.ok()));
                }
                () = &mut worth_a_word, if !said => {
                    said = true;
                    *reading = Some(call.stamp.step.clone());
                    pen.report_step(&call.stamp.step, &StepState::Running { tries: number });
                }
                () = control.interrupted(), if *may_rest => return Read::Left,
            }
        }
    }

    async fn write(&mut self, one: &Try) -> Result<(), Error> {
        let began = self.now();
        let call = self.call_of(one);
        let step = one.step.clone();
        let journalled = self.run.pen.tries(&step, Half::Apply).len();
        let number = u32::try_from(journalled).unwrap_or(u32::MAX - 1) + 1;
        let tried = self
            .run
            .effect(&call, Half::Apply, number, || {
                let state = StepState::Running { tries: one.number };
                self.run.pen.report_step(&step, &state);
                self.run.pen.say(&step, format!("begins: {}", call.action));
            })
            .await?;
        self.effected(one, began, tried.effected, tried.intended)
            .await
    }

    /// What a process before this one has begun: looked for at once. That it is not there is made final only once the
    /// attempt is ordered and permitted, unless the step before it left no safe place.
    async fn settle_open(&mut self, one: &Try, before: Value) -> Result<Option<Left>, Error> {
        let call = self.call_of(one);
        self.run
            .pen
            .say(&one.step, "looking for what was begun before a restart");
        let effected = match self.run.look_open(&call, &before).await {
            Some(effected) => effected,
            None if one.at_safe_point && !self.run.control.ordered().await => {
                return Ok(Some(Left::Resting));
            }
            None => self.run.settle_open(&call, &before).await,
        };
        // The time that it waited for an order is not the step's.
        let began = self.now();
        self.effected(one, began, effected, true).await?;
        Ok(None)
    }

    async fn effected(
        &mut self,
        one: &Try,
        began: Duration,
        effected: Effected,
        intended: bool,
    ) -> Result<(), Error> {
        let (result, after) = match effected {
            Effected::Done(Applied {
                outputs,
                changed,
                after,
            }) => {
                let after = left(&Applied {
                    outputs: Value::Null,
                    changed,
                    after,
                });
                let outputs = cut::outputs(one.action, outputs);
                (TryResult::Done { outputs, changed }, after)
            }
            Effected::Failed { failure, applied } => (TryResult::Failed { failure, applied }, None),
            Effected::NotSent(failure) => (TryResult::Retriable { failure }, None),
            Effected::NotDone(failure) => {
                let in_time = began + one.timeout > self.now();
                if in_time && self.again < AGAIN && one.action.class() != Class::Once {
                    self.again += 1;
                    return self.as_if_never_begun(&one.step).await;
                }
                (TryResult::Retriable { failure }, None)
            }
            Effected::Unknown(evidence) => (TryResult::Unknown { evidence }, None),
        };
        self.conclude(one, result, began, after, intended).await
    }

    /// The effect is not there and cannot come: the step is where it was before.
    async fn as_if_never_begun(&mut self, step: &StepId) -> Result<(), Error> {
        let state = StepState::NotStarted;
        self.run
            .pen
            .outcome(step, Half::Apply, &state, None)
            .await?;
        self.run.pen.report_step(step, &state);
        self.progress.steps.remove(step);
        Ok(())
    }

    async fn conclude(
        &mut self,
        one: &Try,
        result: TryResult,
        began: Duration,
        after: Option<Value>,
        intended: bool,
    ) -> Result<(), Error> {
        let concluded = segment::conclude(
            &self.run.assignment,
            &self.progress,
            &one.step,
            result,
            began,
            self.now(),
        );
        let concluded = self.explained(one, concluded).await;
        let decided = !matches!(concluded.state, StepState::Running { .. });
        self.take(&one.step, concluded, after, decided || intended)
            .await
    }

    /// What was read and does not hold, with what ails that which it is about; before the rest, which is longer.
    async fn explained(&self, one: &Try, mut concluded: StepProgress) -> StepProgress {
        let StepState::Failed { failure, .. } = &mut concluded.state else {
            return concluded;
        };
        // Any other failure explains itself, or forbids to look.
        let was_read = matches!(failure.kind.as_str(), "require" | "until");
        if was_read && one.action.effect() == Effect::Read {
            let call = self.call_of(one);
            let explain = self.run.parts.actions.explain(&call);
            let lines = tokio::time::timeout(EXPLAINS, explain).await;
            failure.evidence.splice(0..0, lines.unwrap_or_default());
        }
        concluded
    }

    /// Takes a step's new state: into the journal where it must be there, into the reports, into what core looks at.
    async fn take(
        &mut self,
        step: &StepId,
        mut progress: StepProgress,
        after: Option<Value>,
        journal: bool,
    ) -> Result<(), Error> {
        progress.state = cut::state(progress.state);
        let reads =
            self.run.assignment.steps.iter().any(|planned| {
                planned.step.id == *step && planned.step.uses.effect() == Effect::Read
            });
        if journal {
            self.run
                .pen
                .outcome(step, Half::Apply, &progress.state, after)
                .await?;
            if !reads {
                aldis_proto::failpoint::hit("agent-after-outcome");
            }
            self.run.pen.report_step(step, &progress.state);
        }
        if let StepState::Running { .. } = progress.state {
            if reads && self.reading.is_none() {
                self.reading = Some(step.clone());
                self.run.pen.report_step(step, &progress.state);
            }
        } else {
            self.reading = None;
            self.again = 0;
        }
        self.run.pen.say(step, said(&progress));
        self.progress.steps.insert(step.clone(), progress);
        Ok(())
    }

    async fn stop(&mut self) -> Result<Left, Error> {
        let after = self
            .run
            .assignment
            .steps
            .iter()
            .map(|planned| &planned.step.id)
            .take_while(|step| {
                self.progress
                    .steps
                    .get(*step)
                    .is_some_and(|progress| is_behind(&progress.state))
            })
            .last()
            .cloned();
        self.end(SegmentOutcome::Stopped { after }).await
    }

    async fn end(&mut self, outcome: SegmentOutcome) -> Result<Left, Error> {
        let outcome = cut::outcome(outcome);
        let mut steps = BTreeMap::new();
        for (step, progress) in &self.progress.steps {
            let mut state = progress.state.clone();
            if let StepState::Running { .. } = state {
                // Only a reading can be left in the middle. It left nothing.
                state = StepState::NotStarted;
                self.run
                    .pen
                    .outcome(step, Half::Apply, &state, None)
                    .await?;
            }
            steps.insert(step.clone(), state);
        }
        if let Some(step) = &self.reading {
            steps.entry(step.clone()).or_insert(StepState::NotStarted);
        }
        if let SegmentOutcome::Failed { step, failure } = &outcome {
            let failed = || StepState::Failed {
                failure: failure.clone(),
                applied: false,
            };
            steps.entry(step.clone()).or_insert_with(failed);
        }
        self.run.pen.end(outcome, steps).await?;
        Ok(Left::Ended)
    }

    /// The step as planned; behind an earlier step of this job that changed the same object, with what that one left.
    fn call_of(&self, one: &Try) -> Call {
        let mut call = self.run.call(&one.step, one.action, one.with.clone());
        call.timeout = one.timeout;
        call.planned = self.run.assignment.part.step(&one.step).cloned();
        if let Some(earlier) = self.changed_before(&call) {
            call.left = self.left_by(&earlier);
            if let Some(planned) = &mut call.planned {
                // Planned from what stood there before the earlier step.
                (planned.touched, planned.becomes) = (None, None);
            }
        }
        call
    }

    /// The last step before the call's that changed the object which the call is about.
    fn changed_before(&self, call: &Call) -> Option<StepId> {
        let object = actions::touches(call)?;
        let known = segment::known(&self.run.assignment, &self.progress);
        let changed = |id: &StepId| {
            matches!(
                known.get(id),
                Some(StepState::Succeeded { changed: true, .. })
            )
        };
        let steps = self.run.assignment.part.steps.iter();
        steps
            .take_while(|other| other.step != call.stamp.step)
            .filter(|other| other.object.as_ref() == Some(&object))
            .filter(|other| changed(&other.step))
            .last()
            .map(|other| other.step.clone())
    }

    fn left_by(&self, step: &StepId) -> Option<Digest> {
        let effect = self.run.effect_of(step)?;
        actions::left(&effect.after?)
    }
}

/// Steps that are decided and behind the target.
fn is_behind(state: &StepState) -> bool {
    matches!(
        state,
        StepState::Succeeded { .. } | StepState::Skipped { .. }
    )
}

/// The first try of a step asks which cluster this is; the following ones are too close to ask again.
async fn run_right_cluster(
    parts: &crate::parts::Parts,
    assignment: &aldis_core::assignments::Assignment,
    number: u32,
) -> Result<(), Trouble> {
    if number > 1 {
        return Ok(());
    }
    super::right_cluster(parts, assignment).await
}

fn read_result(call: &Call, ended: Option<Result<Applied, Trouble>>) -> TryResult {
    match ended {
        Some(Ok(applied)) => TryResult::Done {
            outputs: cut::outputs(call.action, applied.outputs),
            changed: false,
        },
        Some(Err(Trouble::Failed { failure, .. })) => TryResult::Failed {
            failure,
            applied: false,
        },
        Some(Err(Trouble::Retriable { failure })) => TryResult::Retriable { failure },
        Some(Err(Trouble::Unknown { evidence })) => TryResult::Retriable {
            failure: Failure::new("unavailable", "it could not be read").with_evidence(evidence),
        },
        None => TryResult::Retriable {
            failure: too_slow(call, &format!("{} did not end", call.action.name())),
        },
    }
}

/// What the journal knows of the attempt: steps behind it, steps to be tried again, effects that were begun.
fn journalled(run: &Run) -> (Progress, BTreeMap<StepId, Value>) {
    let now = run.parts.clock.boot_now().0;
    let (mut progress, mut open) = (Progress::default(), BTreeMap::new());
    for planned in &run.assignment.steps {
        let id = &planned.step.id;
        let tries = run.pen.tries(id, Half::Apply);
        let Some(last) = tries.last() else { continue };
        if last.is_open() {
            let before = last.intent.as_ref().map(|noted| noted.value.clone());
            open.insert(id.clone(), before.unwrap_or(Value::Null));
            continue;
        }
        let note = last
            .outcome
            .as_ref()
            .and_then(|noted| notes::note(&noted.value));
        let Some(note) = note.filter(|note| note.state != StepState::NotStarted) else {
            continue;
        };
        let tries = match note.state {
            StepState::Running { tries } => tries,
            _ => 0,
        };
        // The time that a step has spent before a restart is not counted: no clock went through it.
        let step = StepProgress {
            state: note.state,
            tries,
            first_at: now,
            next_at: now,
            last: None,
        };
        progress.steps.insert(id.clone(), step);
    }
    (progress, open)
}

/// One line for the job's log.
fn said(progress: &StepProgress) -> String {
    match &progress.state {
        StepState::Succeeded { changed: true, .. } => "done: changed".to_owned(),
        StepState::Succeeded { changed: false, .. } => "done".to_owned(),
        StepState::Failed { failure, .. } => format!("failed: {failure}"),
        StepState::Unknown { evidence } => format!("unknown: {}", evidence.join("; ")),
        StepState::Skipped { why } => format!("skipped: {why}"),
        StepState::Running { .. } => match &progress.last {
            Some(last) => format!("not yet: {last}"),
            None => "not yet".to_owned(),
        },
        StepState::NotStarted
        | StepState::Undone
        | StepState::Passed
        | StepState::UndoFailed { .. }
        | StepState::Abandoned { .. } => "decided".to_owned(),
    }
}
