//! Cases as text files with goldens beside them: finds both, compares, and rewrites where that is wished.
//!
//! ```text
//! SUBJECT/CASE.yaml ─▶ whatever is tested ─▶ SUBJECT/CASE.txt
//! ```
//!
//! A golden that is missing and a golden that belongs to no case are mistakes like a wrong one: the first would pass for
//! a tested behaviour, the second for one that still exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// What is done about a golden that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// It is reported.
    Compare,
    /// It is rewritten.
    Update,
}

impl Wish {
    /// `UPDATE_GOLDENS=1` rewrites.
    fn of_environment() -> Self {
        match std::env::var("UPDATE_GOLDENS").as_deref() {
            Ok("1") => Self::Update,
            _ => Self::Compare,
        }
    }
}

/// The files of a folder: subjects, in each of them cases.
pub struct Goldens {
    cases: BTreeSet<PathBuf>,
    goldens: BTreeSet<PathBuf>,
}

impl Goldens {
    /// Looks through the folders of a folder.
    pub fn find(folder: &Path) -> anyhow::Result<Self> {
        let mut found = Self {
            cases: BTreeSet::new(),
            goldens: BTreeSet::new(),
        };
        for subject in entries(folder)? {
            if !subject.is_dir() {
                continue;
            }
            for file in entries(&subject)? {
                match file.extension().and_then(|extension| extension.to_str()) {
                    Some("yaml") => found.cases.insert(file),
                    Some("txt") => found.goldens.insert(file),
                    _ => anyhow::bail!("{} is neither a case nor a golden", file.display()),
                };
            }
        }
        anyhow::ensure!(
            !found.cases.is_empty(),
            "there is no case in {}",
            folder.display()
        );
        Ok(found)
    }

    /// Every case, in order.
    pub fn cases(&self) -> impl Iterator<Item = &Path> {
        self.cases.iter().map(PathBuf::as_path)
    }

    /// Holds every case's answer against its golden, and says everything that is wrong at once.
    ///
    /// # Panics
    /// Where something is wrong: it is the whole of a test.
    pub async fn hold_all<F>(&self, answer: impl Fn(String) -> F)
    where
        F: Future<Output = anyhow::Result<String>>,
    {
        let wish = Wish::of_environment();
        let mut wrong = Vec::new();
        for case in self.cases() {
            let held = async {
                let answer = answer(std::fs::read_to_string(case)?).await?;
                self.hold(case, &answer, wish)
            };
            match held.await {
                Ok(found) => wrong.extend(found),
                Err(error) => wrong.push(format!("{}: {error:#}", case.display())),
            }
        }
        match self.left_over(wish) {
            Ok(found) => wrong.extend(found),
            Err(error) => wrong.push(format!("{error:#}")),
        }
        assert!(
            wrong.is_empty(),
            "{}\n\nUPDATE_GOLDENS=1 takes the answers as they are for right: read them before you commit them",
            wrong.join("\n\n")
        );
    }

    /// What is wrong with the golden of a case, if anything.
    fn hold(&self, case: &Path, answer: &str, wish: Wish) -> anyhow::Result<Option<String>> {
        let path = case.with_extension("txt");
        let golden = if self.goldens.contains(&path) {
            Some(std::fs::read_to_string(&path)?)
        } else {
            None
        };
        if golden.as_deref() == Some(answer) {
            return Ok(None);
        }
        if wish == Wish::Update {
            std::fs::write(&path, answer).context("write a golden")?;
            return Ok(None);
        }
        let shown = path.display();
        Ok(Some(match golden {
            Some(golden) => format!(
                "{shown} is not what is planned:\n{}",
                difference(&golden, answer)
            ),
            None => format!("{shown} is missing; planned is\n{answer}"),
        }))
    }

    /// Goldens without a case.
    fn left_over(&self, wish: Wish) -> anyhow::Result<Vec<String>> {
        let alone = self
            .goldens
            .iter()
            .filter(|golden| !self.cases.contains(&golden.with_extension("yaml")));
        let mut wrong = Vec::new();
        for golden in alone {
            match wish {
                Wish::Update => std::fs::remove_file(golden).context("remove a golden")?,
                Wish::Compare => wrong.push(format!("{} belongs to no case", golden.display())),
            }
        }
        Ok(wrong)
    }
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("look in {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// The lines that only one of them has, each with its side: enough to see what moved.
fn difference(golden: &str, answer: &str) -> String {
    let (golden, answer): (Vec<&str>, Vec<&str>) =
        (golden.lines().collect(), answer.lines().collect());
    let same = golden.iter().zip(&answer).take_while(|(a, b)| a == b);
    let start = same.count();
    let rest = (&golden[start..], &answer[start..]);
    let same = rest.0.iter().rev().zip(rest.1.iter().rev());
    let end = same.take_while(|(a, b)| a == b).count();
    let middle = |lines: &[&str], sign: &str| -> Vec<String> {
        let shown = &lines[..lines.len() - end];
        shown.iter().map(|line| format!("{sign} {line}")).collect()
    };
    let lines = [middle(rest.0, "-"), middle(rest.1, "+")].concat();
    format!("  from line {}\n{}", start + 1, lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("waves")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join("waves").join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_golden_that_differs_or_is_missing_is_a_mistake() {
        let folder = folder(&[("a.yaml", ""), ("a.txt", "one\ntwo\n"), ("b.yaml", "")]);
        let found = Goldens::find(folder.path()).unwrap();
        let said: Vec<_> = found
            .cases()
            .map(|case| found.hold(case, "one\n2\n", Wish::Compare).unwrap())
            .collect();
        let differs = said[0].as_ref().unwrap();
        assert!(differs.ends_with("from line 2\n- two\n+ 2"), "{differs}");
        assert!(said[1].as_ref().unwrap().contains("b.txt is missing"));
    }

    #[test]
    fn a_golden_without_a_case_is_a_mistake_until_it_is_removed() {
        let folder = folder(&[("a.yaml", ""), ("gone.txt", "")]);
        let find = || Goldens::find(folder.path()).unwrap();
        assert_eq!(find().left_over(Wish::Compare).unwrap().len(), 1);
        assert!(find().left_over(Wish::Update).unwrap().is_empty());
        assert!(find().left_over(Wish::Compare).unwrap().is_empty());
    }

    #[test]
    fn an_update_makes_the_answer_the_golden() {
        let folder = folder(&[("a.yaml", "")]);
        for wish in [Wish::Update, Wish::Compare] {
            let found = Goldens::find(folder.path()).unwrap();
            let case = found.cases().next().unwrap();
            assert_eq!(found.hold(case, "one\n", wish).unwrap(), None);
        }
    }
}
