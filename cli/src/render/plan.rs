//! A plan for whoever approves it: who and in which order first, then what changes, identical changes
//! told once, then what to know, then what it amounts to.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::ids::{TargetName, Timestamp};
use aldis_core::plan::part::{Basis, DiffLine, Feasibility};
use aldis_core::plan::{Disposition, ObjectRef, Plan, StepPart, StepPlan, TargetPart};
use aldis_core::runbook::OnFailure;
use aldis_core::view::PlanView;
use serde_json::Value;

use super::job::wave_name;
use super::standing::named;
use super::text::{Line, Tone, count, wrap};
use super::time::{span, timeless};

/// Targets named in the line of a wave; more are counted by region.
const WAVE_NAMES: usize = 12;

/// Targets named beside a change or a warning; more are counted.
const NAMES: usize = 3;

/// Objects that other jobs hold which are named; more are counted.
const CONFLICTS: usize = 5;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Identical things once.
    Folded,
    /// Each target with each step.
    Full,
}

/// How a plan is shown.
pub struct Drawing<'a> {
    /// The plan.
    pub view: &'a PlanView,
    /// The moment it is shown, by the reader's clock.
    pub now: Timestamp,
    /// Columns to draw in.
    pub columns: usize,
    /// How much is shown.
    pub detail: Detail,
}

