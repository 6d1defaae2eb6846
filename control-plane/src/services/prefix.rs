//! What people type of an id: enough of its beginning that only one is meant.

use aldis_core::ids::{JobId, PlanId};

use super::{Error, Services};
use crate::jobs;
use crate::store::Record;
use crate::store::keys::{self, Name};

/// Shorter ones name half of everything, and cost a listing of it.
const SHORTEST: usize = 4;

/// A whole id: a letter, a hyphen, 32 digits.
const WHOLE: usize = 34;

impl Services {
    /// The plan that is meant.
    pub(super) async fn plan_id(&self, typed: &str) -> Result<PlanId, Error> {
        let typed = complete("plan", "p-", typed)?;
        if typed.len() == WHOLE {
            return Ok(PlanId::new(typed));
        }
        let listed = self
            .0
            .store
            .list(&format!("{}{typed}", keys::PLANS))
            .await?;
        let found = listed
            .records
            .iter()
            .filter_map(|record| match record.key.name() {
                Some(Name::PlanHeader { plan }) => Some(plan),
                _ => None,
            });
        only("plan", &typed, found.collect()).map(PlanId::new)
    }

    /// The job that is meant, running or ended.
    pub(super) async fn job_id(&self, typed: &str) -> Result<JobId, Error> {
        let typed = complete("job", "j-", typed)?;
        if typed.len() == WHOLE {
            return Ok(JobId::new(typed));
        }
        let hot = self.0.view.read(jobs::ids).into_iter();
        let hot = hot.map(|id| id.to_string());
        let mut found: Vec<String> = hot.filter(|id| id.starts_with(&typed)).collect();
        if found.is_empty() {
            // One that was just submitted to another replica may not be in this view yet.
            found = self.stored_jobs(&format!("{}{typed}", keys::JOBS)).await?;
        }
        found.extend(self.stored_jobs(&format!("{}{typed}", keys::ENDED)).await?);
        found.sort();
        found.dedup();
        only("job", &typed, found).map(JobId::new)
    }
}

impl Services {
    async fn stored_jobs(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let listed = self.0.store.list(prefix).await?;
        let job = |record: &Record| match record.key.name()? {
            Name::JobHeader { job } | Name::Ended { job } => Some(job),
            _ => None,
        };
        Ok(listed.records.iter().filter_map(job).collect())
    }
}

fn complete(what: &str, letter: &str, typed: &str) -> Result<String, Error> {
    let digits = typed.strip_prefix(letter).unwrap_or(typed);
    let readable = digits.chars().all(|c| c.is_ascii_hexdigit()) && digits.len() <= WHOLE - 2;
    if !readable {
        return Err(Error::usage(format!(
            "`{typed}` is no {what} id: they read `{letter}` and up to 32 hexadecimal digits"
        )));
    }
    if digits.len() < SHORTEST {
        return Err(Error::usage(format!(
            "`{typed}` is too short for a {what} id: type at least {SHORTEST} digits"
        )));
    }
    Ok(format!("{letter}{}", digits.to_ascii_lowercase()))
}

fn only(what: &str, typed: &str, found: Vec<String>) -> Result<String, Error> {
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let list = match what {
                "job" => "see `aldis list`",
                _ => "make another with `aldis plan`; plans that were not submitted expire",
            };
            Err(Error::not_found(format!("there is no {what} `{typed}`")).hint(list))
        }
        several => {
            let shown: Vec<&str> = several.iter().take(5).map(String::as_str).collect();
            Err(
                Error::usage(format!("`{typed}` may mean {} {what}s", several.len()))
                    .hint(format!("type more of it: {}", shown.join(", "))),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_or_without_its_letter_and_in_any_case() {
        assert_eq!(complete("job", "j-", "j-00FF").unwrap(), "j-00ff");
        assert_eq!(complete("job", "j-", "00ff").unwrap(), "j-00ff");
    }

    #[test]
    fn too_little_and_no_digits_are_said_so() {
        for typed in ["", "j-", "abc", "j-xyzw", "../header", &"a".repeat(33)] {
            assert!(complete("job", "j-", typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn several_are_listed_and_none_is_not_found() {
        let two = only("job", "j-00", vec!["j-001".into(), "j-002".into()]).unwrap_err();
        assert!(two.hint.unwrap().contains("j-002"));
        let none = only("plan", "p-00", vec![]).unwrap_err();
        assert_eq!(none.kind, super::super::Kind::NotFound);
    }
}
