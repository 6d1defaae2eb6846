//! One effect: nothing is sent before its intent is on disk, and its end is looked for where nobody saw it.

use std::time::Duration;

use aldis_core::action::Class;
use aldis_core::outcome::Failure;
use serde_json::Value;
use tokio::time::Instant;

use super::Run;
use super::settle::{self, Settled};
use crate::actions::{Applied, Before, Call, Observed, Trouble};
use crate::journal::Half;
use crate::ledger::Error;

/// How long a call which sent nothing is made again before it counts as a try of the runbook's, where the step has so
/// much time: an API server that is upgraded is back within it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Before it is made again at first, for a connection that was closed between two requests; doubled up to
/// [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What came of an effect.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effected {
    /// It is there.
    Done(Applied),
    /// Decided: it did not work.
    Failed { failure: Failure, applied: bool },
    /// Nothing was sent.
    NotSent(Failure),
    /// It was sent, is not there, and cannot come. It may be begun again as if it never had.
    NotDone(Failure),
    /// Nobody can say.
    Unknown(Vec<String>),
}

/// An effect and whether its intent was written.
pub(super) struct Tried {
    pub(super) effected: Effected,
    pub(super) intended: bool,
}

impl Run {
    /// Makes one effect. `intended` is called when the intent is on disk.
    pub(super) async fn effect(
        &self,
        call: &Call,
        half: Half,
        number: u32,
        intended: impl FnOnce(),
    ) -> Result<Tried, Error> {
        let until = Instant::now() + call.timeout;
        let not_yet = |effected| {
            Ok(Tried {
                effected,
                intended: false,
            })
        };
        let before = match self.before(call, number, until).await {
            Ok(before) => before,
            Err(effected) => return not_yet(effected),
        };
        let step = &call.stamp.step;
        aldis_proto::failpoint::hit("agent-before-intent");
        match self.pen.intent(step, half, number, before.clone()).await {
            Ok(()) => intended(),
            Err(error) if error.is_full() => {
                let failure = Failure::new("unavailable", error.to_string())
                    .with_hint("free some space where the agent keeps its journal");
                return not_yet(Effected::NotSent(failure));
            }
            Err(error) => return Err(error),
        }
        aldis_proto::failpoint::hit("agent-after-intent");
        let effected = self.send(call, half, &before, until).await?;
        Ok(Tried {
            effected,
            intended: true,
        })
    }

    /// What was begun and not ended by the process before this one, looked for without an effect. None where it is not
    /// there, which is not final.
    pub(super) async fn look_open(&self, call: &Call, before: &Before) -> Option<Effected> {
        if let Err(failure) = self.allowed(call) {
            return Some(Effected::Unknown(interrupted(forbidden(failure))));
        }
        let patience = settle::PATIENCE_AFTER_RESTART;
        let looked = settle::look(&*self.parts.actions, call, Some(before), patience);
        match looked.await {
            Settled::NotDone => None,
            found @ (Settled::Done(_) | Settled::Unknown(_)) => Some(after_restart(found)),
        }
    }

    /// The same to its end: what is not there cannot come any more when this returns. That takes an effect.
    pub(super) async fn settle_open(&self, call: &Call, before: &Before) -> Effected {
        if let Err(failure) = self.allowed(call) {
            return Effected::Unknown(interrupted(forbidden(failure)));
        }
        let patience = settle::PATIENCE_AFTER_RESTART;
        let settled = settle::settle(&*self.parts.actions, call, Some(before), patience);
        after_restart(settled.await)
    }

