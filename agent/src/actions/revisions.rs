//! Which older template of a Deployment is meant by `previous`, `revision:N`, an image, a tag or a digest.
//!
//! `previous` is the next-lower revision than the one that runs, as `kubectl rollout undo` has it. It differs from cluster
//! to cluster, which is why a plan names the image it found.

use aldis_core::canonical;
use aldis_core::ids::Digest;
use aldis_core::outcome::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::images;

/// One revision that the cluster still holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number, which rises with each rollout.
    pub number: i64,
    /// Its pod template, without what the controller adds.
    pub template: Value,
    /// When its ReplicaSet was made, in seconds since 1970; none where that is not known.
    pub created: Option<i64>,
}

/// A Deployment's revisions, with the one that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// `NAMESPACE/NAME`, for messages.
    pub of: String,
    /// What the Deployment wants to run.
    pub current: Value,
    /// Every revision that is kept, in any order.
    pub revisions: Vec<Revision>,
}

impl History {
    /// The revision that `to` names.
    pub fn choose(&self, to: &str) -> Result<&Revision, Failure> {
        match (to, to.strip_prefix("revision:")) {
            ("previous", _) => self.previous(),
            (_, Some(number)) => self.numbered(number),
            (image, None) => self.running(image),
        }
    }

    /// Number of the revision that runs; none while the controller has not recorded it.
    pub fn current_number(&self) -> Option<i64> {
        let wanted = hash(&self.current);
        let same = |revision: &&Revision| hash(&revision.template) == wanted;
        self.newest(same).map(|revision| revision.number)
    }

    fn previous(&self) -> Result<&Revision, Failure> {
        let current = self.current_number().unwrap_or(i64::MAX);
        self.newest(|revision| revision.number < current)
            .ok_or_else(|| {
                let cause = format!("Deployment {} has no earlier revision", self.of);
                self.missing(cause)
            })
    }

    fn numbered(&self, number: &str) -> Result<&Revision, Failure> {
        let wanted: i64 = number.parse().map_err(|_| {
            Failure::new("invalid", format!("`revision:{number}` is not a number"))
                .with_hint("write `previous`, `revision:7`, an image, a tag or a digest")
        })?;
        self.newest(|revision| revision.number == wanted)
            .ok_or_else(|| {
                let cause = format!("Deployment {} has no revision {wanted}", self.of);
                self.missing(cause)
            })
    }

    /// The newest revision that runs `image`; what runs already counts first, so that nothing moves.
    fn running(&self, image: &str) -> Result<&Revision, Failure> {
        let current = hash(&self.current);
        let runs = |revision: &&Revision| images::runs(image, &revision.template);
        self.newest(|revision| runs(revision) && hash(&revision.template) == current)
            .or_else(|| self.newest(runs))
            .ok_or_else(|| {
                let cause = format!("no revision of Deployment {} runs `{image}`", self.of);
                self.missing(cause)
            })
    }

    fn newest(&self, holds: impl Fn(&&Revision) -> bool) -> Option<&Revision> {
        self.revisions
            .iter()
            .filter(holds)
            .max_by_key(|revision| revision.number)
    }

    /// A wrong number or image is the commonest mistake, so the answer lists what there is.
    fn missing(&self, cause: String) -> Failure {
        let mut known: Vec<_> = self.revisions.iter().collect();
        known.sort_by_key(|revision| std::cmp::Reverse(revision.number));
        let evidence = known.iter().map(|revision| {
            let images = images::of_template(&revision.template).join(", ");
            format!("revision {} runs {images}", revision.number)
        });
        Failure::new("notFound", cause).with_evidence(evidence.collect())
    }
}

/// What drift is judged on: SHA-256 of the pod template. A plan has it sealed ([`super::redact::Key::sealed`]).
pub fn hash(template: &Value) -> Digest {
    canonical::digest(template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(image: &str) -> Value {
        json!({"spec": {"containers": [{"name": "checkout", "image": image}]}})
    }

    fn revision(number: i64, image: &str) -> Revision {
        Revision {
            number,
            template: template(image),
            created: None,
        }
    }

    fn history() -> History {
        History {
            of: "shop/checkout".into(),
            current: template("checkout:v3"),
            revisions: vec![
                revision(9, "checkout:v3"),
                revision(4, "checkout:v1"),
                revision(7, "checkout:v2"),
            ],
        }
    }

    #[test]
    fn previous_is_the_next_lower_revision() {
        assert_eq!(history().choose("previous").map(|r| r.number), Ok(7));
    }

    #[test]
    fn previous_of_an_older_template_that_runs_again_goes_further_back() {
        let history = History {
            current: template("checkout:v2"),
            ..history()
        };
        assert_eq!(history.choose("previous").map(|r| r.number), Ok(4));
    }

    #[test]
    fn a_revision_is_named_by_number_image_or_tag() {
        for to in ["revision:4", "checkout:v1", "v1"] {
            assert_eq!(history().choose(to).map(|r| r.number), Ok(4), "{to}");
        }
    }

    #[test]
    fn of_two_revisions_with_the_image_the_one_that_runs_is_meant() {
        let mut history = history();
        let mut other = template("checkout:v3");
        other["metadata"] = json!({"labels": {"config": "2"}});
        history.revisions.push(Revision {
            number: 12,
            template: other,
            created: None,
        });
        assert_eq!(history.choose("v3").map(|r| r.number), Ok(9));
    }

    #[test]
    fn what_does_not_exist_is_answered_with_what_does() {
        let failure = history().choose("revision:5").unwrap_err();
        assert_eq!(failure.kind, "notFound");
        assert_eq!(failure.cause, "Deployment shop/checkout has no revision 5");
        assert_eq!(
            failure.evidence,
            [
                "revision 9 runs checkout:v3",
                "revision 7 runs checkout:v2",
                "revision 4 runs checkout:v1"
            ]
        );
        assert!(history().choose("v9").is_err());
        assert_eq!(history().choose("revision:x").unwrap_err().kind, "invalid");
    }
}
