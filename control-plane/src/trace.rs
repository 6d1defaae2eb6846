//! The trace that a command line began, carried with whatever is done for it.
//!
//! Read from the metadata of every call, kept beside the call's task, written into the job's record with a
//! submission, and told with each question and each order to agents: one id finds all the lines of all programs.

use std::future::Future;

use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static CURRENT: Option<String>;
}

/// The 32 digits of a `traceparent`.
pub fn of(headers: &http::HeaderMap) -> Option<String> {
    let header = headers.get("traceparent")?.to_str().ok()?;
    read(header.split('-').nth(1)?)
}

/// An id as it was told by another replica; none where it is none.
pub fn read(id: &str) -> Option<String> {
    let readable = id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit());
    readable.then(|| id.to_ascii_lowercase())
}

/// The trace under which this is done.
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok().flatten()
}

/// Does something under a trace.
pub fn under<F: Future>(trace: Option<String>, work: F) -> TaskLocalFuture<Option<String>, F> {
    CURRENT.scope(trace, work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(traceparent: &str) -> http::HeaderMap {
        [("traceparent", traceparent)]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect()
    }

    #[test]
    fn only_a_whole_id_is_a_trace() {
        let id = "4BF92F3577B34DA6A3CE929D0E0E4736";
        let found = of(&headers(&format!("00-{id}-00f067aa0ba902b7-01")));
        assert_eq!(found, Some(id.to_ascii_lowercase()));
        for other in ["", "00", "00-4bf9-1-01", "00-\"; drop table\"-1-01"] {
            assert_eq!(of(&headers(other)), None, "{other}");
        }
    }

    #[tokio::test]
    async fn what_is_done_under_a_trace_knows_it() {
        assert_eq!(current(), None);
        let trace = Some("a".repeat(32));
        assert_eq!(under(trace.clone(), async { current() }).await, trace);
    }
}
