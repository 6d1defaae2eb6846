//! Where each record is kept: the one place that spells a key.
//!
//! ```text
//! /aldis/v1/meta/{format,incarnation,halted}
//! /aldis/v1/{leader,epoch}
//! /aldis/v1/replicas/<id>
//! /aldis/v1/fleet/<region>/<cluster>                 and …/session
//! /aldis/v1/plans/<plan>/header                      and …/parts/<region>/<cluster>
//! /aldis/v1/jobs/<job>/header                        and …/targets/<region>/<cluster>, …/requests/<id>
//! /aldis/v1/ended/<job>
//! /aldis/v1/locks/<cluster uid>/<kind>/<ns>/<name>
//! /aldis/v1/runbooks/<name>/<version>
//! ```
//!
//! Every key parses back to exactly the names it was made of, whatever they hold: `/` and `%` inside
//! a name are written `%2F` and `%25`, and the number of names under each prefix is fixed. So no
//! cluster called `session` and no kind called `apps/Deployment` can reach another record. Prefixes
//! end in `/`: listing job `ab` never shows job `abc`.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

/// What every key of ours begins with. The number changes when the layout does.
pub const ROOT: &str = "/aldis/v1/";
/// All jobs that have not left the hot prefix.
pub const JOBS: &str = "/aldis/v1/jobs/";
/// What is known of each cluster, and its session.
pub const FLEET: &str = "/aldis/v1/fleet/";
/// Who holds which object.
pub const LOCKS: &str = "/aldis/v1/locks/";
/// The replicas that live.
pub const REPLICAS: &str = "/aldis/v1/replicas/";
/// Plans.
pub const PLANS: &str = "/aldis/v1/plans/";
/// Jobs that ended.
pub const ENDED: &str = "/aldis/v1/ended/";
/// Runbooks pushed by people.
pub const RUNBOOKS: &str = "/aldis/v1/runbooks/";
/// Format, incarnation, and whether the store went back.
pub const META: &str = "/aldis/v1/meta/";

