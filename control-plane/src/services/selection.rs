//! Whom a plan is for: the runbook's selection, narrowed by what was asked.
//!
//! Narrowing never brings anybody in, and whoever is named and not selected is told rather than left out: an operator who
//! names a target counts on it.

use std::collections::{BTreeMap, BTreeSet};

use aldis_core::ids::TargetName;
use aldis_core::runbook::Runbook;

use super::planning::Wanted;
use super::{Error, Services};
use crate::agents::AgentFacts;

impl Services {
    /// The agents to ask, in order.
    pub(super) fn select(
        &self,
        wanted: &Wanted,
        runbook: &Runbook,
    ) -> Result<Vec<AgentFacts>, Error> {
        let fleet = self.0.agents.fleet();
        let known: BTreeSet<&TargetName> = fleet.iter().map(|facts| &facts.fleet.target).collect();
        let unknown: Vec<String> = wanted
            .targets
            .iter()
            .filter(|t| !known.contains(t))
            .map(ToString::to_string)
            .collect();
        if !unknown.is_empty() {
            return Err(Error::not_found(format!(
                "no agent ever registered for {}",
                unknown.join(", ")
            ))
            .hint("see `aldis agents list`"));
        }
        let select = &runbook.spec.targets.select.match_labels;
        let mut selected = self.agents(select, "");
        let of_runbook = selected.len();
        let is_of_runbook =
            |target: &TargetName| selected.iter().any(|facts| facts.fleet.target == *target);
        if let Some(other) = wanted.targets.iter().find(|t| !is_of_runbook(t)) {
            let labels = written(select);
            return Err(Error::refused(format!(
                "{other} is not for this runbook, which selects {labels}"
            ))
            .hint(format!("`aldis agents show {other}` shows its labels")));
        }
        selected.retain(|facts| {
            let labels = super::fleet::labels(&facts.fleet);
            let named = wanted.targets.is_empty() || wanted.targets.contains(&facts.fleet.target);
            let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
            named && wanted.selector.iter().all(has)
        });
        bounds(runbook, &wanted.selector, selected.len(), of_runbook)?;
        Ok(selected)
    }
}

fn bounds(
    runbook: &Runbook,
    narrowed: &BTreeMap<String, String>,
    selected: usize,
    of_runbook: usize,
) -> Result<(), Error> {
    let targets = &runbook.spec.targets;
    if selected == 0 {
        let labels = written(&targets.select.match_labels);
        let why = match of_runbook {
            0 => format!("no agent has what the runbook selects: {labels}"),
            _ => format!(
                "the runbook selects {of_runbook} by {labels}, and none of them has {}",
                written(narrowed)
            ),
        };
        return Err(Error::refused(format!("no target is selected: {why}"))
            .hint("`aldis agents list` shows targets, `aldis agents show TARGET` their labels"));
    }
    let count = |bound: u32| usize::try_from(bound).unwrap_or(usize::MAX);
    let are = if selected == 1 {
        "target is"
    } else {
        "targets are"
    };
    if let Some(min) = targets.min.filter(|min| selected < count(*min)) {
        return Err(Error::refused(format!(
            "{selected} {are} selected, and the runbook's `targets.min` is {min}"
        ))
        .hint("select more, or see `aldis agents list` for those that are missing"));
    }
    if let Some(max) = targets.max.filter(|max| selected > count(*max)) {
        return Err(Error::refused(format!(
            "{selected} {are} selected, and the runbook's `targets.max` is {max}"
        ))
        .hint("narrow them with `-l` or `--target`"));
    }
    Ok(())
}

/// Labels as they are typed.
fn written(labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return "every target".to_owned();
    }
    let each: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    each.join(",")
}
