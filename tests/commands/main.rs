//! What an operator types and reads: the command line against a control plane over mutual TLS, with real agents on
//! practice clusters, as transcripts in text files.
//!
//! ```text
//! SUBJECT/CASE.yaml ─▶ control plane, agents, one process for each command ─▶ SUBJECT/CASE.txt
//! ```
//!
//! A transcript ends with what the case left in the store, so that a mistake that wrote something shows. To add a case,
//! add its `.yaml` and run with `UPDATE_GOLDENS=1`; then read the `.txt` as whoever mistyped would.

mod case;
mod operator;

use std::path::Path;

use aldis_tests::goldens::Goldens;
use aldis_tests::practice::Practice;
use case::Case;
use operator::Operator;

#[tokio::test]
async fn every_transcript_is_what_its_golden_says() {
    let goldens = Goldens::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("commands")).unwrap();
    let practice = operator::system().await.unwrap();
    let practice = &practice;
    goldens
        .hold_all(|text| async move { transcript(practice, &text).await })
        .await;
}

async fn transcript(practice: &Practice, text: &str) -> anyhow::Result<String> {
    let case = Case::parse(text)?;
    let operator = Operator::of(practice, &case).await?;
    let mut transcript = format!("# {}\n", case.about);
    for command in &case.commands {
        let said = operator.types(&command.types).await?;
        anyhow::ensure!(
            said.exit == command.exit,
            "this exits with {} and not {}:\n{said}",
            said.exit,
            command.exit
        );
        transcript.push_str(&said.to_string());
    }
    transcript.push_str(&operator.left().await?);
    Ok(transcript)
}
