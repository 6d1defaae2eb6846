//! One agent's part of a plan: every step looked at, and what follows for the target.
//!
//! All steps are looked at, also behind one that refuses: whether the target would change at all counts for more than
//! why it could not. A cluster that does not run the bad image is left alone, whatever its older templates lack.

use aldis_core::action::Effect;
use aldis_core::outcome::Failure;
use aldis_core::plan::part::{Basis, Feasibility};
use aldis_core::plan::{Disposition, StepPart, StepPlan, TargetPart};
use aldis_core::question::Planning;
use aldis_core::runbook::expression::{self, Expression, Template};
use aldis_core::runbook::{Owner, Step, Undo};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Error, allowed, call, look, scope, step_named};
use crate::actions::{Call, Planned};
use crate::parts::Parts;
use crate::runner::{cut, wrong_cluster};

/// Makes the part, or says why the cluster could not be read.
pub(super) async fn plan(
    parts: &Parts,
    planning: &Planning,
    until: Instant,
) -> Result<TargetPart, Error> {
    let mut plan = Plan {
        parts,
        planning,
        until,
        outputs: Map::new(),
        steps: Vec::new(),
        warnings: Vec::new(),
        unchanged: Vec::new(),
        refused: None,
        wrote: false,
    };
    let identity = match look(until, || parts.actions.identity()).await? {
        Ok(identity) => identity,
        Err(failure) => return Err(Error::NotRead(failure.to_string())),
    };
    if let Some(pin) = parts.pin.as_ref().filter(|pin| **pin != identity) {
        plan.refuse(wrong_cluster(pin, &identity));
    } else {
        let spec = &planning.body.spec;
        for (of, steps) in [
            (StepPart::Preflight, &spec.preflight),
            (StepPart::Main, &spec.steps),
            (StepPart::Verify, &spec.verify),
        ] {
            for step in steps {
                plan.step(of, step).await?;
            }
        }
    }
    Ok(TargetPart {
        target: parts.target.clone(),
        identity,
        simulated: parts.simulated,
        disposition: plan.disposition(),
        steps: plan.steps,
        warnings: plan.warnings,
        left: None,
    })
}

struct Plan<'a> {
    parts: &'a Parts,
    planning: &'a Planning,
    until: Instant,
    /// By step, what later expressions may read.
    outputs: Map<String, Value>,
    steps: Vec<StepPlan>,
    warnings: Vec<String>,
    /// Why a write would change nothing; none for one that would change something.
    unchanged: Vec<Option<String>>,
    refused: Option<Failure>,
    /// Whether a step before would change something: what is read now is then not what will be read.
    wrote: bool,
}