impl Drawing<'_> {
    /// The plan, without what to type next.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = vec![self.title(), Line::new()];
        for section in [self.waves(), self.changes(), self.remarks()] {
            if !section.is_empty() {
                lines.extend(section);
                lines.push(Line::new());
            }
        }
        lines.extend(self.sum());
        if self.detail == Detail::Full {
            lines.push(Line::new());
            lines.extend(self.everything());
        }
        lines
    }

    fn plan(&self) -> &Plan {
        &self.view.plan
    }

    fn title(&self) -> Line {
        let plan = self.plan();
        let mut line = Line::of(Tone::Strong, format!("Plan {}", plan.id.short()));
        line.push(Tone::Plain, format!(" for {}", plan.scope.runbook));
        let targets = count(plan.parts.len(), "target", "targets");
        let waves = count(plan.phase().waves.len(), "wave", "waves");
        line.push(Tone::Plain, format!(" · {targets}, {waves} · "));
        if self.view.expired {
            line.push(Tone::Bad, "no longer valid");
        } else {
            let left = plan.scope.expires_at.since(self.now);
            line.push(Tone::Plain, format!("valid {}", span(left)));
        }
        if plan.parts.values().any(|part| part.simulated) {
            line.push(Tone::Warn, " · with simulated targets");
        }
        line
    }

    fn waves(&self) -> Vec<Line> {
        let waves = &self.plan().phase().waves;
        let names: Vec<String> = waves
            .iter()
            .enumerate()
            .map(|(index, wave)| wave_name(index, &wave.name))
            .collect();
        let widest = names.iter().map(String::len).max().unwrap_or(0);
        let indent = 2 + widest + 2;
        let mut lines = Vec::new();
        for (name, wave) in names.iter().zip(waves) {
            let mut text = self.wave_targets(&wave.targets);
            if let Some(soak) = &wave.soak {
                text.push_str(&format!(", then {} soak", span(soak.length)));
            }
            let room = self.columns.saturating_sub(indent).max(20);
            for (row, part) in wrap(&text, room).into_iter().enumerate() {
                let mut line = Line::from("  ");
                if row == 0 {
                    line.push(Tone::Strong, name.as_str());
                }
                line.pad(indent);
                line.push(Tone::Plain, part);
                lines.push(line);
            }
        }
        lines
    }

    fn wave_targets(&self, targets: &[TargetName]) -> String {
        if targets.len() <= WAVE_NAMES || self.detail == Detail::Full {
            let names: Vec<_> = targets.iter().map(|name| self.name(name)).collect();
            return names.join(", ");
        }
        let mut regions: BTreeMap<&str, usize> = BTreeMap::new();
        for target in targets {
            *regions.entry(target.region()).or_default() += 1;
        }
        let each: Vec<_> = regions
            .into_iter()
            .map(|(region, number)| format!("{number} in {region}"))
            .collect();
        each.join(", ")
    }

    fn name(&self, target: &TargetName) -> String {
        let simulated = self.plan().part(target).is_some_and(|part| part.simulated);
        named(target, simulated)
    }

    fn some(&self, targets: &[&TargetName]) -> String {
        let all = self.plan().parts.len();
        if targets.len() == all && all > 1 {
            return format!("all {all} targets");
        }
        let names: Vec<_> = targets
            .iter()
            .take(NAMES)
            .map(|name| self.name(name))
            .collect();
        let more = targets.len().saturating_sub(NAMES);
        if more == 0 {
            names.join(", ")
        } else {
            format!("{} and {more} more", names.join(", "))
        }
    }

    /// What changes, what does not, and who is refused, each told once.
    fn changes(&self) -> Vec<Line> {
        let mut rows: Folded<Row> = Folded::default();
        for (target, part) in &self.plan().parts {
            for row in rows_of(part) {
                rows.add(row, target);
            }
        }
        let all = self.plan().parts.len();
        let widest = rows.iter().map(|(row, _)| row.subject.chars().count());
        let widest = widest.max().unwrap_or(0).min(48);
        let mut lines = Vec::new();
        for (row, targets) in rows.iter() {
            let (glyph, tone) = row.kind.sign();
            let mut line = Line::from("  ").with(tone, format!("{glyph} "));
            if !row.subject.is_empty() {
                line.push(Tone::Strong, row.subject.as_str());
                line.pad(4 + widest + 2);
            }
            line.push(Tone::Plain, row.what.as_str());
            let who = if targets.len() > NAMES && targets.len() < all {
                format!("   {} targets", targets.len())
            } else {
                format!("   {}", self.some(targets))
            };
            line.push(Tone::Dim, who);
            lines.push(line);
            if let Some(hint) = &row.hint {
                lines.push(Line::of(Tone::Busy, "      hint: ").and(hint.as_str()));
            }
        }
        lines
    }

    /// What to know before approving.
    fn remarks(&self) -> Vec<Line> {
        let mut exact: Folded<String> = Folded::default();
        let mut remarks: Folded<String> = Folded::default();
        for (target, part) in &self.plan().parts {
            for remark in remarks_of(part) {
                remarks.add(timeless(&remark), target);
                exact.add(remark, target);
            }
        }
        let mut lines: Vec<Line> = remarks
            .iter()
            .map(|(remark, targets)| {
                let mut alike = exact.iter().filter(|(one, _)| timeless(one) == *remark);
                let remark = match (alike.next(), alike.next()) {
                    (Some((only, _)), None) => only,
                    (Some(_), Some(_)) | (None, _) => remark,
                };
                let mut line = Line::of(Tone::Warn, "  ! ");
                line.push(Tone::Strong, self.some(targets));
                line.push(Tone::Plain, format!("  {remark}"));
                line
            })
            .collect();
        let more = self.view.conflicts.len().saturating_sub(CONFLICTS);
        lines.extend(self.view.conflicts.iter().take(CONFLICTS).map(|conflict| {
            let mut line = Line::of(Tone::Warn, "  ! ");
            line.push(Tone::Strong, self.name(&conflict.target));
            let held = format!(
                "  {} is held by job {}: this job would wait in the queue until that one ends",
                conflict.object,
                conflict.job.short()
            );
            line.push(Tone::Plain, held);
            line
        }));
        if more > 0 {
            let text = format!("  ! and {more} more objects that other jobs hold");
            lines.push(Line::of(Tone::Warn, text));
        }
        lines
    }

    fn sum(&self) -> Vec<Line> {
        let plan = self.plan();
        let tally = Tally::of(plan);
        let mut lines = vec![Line::from(format!("  {}", tally.sentence()))];
        lines.push(Line::from(format!("  {}", undo_sentence(plan))));
        let phase = plan.phase();
        let then = match phase.on_failure {
            OnFailure::Undo => "everything that was changed is put back",
            OnFailure::Halt => "nothing more is begun; what was changed stands",
            OnFailure::Continue => "nothing more is begun; targets that were helped stay so",
        };
        lines.push(Line::from(format!(
            "  {} accepted; beyond that {then}.",
            count(phase.budget, "failure is", "failures are"),
        )));
        let digest = format!("  digest {}", plan.digest.short());
        lines.push(Line::of(Tone::Dim, digest));
        lines
    }

    /// Each target with each step.
    fn everything(&self) -> Vec<Line> {
        let plan = self.plan();
        let mut lines = vec![
            Line::of(Tone::Strong, "Parameters"),
            Line::from(format!("  {}", plan.scope.params)),
            Line::of(Tone::Strong, "Digest"),
            Line::from(format!("  {}", plan.digest)),
            Line::of(Tone::Strong, "Steps"),
        ];
        for segment in &phase_steps(plan) {
            lines.push(Line::from(format!("  {segment}")));
        }
        for (target, part) in &plan.parts {
            lines.push(Line::new());
            let mut head = Line::of(Tone::Strong, self.name(target));
            head.push(Tone::Plain, format!("  {}", disposition(part)));
            lines.push(head);
            let identity = format!("  cluster {}", part.identity.cluster_uid);
            lines.push(Line::of(Tone::Dim, identity));
            for step in &part.steps {
                lines.extend(step_lines(step));
            }
            let remarks = remarks_of(part);
            lines.extend(
                remarks
                    .into_iter()
                    .map(|remark| Line::of(Tone::Warn, "  ! ").and(remark)),
            );
        }
        lines
    }
}

