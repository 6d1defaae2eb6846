//! The wait after a wave, in which its checks run again and again.
//!
//! Time is counted by the leader's own clock and only while every changed target of the wave could be
//! read: unread is not held. Counters (samples, errors) are summed over targets and rounds after
//! `settle`; the condition is judged on the sums, never on a mean of means. Of outputs that are no
//! counters each target's last reading is judged, so that no target hides behind another.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::action::Action;
use crate::ids::{StepId, TargetName};
use crate::runbook::expression::{Expression, Scope};
use crate::runbook::{Runbook, Soak};

/// How often progress is committed, so that a later leader goes on from there: at most this much
/// waiting is done twice.
pub const COMMIT_EVERY: Duration = Duration::from_secs(10);

/// A soak that saw fewer samples than `minSamples` goes on for at most this many times its length.
const PATIENCE: u32 = 2;

/// How far the wait has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SoakProgress {
    /// After which wave.
    pub wave: usize,
    /// Time in which every target was read.
    pub elapsed_ms: u64,
    /// Sums by step and counter, since `settle`.
    pub counters: BTreeMap<StepId, BTreeMap<String, u64>>,
    /// Outputs read last, by target and step, for steps that count nothing.
    pub latest: BTreeMap<TargetName, BTreeMap<StepId, Value>>,
    /// Targets that the last round could not read, with the reason.
    pub unread: BTreeMap<TargetName, String>,
}

/// What one round read on one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SoakReading {
    /// Outputs of each verify step, or the reason why it could not be read.
    pub steps: Result<BTreeMap<StepId, Value>, String>,
}

/// What the numbers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not long enough yet.
    Going {
        /// Time still to wait if all goes well.
        left: Duration,
    },
    /// Long enough, and the condition holds.
    Passed,
    /// The condition does not hold, or could not be judged in time.
    Broken {
        /// The condition with the numbers that broke it.
        why: String,
    },
}

impl SoakProgress {
    /// Nothing waited yet.
    pub fn begin(wave: usize) -> Self {
        Self {
            wave,
            ..Self::default()
        }
    }

    /// Adds a round that ended `passed` after the one before it.
    pub fn add(
        &mut self,
        runbook: &Runbook,
        soak: &Soak,
        passed: Duration,
        round: &BTreeMap<TargetName, SoakReading>,
    ) {
        self.unread.clear();
        for (target, reading) in round {
            if let Err(why) = &reading.steps {
                self.unread.insert(target.clone(), why.clone());
            }
        }
        if !self.unread.is_empty() {
            return;
        }
        self.elapsed_ms += u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        if self.elapsed() < soak.settle {
            return;
        }
        for (target, reading) in round {
            for (step, outputs) in reading.steps.iter().flatten() {
                self.take(runbook, target, step, outputs);
            }
        }
    }

    /// Time counted so far.
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms)
    }

    /// Judges what was read; `params` are the job's.
    pub fn verdict(&self, runbook: &Runbook, soak: &Soak, params: &Value) -> Verdict {
        let left = soak.length.saturating_sub(self.elapsed());
        let Some(require) = &soak.require else {
            return if left.is_zero() {
                Verdict::Passed
            } else {
                Verdict::Going { left }
            };
        };
        let wanted = soak.min_samples.unwrap_or(0);
        if self.samples() < wanted || !self.has_read() {
            return self.too_few(soak, wanted, left);
        }
        match self.broken_by(runbook, require, params) {
            None if left.is_zero() => Verdict::Passed,
            None => Verdict::Going { left },
            Some(why) => Verdict::Broken { why },
        }
    }

    fn has_read(&self) -> bool {
        !self.counters.is_empty() || !self.latest.is_empty()
    }

    fn too_few(&self, soak: &Soak, wanted: u64, left: Duration) -> Verdict {
        if self.elapsed() >= soak.length * PATIENCE + soak.settle {
            let samples = self.samples();
            let why = format!("only {samples} of {wanted} samples in {:?}", self.elapsed());
            return Verdict::Broken { why };
        }
        Verdict::Going {
            left: left.max(Duration::from_millis(1)),
        }
    }

    fn take(&mut self, runbook: &Runbook, target: &TargetName, step: &StepId, outputs: &Value) {
        let counters = action_of(runbook, step).map_or(&[][..], |action| action.counters());
        for counter in counters {
            let read = outputs.get(*counter).and_then(Value::as_u64).unwrap_or(0);
            let sums = self.counters.entry(step.clone()).or_default();
            let sum = sums.entry((*counter).to_owned()).or_default();
            *sum = sum.saturating_add(read);
        }
        if counters.is_empty() {
            let of_target = self.latest.entry(target.clone()).or_default();
            of_target.insert(step.clone(), outputs.clone());
        }
    }

    fn samples(&self) -> u64 {
        self.counters
            .values()
            .filter_map(|sums| sums.get("samples"))
            .sum()
    }

    /// What keeps the condition from holding, if anything does.
    fn broken_by(&self, runbook: &Runbook, require: &str, params: &Value) -> Option<String> {
        let condition = match Expression::parse(require) {
            Ok(condition) => condition,
            Err(error) => return Some(error.to_string()),
        };
        let sums = self.summed(runbook);
        let judge = |on: &str, latest: &BTreeMap<StepId, Value>| {
            let mut steps = sums.clone();
            for (step, outputs) in latest {
                steps.insert(step.to_string(), json!({ "outputs": outputs }));
            }
            let scope = Scope::new()
                .with("params", params.clone())
                .with("steps", Value::Object(steps));
            match condition.evaluate_bool(&scope) {
                Ok(true) => None,
                Ok(false) => Some(format!("`{require}` with {}{on}", self.numbers(latest))),
                Err(error) => Some(format!("`{require}`{on}: {error}")),
            }
        };
        if self.latest.is_empty() {
            return judge("", &BTreeMap::new());
        }
        self.latest
            .iter()
            .find_map(|(target, latest)| judge(&format!(" on {target}"), latest))
    }

    fn summed(&self, runbook: &Runbook) -> serde_json::Map<String, Value> {
        let summed = self.counters.iter().map(|(step, sums)| {
            let outputs = action_of(runbook, step).map(|action| action.outputs_from_counters(sums));
            (step.to_string(), json!({ "outputs": outputs }))
        });
        summed.collect()
    }

    fn numbers(&self, latest: &BTreeMap<StepId, Value>) -> String {
        let summed = self.counters.iter().map(|(step, sums)| {
            let sums: Vec<_> = sums
                .iter()
                .map(|(name, sum)| format!("{sum} {name}"))
                .collect();
            format!("{step}: {}", sums.join(", "))
        });
        let read = latest
            .iter()
            .map(|(step, outputs)| format!("{step}: {outputs}"));
        summed.chain(read).collect::<Vec<_>>().join("; ")
    }
}

fn action_of(runbook: &Runbook, step: &StepId) -> Option<Action> {
    let verify = runbook
        .spec
        .verify
        .iter()
        .find(|candidate| &candidate.id == step)?;
    Some(verify.uses)
}
