//! What nobody needs any more: ended jobs and plans past retention, leftovers of a crash, history.

use std::collections::BTreeSet;
use std::time::Duration;

use aldis_core::ids::PlanId;
use aldis_core::job::{JobState, Target};

use super::{Error, Term};
use crate::jobs;
use crate::records::{self, Ended, Lock, PlanHeader};
use crate::store::keys::{self, Name};
use crate::store::{Commit, Precondition, Record, Write};

/// Between two sweeps: each lists cold prefixes, which no other path reads.
const EVERY: Duration = Duration::from_secs(60);

impl Term<'_> {
    pub(super) async fn sweep_in_time(&mut self) -> Result<(), Error> {
        let now = self.parts.clock.boot_now();
        match self.memory.swept_at {
            Some(at) if now.saturating_sub(at) < EVERY => return Ok(()),
            _ => self.memory.swept_at = Some(now),
        }
        self.free_leftover_locks().await?;
        self.clear_leftovers().await?;
        let kept = self.drop_ended().await?;
        self.drop_plans(&kept).await?;
        // History is kept for one period, so that a watch that was cut off briefly can resume.
        let revision = std::mem::replace(
            &mut self.memory.swept_revision,
            self.parts.store.read_revision().await?,
        );
        if revision.0 > 0 {
            self.parts.store.compact(revision).await?;
        }
        Ok(())
    }

    /// A lock whose job has left the hot prefix: its leader crashed before it freed it.
    async fn free_leftover_locks(&self) -> Result<(), Error> {
        let hot: BTreeSet<_> = jobs::headers(&self.parts.view)?
            .into_iter()
            .map(|header| header.id)
            .collect();
        let held = self.parts.store.list(keys::LOCKS).await?.records;
        let mut gone = BTreeSet::new();
        for record in &held {
            let lock: Lock = records::read(record)?;
            if !hot.contains(&lock.job)
                && self
                    .parts
                    .store
                    .get(&keys::ended(lock.job.as_str()))
                    .await?
                    .is_some()
            {
                gone.insert(lock.job);
            }
        }
        if !gone.is_empty() {
            self.free(|lock| gone.contains(&lock.job)).await?;
        }
        Ok(())
    }

    /// Records under a job that has no header.
    async fn clear_leftovers(&self) -> Result<(), Error> {
        let names = self.parts.view.read(|all| {
            crate::view::under(all, keys::JOBS)
                .filter_map(|r| r.key.name())
                .collect::<Vec<_>>()
        });
        let headed = |name: &Name| match name {
            Name::JobHeader { job } => Some(job.clone()),
            _ => None,
        };
        let heads: BTreeSet<String> = names.iter().filter_map(headed).collect();
        let mut loose = BTreeSet::new();
        for name in names {
            if let Name::JobTarget { job, .. } | Name::JobRequest { job, .. } = name
                && !heads.contains(&job)
            {
                loose.insert(job);
            }
        }
        for job in loose {
            self.clear(&job).await?;
        }
        Ok(())
    }

    /// Drops ended jobs past retention; the plans of those that stay.
    async fn drop_ended(&self) -> Result<BTreeSet<PlanId>, Error> {
        let mut kept = BTreeSet::new();
        let mut dropped = Vec::new();
        for record in self.parts.store.list(keys::ENDED).await?.records {
            let ended: Ended = records::read(&record)?;
            let age = self.now().since(ended.header.ended_at.unwrap_or_default());
            let open = ended.targets.values().any(Target::is_open_question);
            if age > self.parts.settings.retention && !open {
                dropped.push(deletion(&record));
            } else {
                kept.insert(ended.header.plan);
            }
        }
        for header in jobs::headers(&self.parts.view)? {
            debug_assert!(header.state != JobState::Succeeded || header.ended_at.is_some());
            kept.insert(header.plan);
        }
        if !dropped.is_empty() {
            self.writer()
                .fenced()?
                .commit_group(&*self.parts.store, dropped)
                .await?;
        }
        Ok(kept)
    }

    /// A plan that no job names goes in two steps: first it is marked, so that no submission passes;
    /// a sweep later it is deleted, if still nothing names it.
    async fn drop_plans(&self, kept: &BTreeSet<PlanId>) -> Result<(), Error> {
        for record in self.parts.store.list(keys::PLANS).await?.records {
            if !matches!(record.key.name(), Some(Name::PlanHeader { .. })) {
                continue;
            }
            let mut plan: PlanHeader = records::read(&record)?;
            if kept.contains(&plan.id) || self.now() < plan.scope.expires_at {
                continue;
            }
            if plan.expired {
                self.delete_plan(&plan.id).await?;
            } else {
                plan.expired = true;
                let commit = Commit {
                    preconditions: vec![Precondition::Modified {
                        key: record.key.clone(),
                        at: record.modified,
                    }],
                    writes: vec![Write::put(record.key, records::write(&plan))],
                };
                self.writer()
                    .fenced()?
                    .commit(&*self.parts.store, commit)
                    .await?;
            }
        }
        Ok(())
    }

    async fn delete_plan(&self, plan: &PlanId) -> Result<(), Error> {
        let records = self
            .parts
            .store
            .list(&keys::plan_prefix(plan.as_str()))
            .await?
            .records;
        let commits = records.iter().map(deletion).collect();
        self.writer()
            .fenced()?
            .commit_group(&*self.parts.store, commits)
            .await?;
        Ok(())
    }
}

fn deletion(record: &Record) -> Commit {
    Commit {
        preconditions: vec![Precondition::Modified {
            key: record.key.clone(),
            at: record.modified,
        }],
        writes: vec![Write::delete(record.key.clone())],
    }
}
