//! Columns that line up, without borders, so that `awk` reads them as well.

use super::text::{Line, Tone};

/// Rows under a heading.
pub struct Table<const N: usize> {
    heading: [&'static str; N],
    rows: Vec<[Line; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    pub fn new(heading: [&'static str; N]) -> Self {
        Self {
            heading,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [Line; N]) {
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The heading and the rows.
    pub fn lines(&self) -> Vec<Line> {
        let heading = self.heading.map(|name| Line::of(Tone::Dim, name));
        let all = || std::iter::once(&heading).chain(&self.rows);
        let widths: Vec<usize> = (0..N)
            .map(|column| all().map(|row| row[column].width()).max().unwrap_or(0))
            .collect();
        all()
            .map(|row| {
                let mut line = Line::new();
                let mut start = 0;
                let last = row.iter().rposition(|cell| cell.width() > 0);
                let filled = last.map_or(0, |last| last + 1);
                for (cell, width) in row.iter().zip(&widths).take(filled) {
                    if start > 0 {
                        line.pad(start);
                    }
                    line.append(cell);
                    start += width + 2;
                }
                line
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::text::plain;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["JOB", "STATE"]);
        table.row(["j-1".into(), Line::of(Tone::Good, "succeeded")]);
        table.row(["j-100".into(), "failed".into()]);
        insta::assert_snapshot!(plain(&table.lines()), @r"
        JOB    STATE
        j-1    succeeded
        j-100  failed
        ");
    }
}
