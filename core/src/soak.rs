//! The wait after a wave, in which its checks run again and again.
//!
//! Time is counted by the leader's own clock and only while every changed target of the wave could be
//! read: unread is not held. Counters (samples, errors) are summed over targets and rounds after
//! `settle`; the condition is judged on the sums, never on a mean of means.

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
    /// Outputs read last, by step, for outputs that are no counters.
    pub latest: BTreeMap<StepId, Value>,
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
        for reading in round.values() {
            for (step, outputs) in reading.steps.iter().flatten() {
                self.sum(runbook, step, outputs);
            }
        }
    }

    /// Time counted so far.
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms)
    }

    /// Judges the sums.
    pub fn verdict(&self, runbook: &Runbook, soak: &Soak) -> Verdict {
        let left = soak.length.saturating_sub(self.elapsed());
        let samples = self.samples();
        let Some(require) = &soak.require else {
            return if left.is_zero() {
                Verdict::Passed
            } else {
                Verdict::Going { left }
            };
        };
        let wanted = soak.min_samples.unwrap_or(0);
        if samples < wanted || self.elapsed() < soak.settle || !self.has_read() {
            return self.too_few(soak, samples, wanted, left);
        }
        match self.holds(runbook, require) {
            Ok(true) if left.is_zero() => Verdict::Passed,
            Ok(true) => Verdict::Going { left },
            Ok(false) => Verdict::Broken {
                why: format!("`{require}` with {}", self.numbers()),
            },
            Err(why) => Verdict::Broken { why },
        }
    }

    fn has_read(&self) -> bool {
        !self.counters.is_empty() || !self.latest.is_empty()
    }

    fn too_few(&self, soak: &Soak, samples: u64, wanted: u64, left: Duration) -> Verdict {
        if self.elapsed() >= soak.length * PATIENCE + soak.settle {
            let why = format!("only {samples} of {wanted} samples in {:?}", self.elapsed());
            return Verdict::Broken { why };
        }
        Verdict::Going {
            left: left.max(Duration::from_millis(1)),
        }
    }

    fn sum(&mut self, runbook: &Runbook, step: &StepId, outputs: &Value) {
        let counters = action_of(runbook, step).map_or(&[][..], |action| action.counters());
        for counter in counters {
            let read = outputs.get(*counter).and_then(Value::as_u64).unwrap_or(0);
            *self
                .counters
                .entry(step.clone())
                .or_default()
                .entry((*counter).to_owned())
                .or_default() += read;
        }
        if counters.is_empty() {
            self.latest.insert(step.clone(), outputs.clone());
        }
    }

    fn samples(&self) -> u64 {
        self.counters
            .values()
            .filter_map(|sums| sums.get("samples"))
            .sum()
    }

    fn holds(&self, runbook: &Runbook, require: &str) -> Result<bool, String> {
        let mut steps = serde_json::Map::new();
        for (step, outputs) in &self.latest {
            steps.insert(step.to_string(), json!({ "outputs": outputs }));
        }
        for (step, sums) in &self.counters {
            let outputs = action_of(runbook, step).map(|action| action.outputs_from_counters(sums));
            steps.insert(step.to_string(), json!({ "outputs": outputs }));
        }
        let scope = Scope::new().with("steps", Value::Object(steps));
        let expression = Expression::parse(require).map_err(|error| error.to_string())?;
        expression
            .evaluate_bool(&scope)
            .map_err(|error| format!("`{require}`: {error}"))
    }

    fn numbers(&self) -> String {
        let per_step = self.counters.iter().map(|(step, sums)| {
            let sums: Vec<_> = sums
                .iter()
                .map(|(name, sum)| format!("{sum} {name}"))
                .collect();
            format!("{step}: {}", sums.join(", "))
        });
        per_step.collect::<Vec<_>>().join("; ")
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