/// The reasons why no job can be made of a plan, for exit code 13; empty = it can be submitted.
pub fn refusals(view: &PlanView) -> Vec<String> {
    let mut refusals = view.plan.refusals();
    if view.expired {
        refusals.push("it is no longer valid".to_owned());
    }
    refusals
}

/// Whether the plan would change anything.
pub fn has_changes(plan: &Plan) -> bool {
    Tally::of(plan).change > 0
}

/// Equal things with those who have them, in order of first appearance.
struct Folded<'a, T>(Vec<(T, Vec<&'a TargetName>)>);

impl<T> Default for Folded<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T: PartialEq> Folded<'a, T> {
    fn add(&mut self, thing: T, target: &'a TargetName) {
        match self.0.iter_mut().find(|(other, _)| *other == thing) {
            Some((_, targets)) if targets.contains(&target) => {}
            Some((_, targets)) => targets.push(target),
            None => self.0.push((thing, vec![target])),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &(T, Vec<&'a TargetName>)> {
        self.0.iter()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Change,
    Same,
    Refused,
    Later,
}

impl Kind {
    fn sign(self) -> (&'static str, Tone) {
        match self {
            Self::Change => ("~", Tone::Warn),
            Self::Same => ("=", Tone::Dim),
            Self::Refused => ("✘", Tone::Bad),
            Self::Later => ("…", Tone::Dim),
        }
    }
}

/// One line of what changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    kind: Kind,
    subject: String,
    what: String,
    hint: Option<String>,
}

fn rows_of(part: &TargetPart) -> Vec<Row> {
    let row = |kind, subject: String, what: String, hint| Row {
        kind,
        subject,
        what,
        hint,
    };
    match &part.disposition {
        Disposition::Run => {
            let steps = part
                .steps
                .iter()
                .filter_map(|step| Some((step, step.object.as_ref()?)));
            steps
                .flat_map(|(step, object)| changes_of(step, object))
                .map(|(kind, subject, what)| row(kind, subject, what, None))
                .collect()
        }
        Disposition::Unchanged { why } => {
            let object = part.writes().first().map(ToString::to_string);
            vec![row(
                Kind::Same,
                object.unwrap_or_default(),
                format!("left alone: {why}"),
                None,
            )]
        }
        Disposition::Refused { why, hint } => {
            vec![row(
                Kind::Refused,
                String::new(),
                format!("refused: {why}"),
                hint.clone(),
            )]
        }
        Disposition::Deferred { why } => vec![row(
            Kind::Later,
            String::new(),
            format!("deferred until its agent returns: {why}"),
            None,
        )],
        Disposition::Skipped { why } => {
            vec![row(
                Kind::Same,
                String::new(),
                format!("left out: {why}"),
                None,
            )]
        }
    }
}

fn changes_of(step: &StepPlan, object: &ObjectRef) -> Vec<(Kind, String, String)> {
    let how_sure = match step.basis {
        Basis::DryRun | Basis::Read => "",
        Basis::Assumed => "  (depends on earlier steps)",
        Basis::NotRead => "  (could not be read)",
    };
    if !step.changes {
        return vec![(
            Kind::Same,
            object.to_string(),
            format!("no change{how_sure}"),
        )];
    }
    if step.diff.is_empty() {
        let what = format!("changed by {}{how_sure}", step.action);
        return vec![(Kind::Change, object.to_string(), what)];
    }
    step.diff
        .iter()
        .map(|line| {
            let what = format!("{}{how_sure}", diff(line));
            (Kind::Change, object.to_string(), what)
        })
        .collect()
}

fn diff(line: &DiffLine) -> String {
    let value = |side: &Option<String>| side.clone().unwrap_or_else(|| "(none)".to_owned());
    format!("{} {} → {}", line.field, value(&line.from), value(&line.to))
}

/// Warnings, owners and what cannot be undone.
fn remarks_of(part: &TargetPart) -> Vec<String> {
    let mut remarks = part.warnings.clone();
    for step in &part.steps {
        let object = step.object.as_ref().map(ToString::to_string);
        let object = object.unwrap_or_else(|| step.step.to_string());
        // A target that is refused or left alone is not changed, so that nobody could put a change back.
        let runs = part.disposition == Disposition::Run && step.changes;
        for owner in step.owners.iter().filter(|_| runs) {
            let then = if owner.would_revert {
                "and it would put the change back"
            } else {
                "which leaves this change alone"
            };
            remarks.push(format!(
                "{object} is owned by {} {}, {then} ({})",
                owner.system, owner.name, owner.evidence
            ));
        }
        if let Feasibility::Impossible { why } = &step.undo {
            remarks.push(format!("{object} cannot be put back: {why}"));
        }
    }
    remarks
}

/// How many targets fare how.
#[derive(Default)]
struct Tally {
    change: usize,
    unchanged: usize,
    refused: usize,
    deferred: usize,
    left_out: usize,
}

impl Tally {
    fn of(plan: &Plan) -> Self {
        let mut tally = Self::default();
        for part in plan.parts.values() {
            match &part.disposition {
                Disposition::Run if part.steps.iter().any(|step| step.changes) => tally.change += 1,
                Disposition::Run | Disposition::Unchanged { .. } => tally.unchanged += 1,
                Disposition::Refused { .. } => tally.refused += 1,
                Disposition::Deferred { .. } => tally.deferred += 1,
                Disposition::Skipped { .. } => tally.left_out += 1,
            }
        }
        tally
    }

    fn sentence(&self) -> String {
        let mut text = format!(
            "{} to change, {} unchanged, {} refused",
            count(self.change, "target", "targets"),
            self.unchanged,
            self.refused
        );
        for (number, word) in [(self.deferred, "deferred"), (self.left_out, "left out")] {
            if number > 0 {
                text.push_str(&format!(", {number} {word}"));
            }
        }
        text + "."
    }
}

fn undo_sentence(plan: &Plan) -> String {
    let changing = plan.parts.values().filter(|part| {
        part.disposition == Disposition::Run && part.steps.iter().any(|step| step.changes)
    });
    let (mut possible, mut all) = (0, 0);
    for part in changing {
        all += 1;
        let lost = |step: &StepPlan| matches!(step.undo, Feasibility::Impossible { .. });
        if !part.steps.iter().any(lost) {
            possible += 1;
        }
    }
    if all == 0 {
        "Nothing to undo.".to_owned()
    } else {
        format!("Undo is possible on {possible} of {all}.")
    }
}

fn disposition(part: &TargetPart) -> String {
    match &part.disposition {
        Disposition::Run => "runs".to_owned(),
        Disposition::Unchanged { why } => format!("left alone: {why}"),
        Disposition::Refused { why, .. } => format!("refused: {why}"),
        Disposition::Deferred { why } => format!("deferred: {why}"),
        Disposition::Skipped { why } => format!("left out: {why}"),
    }
}

fn phase_steps(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for segment in &plan.phase().segments {
        for step in &segment.steps {
            let part = match step.part {
                StepPart::Preflight => "preflight",
                StepPart::Main => "step",
                StepPart::Verify => "verify",
            };
            lines.push(format!("{part:<10} {}  {}", step.step.id, step.step.uses));
        }
        if let Some(barrier) = segment.barrier {
            let limit = barrier.timeout_ms.map(Duration::from_millis);
            let limit = limit.map_or(String::new(), |limit| {
                format!(", for at most {}", span(limit))
            });
            lines.push(format!(
                "── barrier: nobody goes on before all of the wave are here{limit}"
            ));
        }
    }
    lines
}

fn step_lines(step: &StepPlan) -> Vec<Line> {
    let mut head = Line::from(format!("  {}  {}", step.step, step.action));
    if let Some(object) = &step.object {
        head.push(Tone::Plain, format!("  {object}"));
        let will = if step.changes {
            "  changes"
        } else {
            "  no change"
        };
        head.push(Tone::Dim, will);
    }
    let basis = match step.basis {
        Basis::DryRun => "tried by the API server",
        // Whatever is looked at has an input.
        Basis::Read if step.with.is_none() => "left out: its `if` does not hold here",
        Basis::Read => "read",
        Basis::Assumed => "depends on earlier steps",
        Basis::NotRead => "could not be read",
    };
    head.push(Tone::Dim, format!("  ({basis})"));
    let mut lines = vec![head];
    lines.extend(
        step.diff
            .iter()
            .map(|line| Line::of(Tone::Warn, "    ~ ").and(diff(line))),
    );
    for (what, value) in [("with", &step.with), ("outputs", &step.outputs)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_null()) {
            lines.push(Line::of(Tone::Dim, format!("    {what} {}", short(value))));
        }
    }
    lines
}

