//! One figure, with what it is held against.

use std::time::Duration;

/// A measured value and its limit or peer of the same run.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    /// What is held against it, and its value.
    pub(crate) beside: Option<(String, f64)>,
    /// The ratio aimed at, as the issue that asked for the figure names it.
    pub(crate) aim: &'static str,
}

/// Prints a table: ours, beside, ratio, aim.
pub(crate) fn print(figures: &[Figure]) {
    println!(
        "{:<46} {:>12} {:>12} {:>7}  {:<12} beside",
        "figure", "ours", "limit", "ratio", "aim"
    );
    for figure in figures {
        let ours = format!("{:.1} {}", figure.ours, figure.unit);
        let (limit, ratio, what) = match &figure.beside {
            None => (String::new(), String::new(), ""),
            Some((what, value)) => (
                format!("{value:.1} {}", figure.unit),
                format!("{:.2}", figure.ours / value),
                what.as_str(),
            ),
        };
        println!(
            "{:<46} {ours:>12} {limit:>12} {ratio:>7}  {:<12} {what}",
            figure.name, figure.aim
        );
    }
}

/// The value below which this share of the times lies.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((last as f64) * share).round() as usize;
    times.get(index).copied().unwrap_or_default()
}
