//! Who goes in which wave, and where a runbook's steps are cut into segments.
//!
//! Percent is a cumulative share of the selected targets, rounded up: with `canary: 1`, `50 %`,
//! `100 %` over seven targets the waves hold 1, 3 and 3. `perRegion` takes that many of each region,
//! bounded by `max`. Order is region, then cluster, so that two plans of one fleet agree.

use std::collections::{BTreeMap, BTreeSet};

use super::{BarrierLimit, Segment, SegmentStep, StepPart, Wave};
use crate::ids::TargetName;
use crate::runbook::{Barrier, MaxFailures, Pick, Rollout, Runbook};

/// In work at once where a wave does not say: small enough that a mistake is seen in few places.
const DEFAULT_PARALLEL: usize = 10;

/// Cuts the selection into waves. Every target is in exactly one; a last wave takes what is left.
pub fn cut(rollout: &Rollout, selection: &BTreeSet<TargetName>) -> Vec<Wave> {
    let mut left: Vec<TargetName> = selection.iter().cloned().collect();
    let mut taken = 0;
    let mut waves = Vec::new();
    for (index, wave) in rollout.waves.iter().enumerate() {
        let targets = pick(&wave.pick, &left, taken, selection.len());
        left.retain(|target| !targets.contains(target));
        taken += targets.len();
        if targets.is_empty() {
            continue;
        }
        waves.push(Wave {
            name: wave
                .name
                .clone()
                .unwrap_or_else(|| format!("wave-{}", index + 1)),
            max_parallel: wave
                .max_parallel
                .map_or(DEFAULT_PARALLEL, |max| max as usize),
            soak: wave.soak.clone(),
            targets,
        });
    }
    if !left.is_empty() {
        waves.push(Wave {
            name: "rest".to_owned(),
            max_parallel: DEFAULT_PARALLEL,
            soak: None,
            targets: left,
        });
    }
    waves
}

/// Failures plus unknowns that are accepted; a percent is of all selected, rounded down.
pub fn budget(max: &MaxFailures, selected: usize) -> usize {
    match max {
        MaxFailures::Count(count) => *count as usize,
        MaxFailures::Percent(percent) => selected * usize::from(*percent) / 100,
    }
}

fn pick(pick: &Pick, left: &[TargetName], taken: usize, selected: usize) -> Vec<TargetName> {
    let mut wanted = left.len();
    if let Some(percent) = pick.percent {
        wanted = wanted.min(
            (selected * usize::from(percent))
                .div_ceil(100)
                .saturating_sub(taken),
        );
    }
    if let Some(count) = pick.count {
        wanted = wanted.min(count as usize);
    }
    if let Some(max) = pick.max {
        wanted = wanted.min(max as usize);
    }
    let mut of_region: BTreeMap<&str, usize> = BTreeMap::new();
    let mut picked = Vec::new();
    for target in left {
        let so_far = of_region.entry(target.region()).or_default();
        let room = pick
            .per_region
            .is_none_or(|per_region| *so_far < per_region as usize);
        if room && picked.len() < wanted {
            *so_far += 1;
            picked.push(target.clone());
        }
    }
    picked
}

/// Cuts preflight, steps and verify after each barrier.
pub fn segments(runbook: &Runbook) -> Vec<Segment> {
    let spec = &runbook.spec;
    let parts = [
        (StepPart::Preflight, &spec.preflight),
        (StepPart::Main, &spec.steps),
        (StepPart::Verify, &spec.verify),
    ];
    let mut segments = Vec::new();
    let mut open: Vec<SegmentStep> = Vec::new();
    for (part, steps) in parts {
        for step in steps {
            open.push(SegmentStep {
                part,
                step: step.clone(),
            });
            if let Some(limit) = limit(&step.barrier) {
                segments.push(Segment {
                    steps: std::mem::take(&mut open),
                    barrier: Some(limit),
                });
            }
        }
    }
    if !open.is_empty() {
        segments.push(Segment {
            steps: open,
            barrier: None,
        });
    }
    segments
}

fn limit(barrier: &Barrier) -> Option<BarrierLimit> {
    match barrier {
        Barrier::No => None,
        Barrier::Yes => Some(BarrierLimit { timeout_ms: None }),
        Barrier::Within(timeout) => {
            let timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            Some(BarrierLimit { timeout_ms })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::{Pick, Wave as Written};

    fn fleet(names: &[&str]) -> BTreeSet<TargetName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn rollout(picks: Vec<Pick>) -> Rollout {
        let waves = picks
            .into_iter()
            .map(|pick| Written {
                pick,
                ..Written::default()
            })
            .collect();
        Rollout {
            waves,
            ..Rollout::default()
        }
    }

    fn sizes(picks: Vec<Pick>, selection: &BTreeSet<TargetName>) -> Vec<usize> {
        cut(&rollout(picks), selection)
            .iter()
            .map(|wave| wave.targets.len())
            .collect()
    }

    #[test]
    fn percent_is_a_cumulative_share_rounded_up() {
        let seven = fleet(&["a/1", "a/2", "a/3", "b/1", "b/2", "b/3", "c/1"]);
        let canary = Pick {
            per_region: Some(1),
            max: Some(1),
            ..Pick::default()
        };
        let half = Pick {
            percent: Some(50),
            ..Pick::default()
        };
        let rest = Pick {
            percent: Some(100),
            ..Pick::default()
        };
        assert_eq!(sizes(vec![canary, half, rest], &seven), [1, 3, 3]);
    }

    #[test]
    fn one_canary_per_region() {
        let four = fleet(&["a/1", "a/2", "b/1", "b/2"]);
        let waves = cut(
            &rollout(vec![Pick {
                per_region: Some(1),
                ..Pick::default()
            }]),
            &four,
        );
        let names: Vec<_> = waves[0].targets.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a/1", "b/1"]);
        assert_eq!(waves[1].name, "rest");
    }

    #[test]
    fn a_percent_of_failures_is_rounded_down() {
        assert_eq!(budget(&MaxFailures::Percent(25), 4), 1);
        assert_eq!(budget(&MaxFailures::Percent(25), 3), 0);
        assert_eq!(budget(&MaxFailures::Count(2), 3), 2);
    }
}
