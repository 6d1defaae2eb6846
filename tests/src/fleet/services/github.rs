//! The fixture in GitHub's place: what a runbook asks about a release of the repository `acme/shop`.
//!
//! | path below `/repos/acme/shop` | document |
//! |---|---|
//! | `/deployments?environment=E` | deployments, newest first |
//! | `/deployments/ID/statuses` | states of one |
//! | `/commits/REF/status` | combined status of a commit or tag |
//! | `/compare/BASE...HEAD` | commits between two releases |
//! | `/commits/REF/pulls` | pull requests with a commit |
//! | `/releases`, `/releases/latest`, `/releases/tags/TAG` | releases |

use serde_json::{Value, json};

use super::fixture::{Manner, Refusal, document, found, parameter, with};

const BELOW: &str = "/repos/acme/shop";

pub(super) const MANNER: Manner = Manner {
    name: "github",
    answer,
    refusal,
    too_many: &[
        ("x-ratelimit-limit", "5000"),
        ("x-ratelimit-remaining", "0"),
    ],
};

fn answer(path: &str, query: &str) -> Option<Value> {
    let parts: Vec<&str> = path.strip_prefix(BELOW)?.split('/').skip(1).collect();
    match parts.as_slice() {
        ["deployments"] => Some(deployments(query)),
        ["deployments", id, "statuses"] => statuses(id),
        ["commits", reference, "status"] => status(reference),
        ["commits", reference, "pulls"] => Some(pulls(reference)),
        ["compare", span] => compare(span),
        ["releases"] => Some(releases()),
        ["releases", "latest"] => releases().get(0).cloned(),
        ["releases", "tags", tag] => found(releases(), "tag_name", tag),
        _ => None,
    }
}

fn deployments(query: &str) -> Value {
    let all = read(include_str!("fixtures/github/deployments.json"));
    match parameter(query, "environment") {
        Some(wanted) => with(all, "environment", wanted).into(),
        None => all,
    }
}

fn statuses(id: &str) -> Option<Value> {
    let all = read(include_str!("fixtures/github/statuses.json"));
    all.get(id).cloned()
}

/// By commit, or by the tag of a release.
fn status(reference: &str) -> Option<Value> {
    let all = read(include_str!("fixtures/github/commits.json"));
    let commit = commit(reference);
    found(all, "sha", &commit)
}

fn pulls(reference: &str) -> Value {
    let all = read(include_str!("fixtures/github/pulls.json"));
    with(all, "merge_commit_sha", &commit(reference)).into()
}

/// The one span that there is a document for.
fn compare(span: &str) -> Option<Value> {
    let between = read(include_str!("fixtures/github/compare.json"));
    let (base, head) = span.split_once("...")?;
    let known = between["base_commit"]["sha"] == commit(base).as_str()
        && between["commits"].as_array()?.last()?["sha"] == commit(head).as_str();
    known.then_some(between)
}

fn releases() -> Value {
    read(include_str!("fixtures/github/releases.json"))
}

/// The commit that a tag means; any other word is taken for a commit.
fn commit(reference: &str) -> String {
    let release = found(releases(), "tag_name", reference);
    let commit = release
        .as_ref()
        .and_then(|one| one["target_commitish"].as_str());
    commit.unwrap_or(reference).to_owned()
}

fn read(text: &str) -> Value {
    document(text, include_str!("fixtures/github/parts.json"))
}

fn refusal(why: Refusal) -> Value {
    let (message, status) = match why {
        Refusal::NoToken => ("Requires authentication", "401"),
        Refusal::WrongToken => ("Bad credentials", "401"),
        Refusal::Forbidden => ("Resource not accessible by personal access token", "403"),
        Refusal::TooMany => ("API rate limit exceeded", "429"),
        Refusal::NotFound => ("Not Found", "404"),
    };
    json!({
        "message": message,
        "documentation_url": "https://docs.github.com/rest",
        "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::super::shapes::Shapes;
    use super::*;

    fn ask(path: &str) -> Option<Value> {
        answer(&format!("{BELOW}{path}"), "")
    }

    #[test]
    fn the_bad_release_leads_to_its_pull_request() {
        let between = ask("/compare/v1.41.0...v1.42.0").unwrap();
        let last = between["commits"][1]["sha"].as_str().unwrap().to_owned();
        let pulls = ask(&format!("/commits/{last}/pulls")).unwrap();
        assert_eq!(pulls[0]["number"], 218);
        assert_eq!(ask("/commits/v1.42.0/status").unwrap()["state"], "success");
        assert_eq!(ask("/releases/latest").unwrap()["tag_name"], "v1.42.0");
        assert_eq!(
            ask("/releases/tags/v1.41.0").unwrap()["tag_name"],
            "v1.41.0"
        );
    }

    #[test]
    fn deployments_are_chosen_by_environment_and_lead_to_their_states() {
        let path = format!("{BELOW}/deployments");
        let ours = answer(&path, "environment=production-eu-west&per_page=5").unwrap();
        assert_eq!(ours.as_array().unwrap().len(), 1);
        let states = ask(&format!("/deployments/{}/statuses", ours[0]["id"])).unwrap();
        assert_eq!(states[0]["state"], "success");
        assert_eq!(answer(&path, "").unwrap().as_array().unwrap().len(), 2);
    }

    #[test]
    fn answers_have_the_fields_and_types_that_were_recorded() {
        let shapes = Shapes::read(include_str!("fixtures/github/shapes.json"));
        for (path, endpoint) in [
            ("/deployments", "deployments"),
            ("/deployments/4201/statuses", "statuses"),
            ("/deployments/4202/statuses", "statuses"),
            ("/commits/v1.41.0/status", "status"),
            ("/commits/v1.42.0/status", "status"),
            ("/compare/v1.41.0...v1.42.0", "compare"),
            ("/commits/v1.42.0/pulls", "pulls"),
            ("/releases/tags/v1.41.0", "release"),
            ("/releases/latest", "release"),
        ] {
            let answer = ask(path).unwrap();
            assert_ne!(answer, json!([]), "{path}");
            let differences = shapes.differences(endpoint, &answer);
            assert!(differences.is_empty(), "{path}: {differences:#?}");
        }
        let differences = shapes.differences("refusal", &refusal(Refusal::NotFound));
        assert!(differences.is_empty(), "{differences:#?}");
    }

    #[test]
    fn what_is_not_there_is_not_answered() {
        for path in [
            "/compare/v1.0.0...v1.42.0",
            "/releases/tags/v9",
            "/deployments/1/statuses",
            "/x",
        ] {
            assert_eq!(ask(path), None, "{path}");
        }
        assert_eq!(answer("/repos/other/shop/releases", ""), None);
    }
}
