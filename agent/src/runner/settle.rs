//! What became of an effect whose end nobody saw: observed, and final only when nothing can land any more.

use std::time::Duration;

use tokio::time::Instant;

use crate::actions::{Actions, Applied, Before, Call, Observed, Trouble};

/// How long a cluster that does not answer is asked before an outcome is called unknown. An API server that restarts
/// is back within half of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The same after a restart of the agent, which often comes with one of the whole machine.
pub(super) const PATIENCE_AFTER_RESTART: Duration = Duration::from_secs(300);

/// For one look. A look is a request or two.
const ONE_LOOK: Duration = Duration::from_secs(15);

/// Between two looks at first; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is known now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Settled {
    /// The effect is there.
    Done(Applied),
    /// It is not there and cannot come.
    NotDone,
    /// Nobody can say.
    Unknown(Vec<String>),
}

/// Looks until it knows, or `patience` is over.
pub(super) async fn settle(
    actions: &dyn Actions,
    call: &Call,
    before: Option<&Before>,
    patience: Duration,
) -> Settled {
    until_known(actions, call, before, patience, false).await
}

/// The same without an effect of its own: a [`Settled::NotDone`] is not final, since what was sent may still land.
pub(super) async fn look(
    actions: &dyn Actions,
    call: &Call,
    before: Option<&Before>,
    patience: Duration,
) -> Settled {
    until_known(actions, call, before, patience, true).await
}

async fn until_known(
    actions: &dyn Actions,
    call: &Call,
    before: Option<&Before>,
    patience: Duration,
    mut fenced: bool,
) -> Settled {
    let until = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let trouble = match bounded(actions.observe(call, before)).await {
            Ok(Observed::Done(applied)) => return Settled::Done(applied),
            Ok(Observed::Indeterminate { evidence }) => return Settled::Unknown(evidence),
            Ok(Observed::NotDone) if fenced => return Settled::NotDone,
            Ok(Observed::NotDone) => match bounded(actions.fence(call, before)).await {
                Ok(()) => {
                    fenced = true;
                    continue;
                }
                Err(trouble) => trouble,
            },
            Err(trouble) => trouble,
        };
        let why = match trouble {
            Trouble::Retriable { failure } => failure.to_string(),
            Trouble::Unknown { evidence } => evidence.join("; "),
            Trouble::Failed { failure, .. } => {
                let evidence = vec![format!("its effect could not be looked for: {failure}")];
                return Settled::Unknown([evidence, failure.evidence].concat());
            }
        };
        if Instant::now() + pause >= until {
            let evidence = format!(
                "its effect could not be looked for during {} s: {why}",
                patience.as_secs()
            );
            return Settled::Unknown(vec![evidence]);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn bounded<T>(look: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(ONE_LOOK, look)
        .await
        .unwrap_or_else(|_| {
            let evidence = vec![format!("no answer within {} s", ONE_LOOK.as_secs())];
            Err(Trouble::Unknown { evidence })
        })
}