impl Plan<'_> {
    async fn step(&mut self, of: StepPart, step: &Step) -> Result<(), Error> {
        let scope = scope(self.planning, &self.outputs);
        match condition(step, &scope) {
            Ok(Some(false)) => return self.left_out(step),
            Ok(Some(true) | None) => {}
            Err(error) => self.refuse(bad_expression("if", step, &error)),
        }
        let resolved = Template::parse(&step.with).and_then(|template| template.resolve(&scope));
        let with = match resolved {
            Ok(with) => with,
            Err(error) => return self.unresolved(step, &error),
        };
        let call = call(self.parts, step, with, self.until);
        if let Err(failure) = self.may(step, &call) {
            self.refuse(failure);
            return self.not_read(step, Some(call.with));
        }
        let actions = &self.parts.actions;
        match look(self.until, || actions.plan(&call)).await? {
            Ok(planned) => self.planned(of, step, planned),
            Err(failure) => {
                self.refuse(at_step(step, failure));
                self.not_read(step, Some(call.with))
            }
        }
    }

    fn may(&self, step: &Step, call: &Call) -> Result<(), Failure> {
        allowed(self.parts, call).map_err(|failure| at_step(step, failure))?;
        call.action.check_input(&call.with).map_err(|problem| {
            at_step(
                step,
                Failure::new("invalid", format!("its input is not valid: {problem}")),
            )
        })
    }

    fn planned(&mut self, of: StepPart, step: &Step, planned: Planned) -> Result<(), Error> {
        let Planned {
            mut plan,
            outputs,
            warnings,
            unchanged,
        } = planned;
        self.warnings.extend(warnings);
        let outputs = outputs.map(|outputs| cut::outputs(step.uses, outputs));
        plan.outputs = plan.outputs.map(|outputs| cut::outputs(step.uses, outputs));
        let writes = step.uses.effect() != Effect::Read;
        if writes {
            self.owners(step, &plan);
            Self::undo(step, &mut plan);
            self.unchanged.push(if plan.changes {
                None
            } else {
                Some(unchanged.unwrap_or_else(|| "nothing to change".to_owned()))
            });
            self.wrote |= plan.changes;
        } else if self.wrote {
            // It will be read behind the change, and say something else then.
            plan.outputs = None;
            plan.basis = Basis::Assumed;
        }
        if let Some(outputs) = outputs {
            self.outputs.insert(step.id.to_string(), outputs);
            if of == StepPart::Preflight {
                self.required(step);
            }
        }
        self.steps.push(plan);
        Ok(())
    }

    /// Preflight runs when planning, and again when the job does.
    fn required(&mut self, step: &Step) {
        let Some(require) = &step.require else { return };
        let scope = scope(self.planning, &self.outputs);
        match Expression::parse(require).and_then(|parsed| parsed.evaluate_bool(&scope)) {
            Ok(true) => {}
            Ok(false) => {
                let says = step.message.clone();
                let says = says.unwrap_or_else(|| format!("`{require}` does not hold"));
                // Facts follow behind it.
                let says = says.trim_end_matches('.').to_owned();
                let outputs = self.outputs.get(step.id.as_str());
                let seen = outputs.map(|outputs| format!("outputs: {outputs}"));
                let failure =
                    Failure::new("require", says).with_evidence(seen.into_iter().collect());
                self.refuse(at_step(step, failure));
            }
            Err(error) => self.refuse(bad_expression("require", step, &error)),
        }
    }

    /// Somebody else who would put our change back. That they do is a fact of the part and shown from there; here it is
    /// only judged.
    fn owners(&mut self, step: &Step, plan: &StepPlan) {
        if !plan.changes || self.planning.body.spec.owner == Owner::Proceed {
            return;
        }
        let Some(owner) = plan.owners.iter().find(|owner| owner.would_revert) else {
            return;
        };
        let object = plan
            .object
            .as_ref()
            .map_or_else(|| "the object".to_owned(), ToString::to_string);
        let says = format!(
            "{object} is owned by {} {}, which would put the change back ({})",
            owner.system, owner.name, owner.evidence
        );
        let hint = format!(
            "change it where {} takes it from, or say `owner: proceed` in the runbook",
            owner.system
        );
        self.refuse(at_step(step, Failure::new("owner", says).with_hint(hint)));
    }

    /// The runbook's word on the undo goes over the action's.
    fn undo(step: &Step, plan: &mut StepPlan) {
        let reason = || {
            step.reason
                .clone()
                .unwrap_or_else(|| "by the runbook".to_owned())
        };
        match &step.undo {
            Undo::None => plan.undo = Feasibility::NotNeeded,
            Undo::Never => plan.undo = Feasibility::Impossible { why: reason() },
            Undo::Auto | Undo::Own { .. } => {}
        }
    }

    fn left_out(&mut self, step: &Step) -> Result<(), Error> {
        let mut plan = bare(step, None, Basis::Read);
        plan.undo = Feasibility::NotNeeded;
        self.steps.push(plan);
        Ok(())
    }

    /// Its input is known only when the job runs. A reading can wait; what a write would touch must be known, since it
    /// is locked, shown and checked for drift.
    fn unresolved(&mut self, step: &Step, error: &expression::Error) -> Result<(), Error> {
        if step.uses.effect() != Effect::Read {
            self.refuse(bad_expression("with", step, error).with_hint(
                "a step that changes something must get its input from parameters, the target, or steps that only read",
            ));
            self.unchanged.push(None);
        }
        self.not_read(step, None)
    }

    fn not_read(&mut self, step: &Step, with: Option<Value>) -> Result<(), Error> {
        let basis = match with {
            Some(_) => Basis::NotRead,
            None => Basis::Assumed,
        };
        if with.is_some() && step.uses.effect() != Effect::Read {
            self.unchanged.push(None);
        }
        self.steps.push(bare(step, with, basis));
        Ok(())
    }

    fn refuse(&mut self, failure: Failure) {
        self.refused.get_or_insert(failure);
    }

    fn disposition(&mut self) -> Disposition {
        let unchanged: Option<Vec<&String>> = self.unchanged.iter().map(Option::as_ref).collect();
        if let Some(why) = unchanged.as_ref().and_then(|all| all.first()) {
            return Disposition::Unchanged {
                why: (*why).clone(),
            };
        }
        match self.refused.take() {
            Some(failure) => {
                let mut why = failure.cause;
                for line in &failure.evidence {
                    why = format!("{why}; {line}");
                }
                Disposition::Refused {
                    why,
                    hint: failure.hint,
                }
            }
            None => Disposition::Run,
        }
    }
}

/// What `if` gives; none where it is not known before the job runs.
fn condition(step: &Step, scope: &expression::Scope) -> Result<Option<bool>, expression::Error> {
    let Some(condition) = &step.condition else {
        return Ok(Some(true));
    };
    let parsed = Expression::parse(condition)?;
    match parsed.evaluate_bool(scope) {
        Ok(held) => Ok(Some(held)),
        // A name of a step that has no outputs yet.
        Err(expression::Error::Evaluation { .. })
            if parsed.references().iter().any(|name| name == "steps") =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn bare(step: &Step, with: Option<Value>, basis: Basis) -> StepPlan {
    StepPlan {
        step: step.id.clone(),
        action: step.uses,
        with,
        object: None,
        touched: None,
        becomes: None,
        changes: false,
        diff: Vec::new(),
        owners: Vec::new(),
        undo: Feasibility::NotNeeded,
        basis,
        outputs: None,
    }
}

fn at_step(step: &Step, failure: Failure) -> Failure {
    Failure {
        cause: format!("{}: {}", step_named(&step.id), failure.cause),
        ..failure
    }
}

fn bad_expression(word: &str, step: &Step, error: &expression::Error) -> Failure {
    let cause = format!("`{word}` of {}: {error}", step_named(&step.id));
    Failure::new("expression", cause)
}
