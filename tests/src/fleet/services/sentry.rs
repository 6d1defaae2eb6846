//! The fixture in Sentry's place: what a runbook asks about the errors of a release of the organization `acme`.
//!
//! | path below `/api/0/organizations/acme` | document |
//! |---|---|
//! | `/issues/?query=release:R` | issues first seen in a release |
//! | `/events-stats/?query=release:R` | errors a minute of a release, over the last ten minutes |
//! | `/releases/R/` | the release |
//!
//! Of a search only `release:R` is read; a query without one gets what there is of every release.

use serde_json::{Value, json};

use super::fixture::{Fixture, Refusal, Shape, document};
use super::place::Place;

const BELOW: &str = "/api/0/organizations/acme/";

const SHAPE: Shape = Shape {
    server: "sentry-fixture",
    variable: "ALDIS_SENTRY_FIXTURE",
    answer,
    refusal,
    too_many: &[
        ("x-sentry-rate-limit-limit", "40"),
        ("x-sentry-rate-limit-remaining", "0"),
    ],
};

pub(super) async fn start(place: &Place) -> anyhow::Result<Fixture> {
    Fixture::start(place, "sentry", SHAPE).await
}

fn answer(path: &str, query: &str) -> Option<Value> {
    let parts: Vec<&str> = path.strip_prefix(BELOW)?.split('/').collect();
    match parts.as_slice() {
        ["issues", ""] => Some(issues(release(query).as_deref())),
        ["events-stats", ""] => stats(release(query).as_deref()),
        ["releases", version, ""] => found(releases(), "version", version),
        _ => None,
    }
}

fn issues(release: Option<&str>) -> Value {
    let mut all = document(include_str!("fixtures/sentry/issues.json"));
    if let (Some(release), Some(list)) = (release, all.as_array_mut()) {
        list.retain(|one| one["firstRelease"]["version"] == release);
    }
    all
}

fn stats(release: Option<&str>) -> Option<Value> {
    let all = document(include_str!("fixtures/sentry/events-stats.json"));
    all.get(release.unwrap_or("")).cloned()
}

fn releases() -> Value {
    document(include_str!("fixtures/sentry/releases.json"))
}

/// The release that a search is for: `query=release:R`, with the colon escaped or not.
fn release(query: &str) -> Option<String> {
    let search = query
        .split('&')
        .find_map(|part| part.strip_prefix("query="))?;
    let search = search
        .replace("%3A", ":")
        .replace("%20", " ")
        .replace('+', " ");
    let word = search
        .split(' ')
        .find_map(|word| word.strip_prefix("release:"))?;
    Some(word.to_owned())
}

fn found(list: Value, key: &str, value: &str) -> Option<Value> {
    let mut all = list.as_array()?.iter();
    all.find(|one| one[key] == value).cloned()
}

fn refusal(why: Refusal) -> Value {
    let detail = match why {
        Refusal::NoToken => "Authentication credentials were not provided.",
        Refusal::WrongToken => "Invalid token",
        Refusal::Forbidden => "You do not have permission to perform this action.",
        Refusal::TooMany => "You are attempting to use this endpoint too frequently.",
        Refusal::NotFound => "The requested resource does not exist",
    };
    json!({"detail": detail})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, query: &str) -> Option<Value> {
        answer(&format!("{BELOW}{path}"), query)
    }

    #[test]
    fn the_bad_release_brought_an_issue_and_errors_and_the_good_one_did_not() {
        let issues = |release: &str| ask("issues/", &format!("query=release%3A{release}")).unwrap();
        assert_eq!(issues("v1.42.0")[0]["shortId"], "SHOP-7Q");
        assert_eq!(issues("v1.41.0"), json!([]));
        let errors = |release: &str| -> u64 {
            let stats = ask("events-stats/", &format!("query=release:{release}")).unwrap();
            let points = stats["data"].as_array().unwrap();
            points
                .iter()
                .map(|point| point[1][0]["count"].as_u64().unwrap())
                .sum()
        };
        assert!(errors("v1.42.0") > 100 * errors("v1.41.0"));
    }

    #[test]
    fn a_release_is_found_by_its_version() {
        assert_eq!(ask("releases/v1.42.0/", "").unwrap()["newGroups"], 1);
        assert_eq!(ask("releases/v9/", ""), None);
        assert_eq!(answer("/api/0/organizations/other/issues/", ""), None);
    }
}
