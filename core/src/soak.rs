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

/// Targets that could not be read, of which a job's record tells: enough for a person to see what they have in common.
const UNREAD_KEPT: usize = 16;

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

    /// What a later leader goes on from, and what viewers are told meanwhile: time, sums, and some of those that
    /// cannot be read. What every target said last is read again in the next round anyway, and would grow the
    /// job's record with the fleet.
    pub fn to_keep(&self) -> Self {
        let unread = self.unread.iter().take(UNREAD_KEPT);
        Self {
            latest: BTreeMap::new(),
            unread: unread
                .map(|(name, why)| (name.clone(), why.clone()))
                .collect(),
            ..self.clone()
        }
    }

    /// Time counted so far.
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms)
    }

    /// Judges what was read; `params` are the job's.
    pub fn verdict(&self, runbook: &Runbook, soak: &Soak, params: &Value) -> Verdict {
        let left = soak.length.saturating_sub(self.elapsed());
        let wanted = soak.min_samples.unwrap_or(0);
        let judges = soak.require.is_some();
        if judges && (self.samples() < wanted || !self.has_read()) {
            return self.too_few(soak, wanted, left);
        }
        let mut conditions = conditions(runbook, soak).into_iter();
        match conditions.find_map(|condition| self.broken_by(runbook, &condition, params)) {
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
    fn broken_by(&self, runbook: &Runbook, held: &Held<'_>, params: &Value) -> Option<String> {
        let require = held.require;
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
            if held
                .of
                .is_some_and(|step| !steps.contains_key(step.as_str()))
            {
                // Its `if` leaves it out here.
                return None;
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

/// A condition that is to hold while a soak goes on.
struct Held<'a> {
    require: &'a str,
    /// The step whose own it is: where that is left out, there is nothing to hold.
    of: Option<&'a StepId>,
}

/// What the soak says must hold; where it says nothing, what the checks themselves say.
fn conditions<'a>(runbook: &'a Runbook, soak: &'a Soak) -> Vec<Held<'a>> {
    if let Some(require) = &soak.require {
        return vec![Held { require, of: None }];
    }
    let checks = runbook.spec.verify.iter();
    let own = checks.filter_map(|step| {
        Some(Held {
            require: step.require.as_deref()?,
            of: Some(&step.id),
        })
    });
    own.filter(|held| can_be_judged(runbook, held.require))
        .collect()
}

/// Whether a condition is over what a soak reads: checks and parameters. One that compares with what
/// stood there before was judged by the agent when the wave ran.
fn can_be_judged(runbook: &Runbook, require: &str) -> bool {
    let Ok(parsed) = Expression::parse(require) else {
        return true;
    };
    let is_check = |id: &str| {
        let mut checks = runbook.spec.verify.iter();
        checks.any(|step| step.id.as_str() == id)
    };
    let is_read = |path: Vec<String>| {
        let step = path.get(1);
        match path.first().map(String::as_str) {
            Some("params") => true,
            Some("steps") => step.is_some_and(|id| is_check(id)),
            _ => false,
        }
    };
    parsed.paths().into_iter().all(is_read)
}

fn action_of(runbook: &Runbook, step: &StepId) -> Option<Action> {
    let verify = runbook
        .spec
        .verify
        .iter()
        .find(|candidate| &candidate.id == step)?;
    Some(verify.uses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `health` counts samples; `rolled` reads and counts nothing.
    fn runbook() -> Runbook {
        serde_json::from_value(json!({
            "apiVersion": "aldis.dev/v1alpha1", "kind": "Runbook", "metadata": {"name": "r"},
            "spec": {
                "steps": [{"id": "act", "use": "kube.set-image"}],
                "verify": [
                    {"id": "health", "use": "http.probe"},
                    {"id": "rolled", "use": "kube.wait"},
                ],
            }
        }))
        .unwrap()
    }

    fn soak(more: Value) -> Soak {
        let mut written = json!({"for": "30s", "settle": "5s", "every": "5s"});
        if let (Value::Object(written), Value::Object(more)) = (&mut written, more) {
            written.extend(more);
        }
        serde_json::from_value(written).unwrap()
    }

    /// At most one in a hundred, on at least 60 samples.
    fn healthy() -> Soak {
        let require = "steps.health.outputs.errorRate < 0.01";
        soak(json!({"require": require, "minSamples": 60}))
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn probed(samples: u64, errors: u64) -> SoakReading {
        let outputs = json!({"samples": samples, "errors": errors, "p95Ms": 12});
        SoakReading {
            steps: Ok(BTreeMap::from([("health".into(), outputs)])),
        }
    }

    fn rolled(ready: u64) -> SoakReading {
        let outputs = json!({"ready": ready, "replicas": 3});
        SoakReading {
            steps: Ok(BTreeMap::from([("rolled".into(), outputs)])),
        }
    }

    fn unread() -> SoakReading {
        SoakReading {
            steps: Err("its agent did not answer".into()),
        }
    }

    fn round(readings: Vec<SoakReading>) -> BTreeMap<TargetName, SoakReading> {
        let names = ["a/1", "a/2", "b/1"].map(|name| name.parse().unwrap());
        names.into_iter().zip(readings).collect()
    }

    /// A soak under way.
    struct Watch {
        soak: Soak,
        progress: SoakProgress,
    }

    impl Watch {
        fn of(soak: Soak) -> Self {
            let progress = SoakProgress::begin(2);
            Self { soak, progress }
        }

        fn read(mut self, passed: Duration, readings: Vec<SoakReading>) -> Self {
            self.progress
                .add(&runbook(), &self.soak, passed, &round(readings));
            self
        }

        fn verdict(&self) -> Verdict {
            let params = json!({"most": 2});
            self.progress.verdict(&runbook(), &self.soak, &params)
        }

        fn broken(&self) -> String {
            match self.verdict() {
                Verdict::Broken { why } => why,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn without_a_condition_only_time_counts() {
        let watch = Watch::of(soak(json!({}))).read(s(29), vec![probed(0, 0)]);
        assert_eq!(watch.verdict(), Verdict::Going { left: s(1) });
        let watch = watch.read(s(1), vec![probed(0, 0)]);
        assert_eq!(watch.verdict(), Verdict::Passed);
    }

    #[test]
    fn without_a_condition_of_its_own_what_the_checks_require_is_held() {
        let mut runbook = runbook();
        runbook.spec.verify[0].require = Some("steps.health.outputs.errorRate < 0.01".into());
        runbook.spec.verify[1].require =
            Some("steps.rolled.outputs.ready >= steps.act.outputs.ready".into());
        let soak = soak(json!({}));
        let judged = |readings| {
            let mut progress = SoakProgress::begin(2);
            progress.add(&runbook, &soak, s(30), &round(readings));
            progress.verdict(&runbook, &soak, &json!({}))
        };
        assert_eq!(judged(vec![probed(60, 0)]), Verdict::Passed);
        let Verdict::Broken { why } = judged(vec![probed(60, 3)]) else {
            panic!("errors passed")
        };
        assert!(why.contains("3 errors"), "{why}");
        let nowhere = SoakReading {
            steps: Ok(BTreeMap::new()),
        };
        let left_out = judged(vec![nowhere]);
        assert_eq!(left_out, Verdict::Passed, "its `if` leaves it out");
    }

    #[test]
    fn what_a_later_leader_goes_on_from_does_not_grow_with_the_fleet() {
        let watch = Watch::of(soak(json!({}))).read(s(10), vec![rolled(3), rolled(3)]);
        let kept = watch.progress.to_keep();
        assert_eq!(kept.elapsed(), s(10));
        assert!(kept.latest.is_empty(), "{kept:?}");
    }

    #[test]
    fn time_counts_only_while_every_target_is_read_and_who_was_not_is_named() {
        let watch = Watch::of(healthy())
            .read(s(10), vec![probed(80, 0)])
            .read(s(10), vec![probed(80, 80), unread()]);
        assert_eq!(watch.progress.elapsed(), s(10));
        assert_eq!(watch.progress.counters[&"health".into()]["samples"], 80);
        let names: Vec<_> = watch
            .progress
            .unread
            .keys()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["a/2"]);
        assert_eq!(watch.verdict(), Verdict::Going { left: s(20) });
        let watch = watch.read(s(10), vec![probed(80, 0), probed(80, 0)]);
        assert!(watch.progress.unread.is_empty());
        assert_eq!(watch.progress.elapsed(), s(20));
    }

    #[test]
    fn nothing_is_judged_before_it_has_settled_and_that_time_counts() {
        let watch = Watch::of(healthy()).read(s(4), vec![probed(100, 100)]);
        assert_eq!(watch.verdict(), Verdict::Going { left: s(26) });
        let watch = watch.read(s(26), vec![probed(100, 0)]);
        assert_eq!(watch.verdict(), Verdict::Passed);
    }

    #[test]
    fn the_condition_is_judged_on_sums_over_targets_and_rounds() {
        // 1 of 2 on one target is a mean of 25 %, and 1 of 202 in all.
        let watch = Watch::of(healthy())
            .read(s(15), vec![probed(2, 1), probed(100, 0)])
            .read(s(15), vec![probed(0, 0), probed(100, 0)]);
        assert_eq!(watch.verdict(), Verdict::Passed);
    }

    #[test]
    fn a_condition_that_does_not_hold_breaks_at_once_with_its_numbers() {
        let watch = Watch::of(healthy()).read(s(10), vec![probed(60, 3), probed(60, 0)]);
        let why = watch.broken();
        assert!(why.contains("errorRate < 0.01"), "{why}");
        assert!(
            why.contains("120 samples") && why.contains("3 errors"),
            "{why}"
        );
    }

    #[test]
    fn while_it_holds_the_rest_of_the_time_is_waited_for() {
        let watch = Watch::of(healthy()).read(s(10), vec![probed(60, 0)]);
        assert_eq!(watch.verdict(), Verdict::Going { left: s(20) });
    }

    #[test]
    fn too_few_samples_prove_nothing_either_way() {
        let watch = Watch::of(healthy()).read(s(29), vec![probed(59, 59)]);
        assert_eq!(watch.verdict(), Verdict::Going { left: s(1) });
        let late = watch.read(s(20), vec![probed(0, 0)]);
        let left = Duration::from_millis(1);
        assert_eq!(late.verdict(), Verdict::Going { left }, "past its length");
        let enough = late.read(s(1), vec![probed(5941, 0)]);
        assert_eq!(enough.verdict(), Verdict::Passed);
    }

    #[test]
    fn too_few_samples_in_twice_the_time_are_broken() {
        let watch = Watch::of(healthy()).read(s(64), vec![probed(59, 0)]);
        assert!(matches!(watch.verdict(), Verdict::Going { .. }));
        let why = watch.read(s(1), vec![probed(0, 0)]).broken();
        assert!(why.contains("59 of 60 samples"), "{why}");
    }

    #[test]
    fn a_condition_over_what_nothing_read_is_broken_in_twice_the_time() {
        let watch = Watch::of(soak(json!({"require": "steps.rolled.outputs.ready == 3"})));
        let nothing = || SoakReading {
            steps: Ok(BTreeMap::new()),
        };
        let watch = watch.read(s(64), vec![nothing()]);
        assert!(matches!(watch.verdict(), Verdict::Going { .. }));
        watch.read(s(1), vec![nothing()]).broken();
    }

    #[test]
    fn a_condition_that_cannot_be_judged_is_broken() {
        let watch = Watch::of(soak(json!({"require": "steps.other.outputs.ok"})))
            .read(s(10), vec![probed(1, 0)]);
        assert!(watch.broken().contains("steps.other.outputs.ok"));
    }

    #[test]
    fn a_condition_may_compare_with_a_parameter() {
        let soak = soak(json!({"require": "steps.health.outputs.errors <= params.most"}));
        let watch = Watch::of(soak).read(s(10), vec![probed(9, 2)]);
        assert_eq!(watch.verdict(), Verdict::Going { left: s(20) });
        watch.read(s(1), vec![probed(9, 1)]).broken();
    }

    #[test]
    fn the_last_reading_of_each_target_is_judged_and_none_hides_another() {
        let require = "steps.rolled.outputs.ready == steps.rolled.outputs.replicas";
        let watch =
            Watch::of(soak(json!({"require": require}))).read(s(10), vec![rolled(3), rolled(3)]);
        assert_eq!(watch.verdict(), Verdict::Going { left: s(20) });
        let watch = watch.read(s(10), vec![rolled(1), rolled(3)]);
        let why = watch.broken();
        assert!(
            why.contains("on a/1") && why.contains("\"ready\":1"),
            "{why}"
        );
        let mended = watch.read(s(10), vec![rolled(3), rolled(3)]);
        assert_eq!(mended.verdict(), Verdict::Passed);
    }
}
