//! The codes of everything that can be wrong with a runbook file, in one table.
//!
//! A code is a promise to scripts and search engines: it is never given to another mistake. A code
//! that nothing reports any more keeps its row. The first words of a message may change; the code
//! does not.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($name:ident $id:literal $about:literal;)*) => {
        /// What is wrong, by a name that stays.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $about] $name,)*
        }

        impl Code {
            /// Every code, by number.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// `AL0001`.
            pub fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id,)*
                }
            }

            /// What it means and what to do about it.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$name => $about,)*
                }
            }
        }
    };
}

codes! {
    TooLong "AL0001" "The file is longer than 256 KiB. Split the procedure into several runbooks.";
    Syntax "AL0002" "The file is no YAML as we read it: one document, spaces for indentation, `true` and `false` as the only bools, no merge keys, no tags.";
    TooComplex "AL0003" "The file is nested deeper than 8 levels, or holds more values than any runbook of 200 steps needs, or grows through anchors.";
    DuplicateKey "AL0004" "A key stands twice in one mapping. Only one of the two could hold, and nobody could say which was meant.";
    UnknownField "AL0005" "The format has no such field here. A field that is not understood is never ignored.";
    NotSupported "AL0006" "The format knows this, and this build does not support it yet. It is refused, since ignoring it would run another procedure than the one that was written.";
    WrongType "AL0007" "The value is of another type than the field takes.";
    MissingField "AL0008" "A field that must be given is missing. A field that is indented too little or too far belongs to another mapping.";
    NotOneOf "AL0009" "The field takes one of a few values, and this is none of them.";
    NotADuration "AL0010" "A duration is a whole number with a unit: `500ms`, `90s`, `5m`, `2h`, `1d`.";
    BadName "AL0011" "Step ids and parameter names match `[a-z][a-zA-Z0-9_]*`, since a hyphen is a minus sign in an expression; names of runbooks are lower-case letters, digits and hyphens.";
    UndefinedStep "AL0012" "An expression names a step that the runbook does not have.";
    DuplicateStep "AL0013" "Two steps have the same id. Expressions, reports and undo name steps by it.";
    UnknownAction "AL0014" "There is no action of this name. Actions are a closed list.";
    UnknownInput "AL0015" "The action takes no such input.";
    MissingInput "AL0016" "The action needs an input that `with` does not give.";
    BadInput "AL0017" "An input is of another type, or has another value, than the action takes.";
    ForwardReference "AL0018" "An expression names a step that has not run yet where it is evaluated. Steps run in order: preflight, steps, verify.";
    UndeclaredOutput "AL0019" "The step's action declares no such output.";
    UndeclaredParam "AL0020" "The schema under `params` declares no such parameter.";
    BadExpression "AL0021" "The expression is no CEL, or names something that does not exist where it is evaluated.";
    NotABool "AL0022" "`if`, `require` and `until` take an expression that gives true or false.";
    MisplacedTemplate "AL0023" "`${ }` is evaluated in `with` only. `if`, `require` and `until` take bare CEL.";
    NotReadOnly "AL0024" "`preflight` and `verify` may use actions that only read: preflight runs while planning, verify runs again in a soak.";
    UnsafeRetry "AL0025" "An action that must not begin twice is retried only with `retry.unsafe: true`.";
    NoUndo "AL0026" "A step that destroys, or whose action cannot put back what it changed, must say what its undo is, or `undo: none` or `undo: never` with a reason.";
    MissingReason "AL0027" "`undo: none` and `undo: never` need a `reason`: it is what the operator reads when the way back goes past or ends here.";
    OutOfBounds "AL0028" "A number or a duration is outside what the field takes.";
    WavesLeaveSomeOut "AL0029" "After the last wave some targets may be left. The last wave takes all that are left: `pick: {percent: 100}`.";
    SoakOverOtherSteps "AL0030" "`soak.require` may use outputs of `verify` steps only: they are what runs again during a soak.";
    BadSchema "AL0031" "`params` is no JSON Schema 2020-12 of an object.";
    TooManySteps "AL0032" "The runbook has more than 200 steps.";
    NoEffect "AL0033" "The field has no effect where it stands: what it belongs to is missing.";
    Contradiction "AL0034" "Two fields say opposite things.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_without_a_gap() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.id(), format!("AL{:04}", index + 1));
        }
    }
}
