//! Runbooks of every shape that the leader decides about, drawn from a seed.

use serde_json::{Value, json};

use crate::chance::Chance;

/// Draws a runbook, as a file would hold it.
pub(crate) fn draw(chance: &Chance) -> String {
    let policies = [
        ("change", "undo"),
        ("change", "undo"),
        ("change", "halt"),
        ("remedy", "continue"),
        ("remedy", "halt"),
    ];
    let (direction, on_failure) = *chance.one_of(&policies);
    let runbook = json!({
        "apiVersion": "aldis.dev/v1alpha1",
        "kind": "Runbook",
        "metadata": {"name": "story", "version": 1},
        "spec": {
            "direction": direction,
            "drift": chance.one_of(&["refuseTarget", "refuseJob"]),
            "targets": {
                "select": {"matchLabels": {"env": "prod"}},
                "whenUnreachable": chance.one_of(&["fail", "skip", "defer", "defer"]),
            },
            "rollout": {
                "waves": waves(chance),
                "maxFailures": chance.one_of(&[json!(0), json!(1), json!("50%")]),
                "onFailure": on_failure,
            },
            "steps": steps(chance),
            "verify": [{"id": "health", "use": "http.probe", "with": {
                "service": "shop", "namespace": "shop", "port": 8080, "path": "/",
            }}],
        },
    });
    runbook.to_string()
}

fn waves(chance: &Chance) -> Vec<Value> {
    let mut waves = Vec::new();
    if chance.one_in(2) {
        waves.push(json!({"name": "canary", "pick": {"max": 1}}));
    }
    if chance.one_in(3) {
        waves.push(json!({"name": "half", "pick": {"percent": 50}}));
    }
    waves.push(json!({"name": "rest", "pick": {"percent": 100}}));
    for wave in &mut waves {
        wave["maxParallel"] = json!(1 + chance.below(3));
        if chance.one_in(3) {
            wave["soak"] = json!({
                "for": "6s", "settle": "1s", "every": "2s",
                "require": "steps.health.outputs.errorRate < 0.5", "minSamples": 20,
            });
        }
    }
    waves
}

/// One or two segments of writes, each with a look behind it.
fn steps(chance: &Chance) -> Vec<Value> {
    let mut steps = Vec::new();
    let segments = 1 + chance.below(2);
    for segment in 1..=segments {
        for write in 1..=1 + chance.below(2) {
            steps.push(set(&format!("set{segment}x{write}"), chance));
        }
        let mut wait = json!({
            "id": format!("wait{segment}"), "use": "kube.wait", "timeout": "20s",
            "with": {"deployment": format!("set{segment}x1"), "namespace": "shop", "for": "rolledOut"},
        });
        if segment < segments {
            wait["barrier"] = chance
                .one_of(&[json!(true), json!({"timeout": "20s"})])
                .clone();
        }
        steps.push(wait);
    }
    steps
}

fn set(id: &str, chance: &Chance) -> Value {
    json!({
        "id": id, "use": "kube.set-image", "timeout": "20s",
        "safePoint": !chance.one_in(5),
        "with": {"deployment": id, "namespace": "shop", "image": "v2"},
    })
}
