//! Agents as a table and one by one.

use std::time::Duration;

use super::standing::named;
use super::table::Table;
use super::text::{Line, Tone, count};
use super::time::ago;
use crate::client::Agent;

/// One line for each agent.
pub fn table(agents: &[Agent]) -> Vec<Line> {
    let mut table = Table::new([
        "REGION",
        "CLUSTER",
        "AGENT",
        "STATE",
        "LAST SEEN",
        "RUNNING",
        "LABELS",
        "",
    ]);
    for agent in agents {
        let (region, cluster) = agent
            .target
            .split_once('/')
            .unwrap_or(("", agent.target.as_str()));
        table.row([
            region.into(),
            named(&cluster, agent.simulated).into(),
            or_dash(&agent.version).into(),
            Line::of(tone(&agent.state), agent.state.as_str()),
            last_seen(agent).into(),
            running(agent).into(),
            labels(agent).into(),
            Line::of(Tone::Warn, remark(agent)),
        ]);
    }
    table.lines()
}

/// Everything about one agent.
pub fn whole(agent: &Agent) -> Vec<Line> {
    let mut head = Line::of(Tone::Strong, named(&agent.target, agent.simulated));
    head.push(tone(&agent.state), format!("  {}", agent.state));
    if !agent.detail.is_empty() {
        head.push(Tone::Plain, format!("  {}", agent.detail));
    }
    let generation = agent.generation.to_string();
    let facts = [
        ("version", or_dash(&agent.version).to_owned()),
        ("last seen", last_seen(agent)),
        ("labels", labels(agent)),
        ("in hand", running(agent)),
        ("replica", or_dash(&agent.replica).to_owned()),
        ("session", generation),
        ("cluster", or_dash(&agent.cluster_uid).to_owned()),
        ("CA", or_dash(&agent.ca_fingerprint).to_owned()),
        ("journal", or_dash(&agent.journal_id).to_owned()),
    ];
    let mut lines = vec![head];
    lines.extend(facts.into_iter().map(|(name, value)| {
        let mut line = Line::of(Tone::Dim, format!("  {name}"));
        line.pad(13);
        line.push(Tone::Plain, value);
        line
    }));
    if !agent.offered_cluster_uid.is_empty() {
        lines.push(Line::of(Tone::Bad, "  ! ").and(format!(
            "it offers another cluster than the pinned one: {}",
            agent.offered_cluster_uid
        )));
        lines.push(Line::of(Tone::Busy, "    if that is meant: ").and(format!(
            "aldis agents repin {} --cluster-uid {} --reason TEXT",
            agent.target, agent.offered_cluster_uid
        )));
    }
    if !agent.orphans.is_empty() {
        let orphans = count(agent.orphans.len(), "attempt", "attempts");
        lines.push(Line::of(Tone::Bad, "  ! ").and(format!(
            "{orphans} in its journal that the control plane does not know:"
        )));
        lines.extend(
            agent
                .orphans
                .iter()
                .map(|orphan| Line::from(format!("    {orphan}"))),
        );
    }
    lines
}

fn tone(state: &str) -> Tone {
    match state {
        "live" => Tone::Good,
        "merging" => Tone::Busy,
        _ => Tone::Bad,
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn last_seen(agent: &Agent) -> String {
    match agent.last_seen_ms {
        Some(age) => ago(Duration::from_millis(age)),
        None if agent.generation == 0 => "never".to_owned(),
        None if agent.state == "lost" => "?".to_owned(),
        // It hangs on another replica, which hears it.
        None => "-".to_owned(),
    }
}

/// What an agent that is away has in hand, nobody can say.
fn running(agent: &Agent) -> String {
    if agent.state == "lost" {
        return "?".to_owned();
    }
    agent.open_attempts.to_string()
}

fn labels(agent: &Agent) -> String {
    let each: Vec<_> = agent
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    each.join(",")
}

fn remark(agent: &Agent) -> String {
    let mut remarks = Vec::new();
    if !agent.offered_cluster_uid.is_empty() {
        remarks.push("another cluster than the pinned one".to_owned());
    }
    if !agent.orphans.is_empty() {
        remarks.push(format!(
            "{} unknown to the control plane",
            count(agent.orphans.len(), "attempt", "attempts")
        ));
    }
    if !agent.detail.is_empty() {
        remarks.push(agent.detail.clone());
    }
    if remarks.is_empty() {
        String::new()
    } else {
        format!("! {}", remarks.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::text::plain;
    use std::collections::BTreeMap;

    fn agent(target: &str, state: &str) -> Agent {
        Agent {
            target: target.into(),
            version: "0.1.0".into(),
            state: state.into(),
            last_seen_ms: Some(1_200),
            labels: BTreeMap::from([("env".into(), "prod".into())]),
            cluster_uid: "4f1c".into(),
            open_attempts: 1,
            ..Agent::default()
        }
    }

    #[test]
    fn what_a_lost_agent_does_is_not_known() {
        let mut lost = agent("us-west/edge-7", "lost");
        lost.last_seen_ms = Some(7_200_000);
        let mut swapped = agent("us-east/prod-2", "held");
        swapped.offered_cluster_uid = "99aa".into();
        swapped.simulated = true;
        let agents = [agent("eu-west/prod-1", "live"), lost, swapped];
        insta::assert_snapshot!(plain(&table(&agents)), @r"
        REGION   CLUSTER             AGENT  STATE  LAST SEEN  RUNNING  LABELS
        eu-west  prod-1              0.1.0  live   1s ago     1        env=prod
        us-west  edge-7              0.1.0  lost   2h ago     ?        env=prod
        us-east  prod-2 (simulated)  0.1.0  held   1s ago     1        env=prod  ! another cluster than the pinned one
        ");
    }

    #[test]
    fn another_cluster_comes_with_the_command_that_accepts_it() {
        let mut swapped = agent("us-east/prod-2", "held");
        swapped.detail = "another cluster than the pinned one".into();
        swapped.offered_cluster_uid = "99aa".into();
        swapped.orphans = vec!["job j-1 attempt 2".into()];
        insta::assert_snapshot!(plain(&whole(&swapped)), @r"
        us-east/prod-2  held  another cluster than the pinned one
          version    0.1.0
          last seen  1s ago
          labels     env=prod
          in hand    1
          replica    -
          session    0
          cluster    4f1c
          CA         -
          journal    -
          ! it offers another cluster than the pinned one: 99aa
            if that is meant: aldis agents repin us-east/prod-2 --cluster-uid 99aa --reason TEXT
          ! 1 attempt in its journal that the control plane does not know:
            job j-1 attempt 2
        ");
    }
}
