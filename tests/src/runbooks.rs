//! Runbooks of the stories: the built-in ones with other times or waves, so that they stay what a user has.

/// `rollback-service` whose canary soaks for seconds.
pub fn rollback() -> String {
    named(ROLLBACK, "rollback-service", "rollback-quickly")
        .replace(
            "for: 30s, settle: 5s, every: 5s",
            "for: 3s, settle: 1s, every: 1s",
        )
        .replace("minSamples: 60", "minSamples: 20")
}

/// `rollback-service` whose canary soaks for so long that the leader writes down how far it came: each 10 s.
pub fn rollback_with_a_long_soak() -> String {
    rollback().replace("for: 3s", "for: 14s")
}

/// `rollback-service` in one wave, without a soak.
pub fn rollback_at_once() -> String {
    let text = named(ROLLBACK, "rollback-service", "rollback-at-once");
    let (before, rest) = text.split_once("    waves:\n").expect("it has waves");
    let (_, after) = rest
        .split_once("    maxFailures:")
        .expect("it has a budget");
    format!(
        "{before}    waves:\n      - {{name: all, pick: {{percent: 100}}, maxParallel: 8}}\n    maxFailures:{after}"
    )
}

/// `deploy-image` as it is.
pub const DEPLOY: &str = include_str!("../../runbooks/deploy-image.yaml");

const ROLLBACK: &str = include_str!("../../runbooks/rollback-service.yaml");

/// `deploy-image` under another name, changed.
pub fn deploy(name: &str, changes: &[(&str, &str)]) -> String {
    let mut text = named(DEPLOY, "deploy-image", name);
    for (from, to) in changes {
        assert!(text.contains(from), "the runbook has no `{from}`");
        text = text.replace(from, to);
    }
    text
}

fn named(text: &str, old: &str, new: &str) -> String {
    text.replace(&format!("name: {old}"), &format!("name: {new}"))
}
