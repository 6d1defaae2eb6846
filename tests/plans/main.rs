//! What the planner makes of a runbook, a fleet and a question, as text: one file in, one file out.
//!
//! ```text
//! SUBJECT/CASE.yaml ─▶ control plane's planning ─▶ agents' planners ─▶ command line's drawing ─▶ SUBJECT/CASE.txt
//! ```
//!
//! The planning service, the agents' planner and the drawing are the ones that run in production; the store is in memory,
//! the clock stands still, and the clusters are practice clusters that a case may dress up. To add a case, add its
//! `.yaml` and run with `UPDATE_GOLDENS=1`; then read the `.txt` as an operator would. What a case may hold is in
//! [`case`].

mod case;
mod fleet;
mod planner;
mod shown;

use std::path::Path;

use aldis_tests::goldens::Goldens;

#[tokio::test]
async fn every_case_is_planned_as_its_golden_says() {
    let goldens = Goldens::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("plans")).unwrap();
    goldens
        .hold_all(|text| async move { planner::answer(&text).await })
        .await;
}