    /// Everything that must hold before an intent is written, and the prior state.
    async fn before(&self, call: &Call, number: u32, until: Instant) -> Result<Before, Effected> {
        let refused = |failure| Effected::Failed {
            failure,
            applied: false,
        };
        self.allowed(call).map_err(refused)?;
        let looked = async {
            steadily(call, until, || self.right_cluster()).await?;
            let before = steadily(call, until, || self.parts.actions.capture(call)).await?;
            // A stamp of this very attempt on an object that the journal knows nothing of: the journal was lost.
            let stamped = match number {
                1 => steadily(call, until, || self.parts.actions.observe(call, None)).await?,
                _ => Observed::NotDone,
            };
            Ok((before, stamped))
        };
        match tokio::time::timeout_at(until, looked).await {
            Ok(Ok((before, Observed::NotDone | Observed::Indeterminate { .. }))) => Ok(before),
            Ok(Ok((_, Observed::Done(_)))) => Err(Effected::Unknown(vec![
                "the object carries the stamp of this very attempt, which the journal does not know"
                    .to_owned(),
                "records of the journal were lost; what stood there before is not known".to_owned(),
            ])),
            Ok(Err(Trouble::Failed { failure, .. })) => Err(refused(failure)),
            Ok(Err(Trouble::Retriable { failure })) => Err(Effected::NotSent(failure)),
            Ok(Err(Trouble::Unknown { evidence })) => {
                let failure = Failure::new("unavailable", "the prior state could not be read");
                Err(Effected::NotSent(failure.with_evidence(evidence)))
            }
            Err(_) => Err(Effected::NotSent(too_slow(
                call,
                "the prior state could not be read",
            ))),
        }
    }

    async fn send(
        &self,
        call: &Call,
        half: Half,
        before: &Before,
        until: Instant,
    ) -> Result<Effected, Error> {
        let progress = self.pen.progress(&call.stamp.step);
        let sent = steadily(call, until, || {
            self.parts.actions.apply(call, before, &progress)
        });
        let sent = tokio::time::timeout_at(until, sent).await;
        aldis_proto::failpoint::hit("agent-after-effect");
        let (why, seen) = match sent {
            Ok(Ok(applied)) => return Ok(Effected::Done(applied)),
            Ok(Err(Trouble::Failed { failure, applied })) => {
                return Ok(Effected::Failed { failure, applied });
            }
            Ok(Err(Trouble::Retriable { failure })) => return Ok(Effected::NotSent(failure)),
            Ok(Err(Trouble::Unknown { evidence })) => {
                let why = Failure::new("unavailable", "the answer to the request was lost");
                (why.with_evidence(evidence.clone()), evidence)
            }
            Err(_) => {
                let why = too_slow(call, "the request was not answered");
                (why.clone(), vec![why.cause])
            }
        };
        self.pen.evidence(&call.stamp.step, half, &seen).await?;
        self.pen.say(
            &call.stamp.step,
            format!("{why}; looking whether it landed"),
        );
        let settled = settle::settle(&*self.parts.actions, call, Some(before), settle::PATIENCE);
        Ok(match settled.await {
            Settled::Done(applied) => Effected::Done(applied),
            Settled::NotDone => Effected::NotDone(why),
            Settled::Unknown(evidence) => Effected::Unknown([seen, evidence].concat()),
        })
    }
}

/// Makes a call again that sent nothing, for as long as there is time. Never one that must not begin twice.
pub(super) async fn steadily<T, F>(
    call: &Call,
    until: Instant,
    make: impl Fn() -> F,
) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, Trouble>>,
{
    let until = until.min(Instant::now() + PATIENCE);
    let mut pause = FIRST_PAUSE;
    loop {
        let trouble = match make().await {
            Err(trouble @ Trouble::Retriable { .. }) => trouble,
            other => return other,
        };
        if call.action.class() == Class::Once || Instant::now() + pause >= until {
            return Err(trouble);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn after_restart(settled: Settled) -> Effected {
    match settled {
        Settled::Done(applied) => Effected::Done(applied),
        Settled::NotDone => Effected::NotDone(Failure::new(
            "interrupted",
            "the agent was stopped before the effect began",
        )),
        Settled::Unknown(evidence) => Effected::Unknown(interrupted(evidence)),
    }
}

fn interrupted(evidence: Vec<String>) -> Vec<String> {
    let why = "the agent was stopped between the step's beginning and its end".to_owned();
    [vec![why], evidence].concat()
}

/// Why an effect was not looked for: what may not be run is not read or moved on either.
pub(super) fn forbidden(failure: Failure) -> Vec<String> {
    let why = format!("its effect was not looked for: {failure}");
    [vec![why], failure.evidence].concat()
}

/// A step that ran out of time.
pub(super) fn too_slow(call: &Call, what: &str) -> Failure {
    let cause = format!("{what} within {} s", call.timeout.as_secs());
    Failure::new("timeout", cause)
}

/// What the step's note keeps of an effect that is there.
pub(super) fn left(applied: &Applied) -> Option<Value> {
    applied.changed.then(|| applied.after.clone())
}