fn short(value: &Value) -> String {
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{NOW, checkout, part, plan, shown, target};
    use crate::render::text::plain;
    use aldis_core::ids::JobId;
    use aldis_core::plan::part::ObjectOwner;
    use aldis_core::view::Conflict;

    fn draw(view: &PlanView, detail: Detail) -> String {
        let drawing = Drawing {
            view,
            now: NOW,
            columns: 100,
            detail,
        };
        // What a digest covers may grow; that it is shown is what matters here.
        let digest = &view.plan.digest;
        plain(&drawing.lines())
            .replace(digest.as_str(), "[digest]")
            .replace(digest.short(), "[short digest]")
    }

    #[test]
    fn the_summary_comes_first_and_equal_changes_once() {
        let mut plan = plan(&[
            "ap-south/prod-1",
            "ap-south/prod-2",
            "eu-west/prod-1",
            "eu-west/prod-2",
            "us-east/prod-1",
        ]);
        let disposition = Disposition::Unchanged {
            why: "does not run v2.18.0".into(),
        };
        plan.parts
            .get_mut(&target("ap-south/prod-2"))
            .unwrap()
            .disposition = disposition;
        let full = "autoscaler at its maximum: surge pods may wait";
        let warned = plan.parts.get_mut(&target("ap-south/prod-1")).unwrap();
        warned.warnings.push(full.into());
        let owned = plan.parts.get_mut(&target("us-east/prod-1")).unwrap();
        owned.steps[0].owners.push(ObjectOwner {
            system: "Argo CD".into(),
            name: "shop".into(),
            would_revert: true,
            evidence: "label argocd.argoproj.io/instance".into(),
        });
        owned.simulated = true;
        let mut view = shown(plan);
        view.conflicts.push(Conflict {
            target: target("eu-west/prod-1"),
            object: checkout(),
            job: JobId::new("j-99887766554433221100ffeeddccbbaa"),
        });
        insta::assert_snapshot!(draw(&view, Detail::Folded), @r"
        Plan p-7f3c91d2 for rollback-service@1 · 5 targets, 3 waves · valid 30m00s · with simulated targets

          wave 1 canary  ap-south/prod-1, then 30s soak
          wave 2 half    ap-south/prod-2, eu-west/prod-1
          wave 3 rest    eu-west/prod-2, us-east/prod-1 (simulated)

          ~ Deployment shop/checkout  containers[app].image checkout:v2.18.0 → checkout:v2.17.4   4 targets
          = Deployment shop/checkout  left alone: does not run v2.18.0   ap-south/prod-2

          ! ap-south/prod-1  autoscaler at its maximum: surge pods may wait
          ! us-east/prod-1 (simulated)  Deployment shop/checkout is owned by Argo CD shop, and it would put the change back (label argocd.argoproj.io/instance)
          ! eu-west/prod-1  Deployment shop/checkout is held by job j-998877665544: this job would wait in the queue until that one ends

          4 targets to change, 1 unchanged, 0 refused.
          Undo is possible on 4 of 4.
          1 failure is accepted; beyond that nothing more is begun; targets that were helped stay so.
          digest [short digest]
        ");
    }

    #[test]
    fn a_remark_that_differs_by_its_time_alone_is_told_once_and_in_full_with_each_time() {
        let mut plan = plan(&["eu-west/prod-1", "us-east/prod-1"]);
        for (part, second) in plan.parts.values_mut().zip(17..) {
            part.steps[0].owners.push(ObjectOwner {
                system: "field manager".into(),
                name: "someone".into(),
                would_revert: false,
                evidence: format!(
                    "someone wrote the pod template at 2026-11-25T23:08:{second}Z; no more"
                ),
            });
        }
        let view = shown(plan);
        let folded = draw(&view, Detail::Folded);
        assert_eq!(folded.matches("is owned by").count(), 1, "{folded}");
        assert!(
            folded.contains("! all 2 targets  ") && folded.contains("at different times; no more)"),
            "{folded}"
        );
        let full = draw(&view, Detail::Full);
        assert!(
            full.contains("23:08:17Z") && full.contains("23:08:18Z"),
            "{full}"
        );
    }

    #[test]
    fn a_refused_target_comes_with_its_way_forward() {
        let mut plan = plan(&["eu-west/prod-1", "us-east/prod-1"]);
        let refused = Disposition::Refused {
            why: "Deployment shop/chekout does not exist".into(),
            hint: Some("Deployments in shop: checkout, cart".into()),
        };
        for part in plan.parts.values_mut() {
            part.disposition = refused.clone();
        }
        let view = shown(plan);
        insta::assert_snapshot!(draw(&view, Detail::Folded), @r"
        Plan p-7f3c91d2 for rollback-service@1 · 2 targets, 2 waves · valid 30m00s

          wave 1 canary  eu-west/prod-1, then 30s soak
          wave 2 rest    us-east/prod-1

          ✘ refused: Deployment shop/chekout does not exist   all 2 targets
              hint: Deployments in shop: checkout, cart

          0 targets to change, 0 unchanged, 2 refused.
          Nothing to undo.
          0 failures are accepted; beyond that nothing more is begun; targets that were helped stay so.
          digest [short digest]
        ");
        let said = refusals(&view);
        assert_eq!(said.len(), 1, "one reason is said once: {said:?}");
        assert!(said[0].contains("eu-west/prod-1") && said[0].contains("us-east/prod-1"));
        assert!(!has_changes(&view.plan));
    }

    #[test]
    fn nothing_is_folded_in_full() {
        let view = shown(plan(&["eu-west/prod-1", "us-east/prod-1"]));
        insta::assert_snapshot!(draw(&view, Detail::Full), @r#"
        Plan p-7f3c91d2 for rollback-service@1 · 2 targets, 2 waves · valid 30m00s

          wave 1 canary  eu-west/prod-1, then 30s soak
          wave 2 rest    us-east/prod-1

          ~ Deployment shop/checkout  containers[app].image checkout:v2.18.0 → checkout:v2.17.4   all 2 targets

          2 targets to change, 0 unchanged, 0 refused.
          Undo is possible on 2 of 2.
          0 failures are accepted; beyond that nothing more is begun; targets that were helped stay so.
          digest [short digest]

        Parameters
          {"from":"v2.18.0","namespace":"shop","port":8080,"service":"checkout","to":"previous"}
        Digest
          [digest]
        Steps
          preflight  now  kube.get@v1
          preflight  old  kube.resolve-template@v1
          ── barrier: nobody goes on before all of the wave are here
          step       rollback  kube.rollout-undo@v1
          step       wait_rollout  kube.wait@v1
          verify     health  http.probe@v1

        eu-west/prod-1  runs
          cluster uid of eu-west/prod-1
          rollback  kube.rollout-undo@v1  Deployment shop/checkout  changes  (tried by the API server)
            ~ containers[app].image checkout:v2.18.0 → checkout:v2.17.4

        us-east/prod-1  runs
          cluster uid of us-east/prod-1
          rollback  kube.rollout-undo@v1  Deployment shop/checkout  changes  (tried by the API server)
            ~ containers[app].image checkout:v2.18.0 → checkout:v2.17.4
        "#);
    }

    #[test]
    fn a_thousand_targets_fit_on_a_screen() {
        let names: Vec<String> = (0..1000).map(|n| format!("r{}/c{n}", n % 4)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut plan = plan(&names);
        plan.parts.insert(target("r0/c0"), {
            let mut odd = part("r0/c0");
            odd.steps[0].diff[0].from = Some("checkout:v2.16.0".into());
            odd
        });
        let drawn = draw(&shown(plan), Detail::Folded);
        assert!(drawn.lines().count() < 24, "{drawn}");
        assert!(drawn.contains("999 targets"), "{drawn}");
        assert!(
            drawn.contains("checkout:v2.16.0 → checkout:v2.17.4   r0/c0"),
            "{drawn}"
        );
    }
}