/// A key of the store. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// A key as the store spells it. To name a record use this module's functions.
    pub fn raw(key: impl AsRef<str>) -> Self {
        Self(key.as_ref().into())
    }

    /// Whether it names what is known of a cluster: of all that stands under [`FLEET`], not the sessions. Without
    /// taking the key apart, since whoever looks at a fleet asks this of every key.
    pub fn is_fleet(&self) -> bool {
        let names = self.0.strip_prefix(FLEET);
        names.is_some_and(|names| names.bytes().filter(|byte| *byte == b'/').count() == 1)
    }

    /// As the store spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it names, or `None` for a key that is none of ours.
    pub fn name(&self) -> Option<Name> {
        parse(self.as_str())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What a key names. Targets are `region/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields are the names in the table above")]
pub enum Name {
    Leader,
    Epoch,
    Incarnation,
    Format,
    Halted,
    Replica {
        id: String,
    },
    Fleet {
        target: String,
    },
    Session {
        target: String,
    },
    PlanHeader {
        plan: String,
    },
    PlanPart {
        plan: String,
        target: String,
    },
    JobHeader {
        job: String,
    },
    JobTarget {
        job: String,
        target: String,
    },
    JobRequest {
        job: String,
        id: String,
    },
    Ended {
        job: String,
    },
    Lock {
        cluster_uid: String,
        kind: String,
        namespace: String,
        name: String,
    },
    Runbook {
        name: String,
        version: String,
    },
}

/// Who leads. Leased.
pub fn leader() -> Key {
    Key::raw("/aldis/v1/leader")
}

/// Number of the last leader's term. Permanent.
pub fn epoch() -> Key {
    Key::raw("/aldis/v1/epoch")
}

/// Which life of the store this is. Raised by an operator after a restore.
pub fn incarnation() -> Key {
    Key::raw("/aldis/v1/meta/incarnation")
}

/// Version of the stored records.
pub fn format() -> Key {
    Key::raw("/aldis/v1/meta/format")
}

/// That the store was seen to go back in time.
pub fn halted() -> Key {
    Key::raw("/aldis/v1/meta/halted")
}

/// One replica. Leased.
pub fn replica(id: &str) -> Key {
    join(REPLICAS, &[id])
}

/// What is known of one cluster.
pub fn fleet(target: &str) -> Key {
    let (region, cluster) = split(target);
    join(FLEET, &[region, cluster])
}

/// The session of one cluster's agent.
pub fn session(target: &str) -> Key {
    let (region, cluster) = split(target);
    join(FLEET, &[region, cluster, "session"])
}

/// A plan's header.
pub fn plan_header(plan: &str) -> Key {
    join(PLANS, &[plan, "header"])
}

/// A plan's part for one target.
pub fn plan_part(plan: &str, target: &str) -> Key {
    let (region, cluster) = split(target);
    join(PLANS, &[plan, "parts", region, cluster])
}

/// Prefix of everything of one plan.
pub fn plan_prefix(plan: &str) -> String {
    format!("{PLANS}{}/", escape(plan))
}

/// A job's header.
pub fn job_header(job: &str) -> Key {
    join(JOBS, &[job, "header"])
}

/// A job's record of one target.
pub fn job_target(job: &str, target: &str) -> Key {
    let (region, cluster) = split(target);
    join(JOBS, &[job, "targets", region, cluster])
}

/// A request that somebody made of a job.
pub fn job_request(job: &str, id: &str) -> Key {
    join(JOBS, &[job, "requests", id])
}

/// Prefix of everything of one job.
pub fn job_prefix(job: &str) -> String {
    format!("{JOBS}{}/", escape(job))
}

/// Prefix of all requests that were made of a job.
pub fn job_requests(job: &str) -> String {
    format!("{JOBS}{}/requests/", escape(job))
}

/// That a job ended.
pub fn ended(job: &str) -> Key {
    join(ENDED, &[job])
}

/// Who holds one object of one cluster. The namespace is empty for objects without one.
pub fn lock(cluster_uid: &str, kind: &str, namespace: &str, name: &str) -> Key {
    join(LOCKS, &[cluster_uid, kind, namespace, name])
}

/// A runbook's body.
pub fn runbook(name: &str, version: &str) -> Key {
    join(RUNBOOKS, &[name, version])
}

/// What a key names, or `None` for a key that is none of ours.
pub fn parse(key: &str) -> Option<Name> {
    let parts: Vec<&str> = key.strip_prefix(ROOT)?.split('/').collect();
    Some(match parts.as_slice() {
        ["leader"] => Name::Leader,
        ["epoch"] => Name::Epoch,
        ["meta", "incarnation"] => Name::Incarnation,
        ["meta", "format"] => Name::Format,
        ["meta", "halted"] => Name::Halted,
        ["replicas", id] => Name::Replica { id: unescape(id)? },
        ["fleet", region, cluster] => Name::Fleet {
            target: target(region, cluster)?,
        },
        ["fleet", region, cluster, "session"] => Name::Session {
            target: target(region, cluster)?,
        },
        ["plans", plan, "header"] => Name::PlanHeader {
            plan: unescape(plan)?,
        },
        ["plans", plan, "parts", region, cluster] => Name::PlanPart {
            plan: unescape(plan)?,
            target: target(region, cluster)?,
        },
        ["jobs", job, "header"] => Name::JobHeader {
            job: unescape(job)?,
        },
        ["jobs", job, "targets", region, cluster] => Name::JobTarget {
            job: unescape(job)?,
            target: target(region, cluster)?,
        },
        ["jobs", job, "requests", id] => Name::JobRequest {
            job: unescape(job)?,
            id: unescape(id)?,
        },
        ["ended", job] => Name::Ended {
            job: unescape(job)?,
        },
        ["locks", cluster_uid, kind, namespace, name] => Name::Lock {
            cluster_uid: unescape(cluster_uid)?,
            kind: unescape(kind)?,
            namespace: unescape(namespace)?,
            name: unescape(name)?,
        },
        ["runbooks", name, version] => Name::Runbook {
            name: unescape(name)?,
            version: unescape(version)?,
        },
        _ => return None,
    })
}

/// The first key behind all keys with a prefix: the end of its range.
pub(crate) fn prefix_end(prefix: &str) -> Option<Vec<u8>> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn join(prefix: &str, names: &[&str]) -> Key {
    let names: Vec<Cow<'_, str>> = names.iter().map(|name| escape(name)).collect();
    Key::raw(format!("{prefix}{}", names.join("/")))
}

/// A target is `region/cluster` by its type in core; what has no `/` is a region with no cluster,
/// which no record has.
fn split(target: &str) -> (&str, &str) {
    target.split_once('/').unwrap_or((target, ""))
}

fn target(region: &str, cluster: &str) -> Option<String> {
    Some(format!("{}/{}", unescape(region)?, unescape(cluster)?))
}

fn escape(name: &str) -> Cow<'_, str> {
    if name.contains(['/', '%']) {
        Cow::Owned(name.replace('%', "%25").replace('/', "%2F"))
    } else {
        Cow::Borrowed(name)
    }
}

fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut whole = parts.next()?.to_owned();
    for part in parts {
        let (character, rest) = if let Some(rest) = part.strip_prefix("2F") {
            ('/', rest)
        } else {
            ('%', part.strip_prefix("25")?)
        };
        whole.push(character);
        whole.push_str(rest);
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that try to be something else.
    const NASTY: [&str; 9] = [
        "a", "session", "header", "a/b", "a%2Fb", "%", "../x", "", "größe",
    ];

    #[test]
    fn every_key_parses_back_to_its_names() {
        for one in NASTY {
            for two in NASTY {
                let target = format!("eu/{two}");
                for (key, name) in all(one, &target, two) {
                    assert_eq!(key.name().as_ref(), Some(&name), "{key}");
                    assert_eq!(key.is_fleet(), matches!(name, Name::Fleet { .. }), "{key}");
                }
            }
        }
    }

    #[test]
    fn no_two_names_share_a_key() {
        let mut seen = std::collections::BTreeMap::new();
        for one in NASTY {
            for two in NASTY {
                for (key, name) in all(one, &format!("eu/{two}"), two) {
                    if let Some(other) = seen.insert(key.clone(), name.clone()) {
                        assert_eq!(other, name, "{key}");
                    }
                }
            }
        }
    }

    #[test]
    fn keys_of_one_object_stand_together() {
        let prefix = job_prefix("ab");
        for key in [
            job_header("ab"),
            job_target("ab", "eu/x"),
            job_request("ab", "1"),
        ] {
            assert!(key.as_str().starts_with(&prefix), "{key}");
        }
        assert!(!job_header("abc").as_str().starts_with(&prefix));
    }

    #[test]
    fn what_is_not_ours_has_no_name() {
        for key in [
            "",
            "/aldis/v1/",
            "/aldis/v2/leader",
            "/aldis/v1/fleet/eu",
            "/aldis/v1/fleet/eu/a/b",
            "/aldis/v1/ended/a%zz",
        ] {
            assert_eq!(parse(key), None, "{key}");
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_of_it() {
        assert_eq!(prefix_end("a/"), Some(b"a0".to_vec()));
        assert_eq!(prefix_end(""), None);
    }

    fn all(one: &str, target: &str, two: &str) -> Vec<(Key, Name)> {
        let (one_, target_, two_) = (one.to_owned(), target.to_owned(), two.to_owned());
        vec![
            (leader(), Name::Leader),
            (epoch(), Name::Epoch),
            (incarnation(), Name::Incarnation),
            (format(), Name::Format),
            (halted(), Name::Halted),
            (replica(one), Name::Replica { id: one_.clone() }),
            (
                fleet(target),
                Name::Fleet {
                    target: target_.clone(),
                },
            ),
            (
                session(target),
                Name::Session {
                    target: target_.clone(),
                },
            ),
            (plan_header(one), Name::PlanHeader { plan: one_.clone() }),
            (
                plan_part(one, target),
                Name::PlanPart {
                    plan: one_.clone(),
                    target: target_.clone(),
                },
            ),
            (job_header(one), Name::JobHeader { job: one_.clone() }),
            (
                job_target(one, target),
                Name::JobTarget {
                    job: one_.clone(),
                    target: target_,
                },
            ),
            (
                job_request(one, two),
                Name::JobRequest {
                    job: one_.clone(),
                    id: two_.clone(),
                },
            ),
            (ended(one), Name::Ended { job: one_.clone() }),
            (
                lock(one, two, one, two),
                Name::Lock {
                    cluster_uid: one_.clone(),
                    kind: two_.clone(),
                    namespace: one_.clone(),
                    name: two_.clone(),
                },
            ),
            (
                runbook(one, two),
                Name::Runbook {
                    name: one_,
                    version: two_,
                },
            ),
        ]
    }
}
