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

use super::fixture::{Manner, Refusal, document, found, parameter};

const BELOW: &str = "/api/0/organizations/acme/";

pub(super) const MANNER: Manner = Manner {
    name: "sentry",
    answer,
    refusal,
    too_many: &[
        ("x-sentry-rate-limit-limit", "40"),
        ("x-sentry-rate-limit-remaining", "0"),
    ],
};

fn answer(path: &str, query: &str) -> Option<Value> {
    let parts: Vec<&str> = path.strip_prefix(BELOW)?.split('/').collect();
    match parts.as_slice() {
        ["issues", ""] => Some(issues(release(query).as_deref())),
        ["events-stats", ""] => stats(release(query).as_deref()),
        ["releases", version, ""] => found(releases(), "version", version),
        _ => None,
    }
}

/// Kept by release: a list of issues does not say in which each was first seen.
fn issues(release: Option<&str>) -> Value {
    let all = read(include_str!("fixtures/sentry/issues.json"));
    let of_releases = all.as_object().into_iter().flatten();
    let wanted = of_releases.filter(|(first, _)| release.is_none_or(|release| release == *first));
    wanted
        .filter_map(|(_, issues)| issues.as_array())
        .flatten()
        .cloned()
        .collect()
}

fn stats(release: Option<&str>) -> Option<Value> {
    let all = read(include_str!("fixtures/sentry/events-stats.json"));
    all.get(release.unwrap_or("")).cloned()
}

fn releases() -> Value {
    read(include_str!("fixtures/sentry/releases.json"))
}

/// The release that a search is for: `query=release:R`, with the colon escaped or not.
fn release(query: &str) -> Option<String> {
    let search = parameter(query, "query")?
        .replace("%3A", ":")
        .replace("%20", " ")
        .replace('+', " ");
    let word = search
        .split(' ')
        .find_map(|word| word.strip_prefix("release:"))?;
    Some(word.to_owned())
}

fn read(text: &str) -> Value {
    document(text, include_str!("fixtures/sentry/parts.json"))
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
    use super::super::shapes::Shapes;
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
    fn answers_have_the_fields_and_types_of_the_real_ones() {
        let shapes = Shapes::read(include_str!("fixtures/sentry/shapes.json"));
        for (path, query, endpoint) in [
            ("issues/", "", "issues"),
            ("releases/v1.41.0/", "", "release"),
            ("releases/v1.42.0/", "", "release"),
            ("events-stats/", "", "stats"),
            ("events-stats/", "query=release:v1.41.0", "stats"),
            ("events-stats/", "query=release:v1.42.0", "stats"),
        ] {
            let answer = ask(path, query).unwrap();
            assert_ne!(answer, json!([]), "{path}?{query}");
            let differences = shapes.differences(endpoint, &answer);
            assert!(differences.is_empty(), "{path}?{query}: {differences:#?}");
        }
    }

    #[test]
    fn a_release_is_found_by_its_version() {
        assert_eq!(ask("releases/v1.42.0/", "").unwrap()["newGroups"], 1);
        assert_eq!(ask("releases/v9/", ""), None);
        assert_eq!(answer("/api/0/organizations/other/issues/", ""), None);
    }
}
