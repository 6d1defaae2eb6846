//! The shapes of a real service's answers: which fields, of which types. Fixtures are held to them, so that no runbook
//! is written for an answer that only a fixture gives.
//!
//! A file `fixtures/SERVICE/shapes.json` names, for each answer, where it was recorded. A shape is written as the
//! answer is, with types in place of values:
//!
//! | shape | answer |
//! |---|---|
//! | `"string"`, `"null\|number"`, `"object"` | a value of one of these types, whatever is in it |
//! | `"User"` | the shape of that name |
//! | `{"id": …, "name?": …}` | these fields and no other; one with `?` may be missing |
//! | `[…]` | a list of such |
//! | `[…, …]` | a list of just these |

use serde_json::{Map, Value};

/// The shapes of one service.
pub(super) struct Shapes(Value);

/// A comparison under way.
struct Comparison<'a> {
    named: &'a Value,
    differences: Vec<String>,
}

impl Shapes {
    /// Reads a file of them.
    pub(super) fn read(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("is JSON"))
    }

    /// Where an answer differs from what an endpoint answers. Empty if nowhere.
    pub(super) fn differences(&self, endpoint: &str, answer: &Value) -> Vec<String> {
        let mut comparison = Comparison {
            named: &self.0["shapes"],
            differences: Vec::new(),
        };
        comparison.compare(endpoint, &self.0["endpoints"][endpoint]["shape"], answer);
        comparison.differences
    }
}

impl Comparison<'_> {
    fn compare(&mut self, at: &str, shape: &Value, answer: &Value) {
        match (shape, answer) {
            (Value::String(types), _) => self.compare_types(at, types, answer),
            (Value::Object(fields), Value::Object(answer)) => {
                self.compare_fields(at, fields, answer);
            }
            (Value::Array(shapes), Value::Array(answers)) => match shapes.as_slice() {
                [each] => (0..).zip(answers).for_each(|(index, answer)| {
                    self.compare(&format!("{at}[{index}]"), each, answer);
                }),
                all if all.len() == answers.len() => {
                    for (index, (shape, answer)) in all.iter().zip(answers).enumerate() {
                        self.compare(&format!("{at}[{index}]"), shape, answer);
                    }
                }
                all => self.differ(at, &format!("{} values", all.len()), "another number"),
            },
            _ => self.differ(at, kind(shape), kind(answer)),
        }
    }

    fn compare_types(&mut self, at: &str, types: &str, answer: &Value) {
        let named = self.named;
        match named.get(types) {
            Some(shape) => self.compare(at, shape, answer),
            None if types.split('|').any(|one| one == kind(answer)) => {}
            None => self.differ(at, types, kind(answer)),
        }
    }

    fn compare_fields(
        &mut self,
        at: &str,
        shape: &Map<String, Value>,
        answer: &Map<String, Value>,
    ) {
        for (field, shape) in shape {
            let name = field.trim_end_matches('?');
            match answer.get(name) {
                Some(answer) => self.compare(&format!("{at}.{name}"), shape, answer),
                None if field.ends_with('?') => {}
                None => self.differ(&format!("{at}.{name}"), "a field", "none"),
            }
        }
        for name in answer.keys() {
            if !shape.contains_key(name) && !shape.contains_key(&format!("{name}?")) {
                self.differ(&format!("{at}.{name}"), "no such field", "one");
            }
        }
    }

    fn differ(&mut self, at: &str, shape: &str, answer: &str) {
        let difference = format!("{at}: the service has {shape}, the fixture {answer}");
        self.differences.push(difference);
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differences(answer: &Value) -> Vec<String> {
        let shapes = json!({
            "endpoints": {"all": {"shape": [{"by": "User", "note?": "null|string", "point": ["number", "object"]}]}},
            "shapes": {"User": {"login": "string"}},
        });
        Shapes(shapes).differences("all", answer)
    }

    #[test]
    fn an_answer_of_the_shape_does_not_differ() {
        let short = json!({"by": {"login": "ana"}, "point": [1, {}]});
        let long = json!({"by": {"login": "ana"}, "note": null, "point": [1, {"a": 1}]});
        assert_eq!(differences(&json!([short, long])), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_said_with_its_place() {
        for (answer, place) in [
            (json!({"by": {}, "point": [1, {}]}), "all[0].by.login: "),
            (
                json!({"by": {"login": 1}, "point": [1, {}]}),
                "all[0].by.login: ",
            ),
            (json!({"by": {"login": ""}, "point": [1]}), "all[0].point: "),
            (
                json!({"by": {"login": ""}, "point": ["1", {}]}),
                "all[0].point[0]: ",
            ),
            (
                json!({"by": {"login": ""}, "point": [1, {}], "more": 1}),
                "all[0].more: ",
            ),
            (
                json!({"by": {"login": ""}, "point": [1, {}], "note": 1}),
                "all[0].note: ",
            ),
            (json!([]), "all[0]: "),
        ] {
            let said = differences(&json!([answer]));
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].starts_with(place), "{said:?}");
        }
    }
}
