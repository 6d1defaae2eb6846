//! The fields of the format, in one table: the checks, the published schema and the help read it.
//!
//! The types in [`super`] say the same to the compiler; a test holds the two against each other. A
//! table of its own is what makes it possible to go on after the first mistake, to tell a field that
//! does not exist from one that this build does not support yet, and to explain each in a sentence.

/// A kind of mapping in a runbook.
#[derive(Debug)]
pub(crate) struct Shape {
    /// How messages call it, with its article.
    pub(crate) name: &'static str,
    /// What it may hold.
    pub(crate) fields: &'static [Field],
    /// What the format has here and this build does not support.
    pub(crate) later: &'static [&'static str],
}

/// One field of a mapping.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    pub(crate) required: bool,
    /// One sentence for the schema and for editors.
    pub(crate) about: &'static str,
}

/// What a field takes.
#[derive(Debug)]
pub(crate) enum Takes {
    /// Any text.
    Text,
    /// This text and no other.
    Exactly(&'static str),
    /// Lower-case letters, digits and inner hyphens.
    RunbookName,
    /// `[a-z][a-zA-Z0-9_]*`.
    Identifier,
    /// One of the catalogue.
    Action,
    /// True or false.
    Bool,
    /// A whole number within bounds.
    Whole { least: u32, most: u32 },
    /// A number within bounds.
    Number { least: f64, most: f64 },
    /// A duration within bounds, in milliseconds.
    Duration { least_ms: u64 },
    /// `0%` to `100%`.
    Share,
    /// One of `now`; `later` are known and not supported.
    OneOf {
        now: &'static [&'static str],
        later: &'static [&'static str],
    },
    /// CEL that gives true or false.
    Condition,
    /// Names to texts.
    Texts,
    /// JSON Schema of an object.
    Schema,
    /// Input of an action; the only place of `${ }`.
    With,
    /// A mapping with fields of its own.
    Object(&'static Shape),
    /// A list of such mappings.
    List(&'static Shape),
    /// Whichever fits the type of the value.
    Either(&'static [Takes]),
}

/// No wait of a runbook is longer: beyond a month, a job is forgotten rather than waited for.
pub(crate) const LONGEST_MS: u64 = 30 * 86_400_000;

const SECOND: Takes = Takes::Duration { least_ms: 1_000 };
const ANY_DURATION: Takes = Takes::Duration { least_ms: 0 };
const AT_LEAST_ONE: Takes = Takes::Whole {
    least: 1,
    most: u32::MAX,
};

const fn required(name: &'static str, takes: Takes, about: &'static str) -> Field {
    Field {
        name,
        takes,
        required: true,
        about,
    }
}

const fn optional(name: &'static str, takes: Takes, about: &'static str) -> Field {
    Field {
        name,
        takes,
        required: false,
        about,
    }
}

/// The file itself.
pub(crate) static RUNBOOK: Shape = Shape {
    name: "a runbook",
    fields: &[
        required(
            "apiVersion",
            Takes::Exactly("aldis.dev/v1alpha1"),
            "Version of the format.",
        ),
        required("kind", Takes::Exactly("Runbook"), "Kind of the document."),
        required(
            "metadata",
            Takes::Object(&METADATA),
            "Its name and version.",
        ),
        required("spec", Takes::Object(&SPEC), "What it does."),
    ],
    later: &[],
};

pub(crate) static METADATA: Shape = Shape {
    name: "`metadata`",
    fields: &[
        required(
            "name",
            Takes::RunbookName,
            "Lower-case letters, digits and hyphens.",
        ),
        optional(
            "version",
            AT_LEAST_ONE,
            "Rises with each change; 1 where it is missing.",
        ),
        optional("title", Takes::Text, "One sentence for lists."),
        optional("labels", Takes::Texts, "For people and filters."),
    ],
    later: &["annotations", "description"],
};

pub(crate) static SPEC: Shape = Shape {
    name: "`spec`",
    fields: &[
        optional(
            "direction",
            Takes::OneOf {
                now: &["change", "remedy"],
                later: &[],
            },
            "A change is undone when it fails; a remedy makes things better one target at a time and never puts the bad state back by itself.",
        ),
        optional(
            "params",
            Takes::Schema,
            "JSON Schema 2020-12 of the parameters, an object schema.",
        ),
        optional("targets", Takes::Object(&TARGETS), "Who it is for."),
        optional(
            "owner",
            Takes::OneOf {
                now: &["refuse", "proceed"],
                later: &["hold"],
            },
            "What to do where somebody else would put the change back.",
        ),
        optional(
            "drift",
            Takes::OneOf {
                now: &["refuseTarget", "refuseJob"],
                later: &[],
            },
            "What to do when something changed since the plan; refuseTarget for a remedy, refuseJob for a change.",
        ),
        optional(
            "rollout",
            Takes::Object(&ROLLOUT),
            "In which order, and how far.",
        ),
        optional(
            "preflight",
            Takes::List(&STEP),
            "Reads, while planning and before anything is touched.",
        ),
        required("steps", Takes::List(&STEP), "The work, in order."),
        optional(
            "verify",
            Takes::List(&STEP),
            "Reads, after the work and during a soak.",
        ),
    ],
    later: &[
        "approvals",
        "concurrency",
        "env",
        "finally",
        "forEach",
        "includes",
        "phases",
        "profiles",
        "secrets",
    ],
};

pub(crate) static TARGETS: Shape = Shape {
    name: "`targets`",
    fields: &[
        optional(
            "select",
            Takes::Object(&SELECTOR),
            "Which labels they have; all targets where it is missing.",
        ),
        optional("min", AT_LEAST_ONE, "Fewer than this refuse the plan."),
        optional("max", AT_LEAST_ONE, "More than this refuse the plan."),
        optional(
            "whenUnreachable",
            Takes::OneOf {
                now: &["fail", "skip", "defer"],
                later: &[],
            },
            "A target whose agent is away counts as failed, is left out and named, or runs when its agent returns.",
        ),
    ],
    later: &["deferFor"],
};

pub(crate) static SELECTOR: Shape = Shape {
    name: "`select`",
    fields: &[optional(
        "matchLabels",
        Takes::Texts,
        "Each label with this value.",
    )],
    later: &["matchExpressions"],
};

pub(crate) static ROLLOUT: Shape = Shape {
    name: "`rollout`",
    fields: &[
        optional(
            "waves",
            Takes::List(&WAVE),
            "In order; one of everything where it is missing.",
        ),
        optional(
            "maxFailures",
            Takes::Either(&[
                Takes::Whole {
                    least: 0,
                    most: u32::MAX,
                },
                Takes::Share,
            ]),
            "Failures and unknowns that are accepted: a number, or a percent of all selected targets.",
        ),
        optional(
            "onFailure",
            Takes::OneOf {
                now: &["halt", "undo", "continue"],
                later: &[],
            },
            "What happens beyond that; undo for a change, continue for a remedy.",
        ),
    ],
    later: &["profiles", "maxParallelPerRegion"],
};

pub(crate) static WAVE: Shape = Shape {
    name: "a wave",
    fields: &[
        optional("name", Takes::Text, "For people."),
        required("pick", Takes::Object(&PICK), "Who goes in it."),
        optional(
            "maxParallel",
            AT_LEAST_ONE,
            "How many at once; 10 where it is missing.",
        ),
        optional("soak", Takes::Object(&SOAK), "How long to watch it."),
    ],
    later: &["maxParallelPerRegion"],
};

pub(crate) static PICK: Shape = Shape {
    name: "`pick`",
    fields: &[
        optional("perRegion", AT_LEAST_ONE, "So many of each region."),
        optional("max", AT_LEAST_ONE, "At most so many."),
        optional("count", AT_LEAST_ONE, "Exactly so many, if there are."),
        optional(
            "percent",
            Takes::Whole {
                least: 1,
                most: 100,
            },
            "Until this share of the selection is in this wave or one before it.",
        ),
    ],
    later: &["select"],
};

pub(crate) static SOAK: Shape = Shape {
    name: "`soak`",
    fields: &[
        required("for", SECOND, "How long."),
        optional(
            "settle",
            ANY_DURATION,
            "Nothing is judged before: longer than the window of the metrics.",
        ),
        optional(
            "every",
            SECOND,
            "How often the checks run; 15s where it is missing.",
        ),
        optional(
            "require",
            Takes::Condition,
            "What must hold over outputs of `verify` steps, summed over targets and rounds.",
        ),
        optional(
            "minSamples",
            AT_LEAST_ONE,
            "Fewer samples than this prove nothing.",
        ),
    ],
    later: &[],
};

pub(crate) static STEP: Shape = Shape {
    name: "a step",
    fields: &[
        required(
            "id",
            Takes::Identifier,
            "Unique in the runbook; expressions and reports name the step by it.",
        ),
        required("use", Takes::Action, "What it does."),
        optional(
            "with",
            Takes::With,
            "Its input; values may hold `${ CEL }`.",
        ),
        optional("if", Takes::Condition, "Left out where this does not hold."),
        optional(
            "require",
            Takes::Condition,
            "Fails where this does not hold afterwards.",
        ),
        optional(
            "message",
            Takes::Text,
            "What to say when `require` or `until` does not hold.",
        ),
        optional("until", Takes::Condition, "Done again until this holds."),
        optional("retry", Takes::Object(&RETRY), "How often to try again."),
        optional(
            "timeout",
            SECOND,
            "For all tries together; 2m where it is missing.",
        ),
        optional(
            "barrier",
            Takes::Either(&[Takes::Bool, Takes::Object(&BARRIER)]),
            "No target goes past this step before every target of the wave has reached it.",
        ),
        optional(
            "safePoint",
            Takes::Bool,
            "Whether a target may rest after it; true where it is missing.",
        ),
        optional(
            "undo",
            Takes::Either(&[
                Takes::OneOf {
                    now: &["auto", "none", "never"],
                    later: &[],
                },
                Takes::Object(&UNDO),
            ]),
            "How it is put back: by the action itself, not at all, never, or by an action of its own.",
        ),
        optional(
            "reason",
            Takes::Text,
            "Why there is nothing to undo, or no way to.",
        ),
    ],
    later: &[
        "approval",
        "approvals",
        "env",
        "forEach",
        "include",
        "progress",
        "run",
        "sensitive",
    ],
};

pub(crate) static RETRY: Shape = Shape {
    name: "`retry`",
    fields: &[
        required(
            "max",
            Takes::Whole {
                least: 1,
                most: 10_000,
            },
            "So many times after the first.",
        ),
        optional(
            "delay",
            ANY_DURATION,
            "Before the second try; 2s where it is missing.",
        ),
        optional(
            "backoff",
            Takes::Number {
                least: 1.0,
                most: 100.0,
            },
            "Factor from try to try; 1 where it is missing.",
        ),
        optional(
            "maxDelay",
            ANY_DURATION,
            "No wait is longer; 1m where it is missing.",
        ),
        optional(
            "unsafe",
            Takes::Bool,
            "Allows it for an action that must not begin twice.",
        ),
    ],
    later: &["within"],
};

pub(crate) static BARRIER: Shape = Shape {
    name: "`barrier`",
    fields: &[required(
        "timeout",
        SECOND,
        "How long targets wait for each other.",
    )],
    later: &[],
};

pub(crate) static UNDO: Shape = Shape {
    name: "`undo`",
    fields: &[
        optional(
            "use",
            Takes::Action,
            "Which action; the step's own where it is missing.",
        ),
        optional("with", Takes::With, "Merged over the step's own input."),
    ],
    later: &["env", "run"],
};

/// Every kind of mapping, outermost first.
pub(crate) static ALL: [&Shape; 13] = [
    &RUNBOOK, &METADATA, &SPEC, &TARGETS, &SELECTOR, &ROLLOUT, &WAVE, &PICK, &SOAK, &STEP, &RETRY,
    &BARRIER, &UNDO,
];

impl Shape {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::runbook;

    /// The fields that serde knows of a type, from its own words about one that it does not know.
    fn fields_of<T: DeserializeOwned>() -> Vec<String> {
        let error = serde_json::from_value::<T>(serde_json::json!({"\u{1}": 0}))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        let mut names: Vec<String> = error
            .split('`')
            .skip(3)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names
    }

    fn table(shape: &Shape) -> Vec<String> {
        let mut names: Vec<String> = shape.fields.iter().map(|f| f.name.to_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_table_and_the_types_know_the_same_fields() {
        assert_eq!(table(&RUNBOOK), fields_of::<runbook::Runbook>());
        assert_eq!(table(&METADATA), fields_of::<runbook::Metadata>());
        assert_eq!(table(&SPEC), fields_of::<runbook::Spec>());
        assert_eq!(table(&TARGETS), fields_of::<runbook::Targets>());
        assert_eq!(table(&SELECTOR), fields_of::<runbook::Selector>());
        assert_eq!(table(&ROLLOUT), fields_of::<runbook::Rollout>());
        assert_eq!(table(&WAVE), fields_of::<runbook::Wave>());
        assert_eq!(table(&PICK), fields_of::<runbook::Pick>());
        assert_eq!(table(&SOAK), fields_of::<runbook::Soak>());
        assert_eq!(table(&STEP), fields_of::<runbook::Step>());
        assert_eq!(table(&RETRY), fields_of::<runbook::Retry>());
        assert_eq!(table(&UNDO), fields_of::<runbook::UndoOwn>());
        assert_eq!(table(&BARRIER), fields_of::<runbook::BarrierTimeout>());
    }

    #[test]
    fn no_field_is_both_there_and_still_to_come() {
        for shape in ALL {
            for later in shape.later {
                assert!(shape.field(later).is_none(), "{} {later}", shape.name);
            }
        }
    }
}
