//! Expressions of runbooks: bare CEL that gives a bool, and `${ CEL }` inside values.
//!
//! Evaluation works on the parsed tree, and results are never parsed again: whatever text a cluster
//! returns stays text. Alone, `${ }` keeps its type; inside text it becomes a string; `$${` is a
//! literal `${`. The size of an expression bounds the work: CEL has no loops and always ends.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::names::Names;

/// The longest expression that is accepted, in bytes. Ours are below 100.
pub const MAX_LENGTH: usize = 4096;

/// What is wrong with an expression, or with the values it met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not parse. The column counts from 1 within the expression.
    #[error("{message}")]
    Syntax {
        /// Where.
        column: usize,
        /// What.
        message: String,
    },
    /// It is longer than [`MAX_LENGTH`].
    #[error("the expression is {length} bytes long, more than {MAX_LENGTH}")]
    TooLong {
        /// How long.
        length: usize,
    },
    /// `${` without its `}`.
    #[error("`${{` is never closed")]
    Unclosed {
        /// Where, from 1.
        column: usize,
    },
    /// A name or key that is not there, a type that does not fit.
    #[error("{message}")]
    Evaluation {
        /// What.
        message: String,
    },
    /// It gave no bool where one is needed.
    #[error("gives {got}, where true or false is needed")]
    NotABool {
        /// What it gave.
        got: String,
    },
}

/// The names an expression may use, with their values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope(serde_json::Map<String, Value>);

impl Scope {
    /// No names.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more name.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }
}

/// A parsed expression.
#[derive(Debug)]
pub struct Expression {
    text: String,
    /// Where it begins in the text that it stands in; 0 for a bare one.
    at: usize,
    program: cel::Program,
}

impl Expression {
    /// Parses bare CEL.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            return Err(Error::TooLong { length: text.len() });
        }
        let program = cel::Program::compile(text).map_err(|errors| syntax(&errors))?;
        Ok(Self {
            text: text.to_owned(),
            at: 0,
            program,
        })
    }

    /// Where it begins in the text that it stands in, in bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The names it uses, each with its place.
    pub(super) fn names(&self) -> Names {
        Names::of(&self.text, &self.program)
    }

    /// What it reads: every name with the fields that are selected from it, as far as they are written out.
    pub(crate) fn paths(&self) -> Vec<Vec<String>> {
        let texts = |path: Vec<super::names::Word>| path.into_iter().map(|word| word.text);
        let paths = self.names().paths.into_iter();
        paths.map(|path| texts(path).collect()).collect()
    }

    /// The names at the root of its references, sorted: `steps` for `steps.a.outputs.b`.
    pub fn references(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .program
            .references()
            .variables()
            .iter()
            .map(ToString::to_string)
            .collect();
        names.sort();
        names
    }

    /// Evaluates to any value.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, Error> {
        let failed = |message: String| Error::Evaluation { message };
        let mut context = cel::Context::default();
        for (name, value) in &scope.0 {
            context
                .add_variable(name.as_str(), AsCel(value))
                .map_err(|error| failed(error.to_string()))?;
        }
        let result = self
            .program
            .execute(&context)
            .map_err(|error| failed(error.to_string()))?;
        result.json().map_err(|error| failed(error.to_string()))
    }

    /// Evaluates to a bool.
    pub fn evaluate_bool(&self, scope: &Scope) -> Result<bool, Error> {
        match self.evaluate(scope)? {
            Value::Bool(held) => Ok(held),
            other => Err(Error::NotABool {
                got: other.to_string(),
            }),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn syntax(errors: &cel::ParseErrors) -> Error {
    let first = errors.errors.first();
    let column = first.map_or(1, |error| usize::try_from(error.pos.1).unwrap_or(1));
    let message = first.map_or_else(|| errors.to_string(), |error| plain(&error.msg));
    Error::Syntax { column, message }
}

/// The reader's words without its grammar, which says nothing to whoever writes a runbook.
fn plain(message: &str) -> String {
    let message = message.trim_start_matches("Syntax error: ");
    let message = message.split(" expecting ").next().unwrap_or(message);
    let found = message
        .strip_prefix("mismatched input ")
        .or_else(|| message.strip_prefix("extraneous input "));
    match found {
        Some("'<EOF>'") => "something is missing at its end".to_owned(),
        Some(found) => format!("{found} is not expected there"),
        None => message.to_owned(),
    }
}

/// JSON as CEL sees it: integers enter as `int`, since a `uint` times an `int` fails at run time.
struct AsCel<'a>(&'a Value);

impl Serialize for AsCel<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => serializer.serialize_i64(integer),
                (None, Some(float)) => serializer.serialize_f64(float),
                (None, None) => number.serialize(serializer),
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(AsCel)),
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(key, field)| (key, AsCel(field))))
            }
            Value::Null | Value::Bool(_) | Value::String(_) => self.0.serialize(serializer),
        }
    }
}

/// A value of a runbook with its `${ }` parsed.
#[derive(Debug)]
pub struct Template(Node);

#[derive(Debug)]
enum Node {
    Literal(Value),
    Whole(Expression),
    Text(Vec<Piece>),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Expression(Expression),
}

impl Template {
    /// Parses every text in the value.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        node(value).map(Self)
    }

    /// The expressions in it, in order.
    pub fn expressions(&self) -> Vec<&Expression> {
        let mut found = Vec::new();
        collect(&self.0, &mut found);
        found
    }

    /// The value with every expression evaluated.
    pub fn resolve(&self, scope: &Scope) -> Result<Value, Error> {
        resolve(&self.0, scope)
    }
}

fn node(value: &Value) -> Result<Node, Error> {
    Ok(match value {
        Value::String(text) => text_node(text)?,
        Value::Array(items) => Node::Array(items.iter().map(node).collect::<Result<_, _>>()?),
        Value::Object(fields) => Node::Object(
            fields
                .iter()
                .map(|(key, field)| Ok((key.clone(), node(field)?)))
                .collect::<Result<_, Error>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => Node::Literal(value.clone()),
    })
}

fn text_node(text: &str) -> Result<Node, Error> {
    let mut pieces = pieces(text)?;
    if pieces.len() == 1
        && let Some(Piece::Expression(_)) = pieces.first()
        && let Some(Piece::Expression(expression)) = pieces.pop()
    {
        return Ok(Node::Whole(expression));
    }
    if pieces.iter().all(|piece| matches!(piece, Piece::Text(_))) {
        let whole = pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Expression(_) => "",
        });
        return Ok(Node::Literal(Value::String(whole.collect())));
    }
    Ok(Node::Text(pieces))
}

fn pieces(text: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(offset) = text[at..].find("${") {
        let dollar = at + offset;
        if text[..dollar].ends_with('$') {
            literal.push_str(&text[at..dollar - 1]);
            literal.push_str("${");
            at = dollar + 2;
            continue;
        }
        literal.push_str(&text[at..dollar]);
        let end = closing(text, dollar + 2).ok_or(Error::Unclosed { column: dollar + 1 })?;
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        let inside = &text[dollar + 2..end];
        let expression = Expression {
            at: dollar + 2 + (inside.len() - inside.trim_start().len()),
            ..Expression::parse(inside.trim())?
        };
        pieces.push(Piece::Expression(expression));
        at = end + 1;
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}

/// The brace that closes the expression, past braces and quotes inside it.
fn closing(text: &str, from: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote = None;
    let mut escaped = false;
    for (index, c) in text[from..].char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(from + index),
            (None, '}') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn collect<'a>(node: &'a Node, found: &mut Vec<&'a Expression>) {
    match node {
        Node::Literal(_) => {}
        Node::Whole(expression) => found.push(expression),
        Node::Text(pieces) => found.extend(pieces.iter().filter_map(|piece| match piece {
            Piece::Expression(expression) => Some(expression),
            Piece::Text(_) => None,
        })),
        Node::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Node::Object(fields) => fields.iter().for_each(|(_, field)| collect(field, found)),
    }
}

fn resolve(node: &Node, scope: &Scope) -> Result<Value, Error> {
    Ok(match node {
        Node::Literal(value) => value.clone(),
        Node::Whole(expression) => expression.evaluate(scope)?,
        Node::Text(pieces) => Value::String(
            pieces
                .iter()
                .map(|piece| text_of(piece, scope))
                .collect::<Result<String, _>>()?,
        ),
        Node::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| resolve(item, scope))
                .collect::<Result<_, _>>()?,
        ),
        Node::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(key, field)| Ok((key.clone(), resolve(field, scope)?)))
                .collect::<Result<_, Error>>()?,
        ),
    })
}

fn text_of(piece: &Piece, scope: &Scope) -> Result<String, Error> {
    match piece {
        Piece::Text(text) => Ok(text.clone()),
        Piece::Expression(expression) => Ok(match expression.evaluate(scope)? {
            Value::String(text) => text,
            other => other.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        Scope::new().with(
            "params",
            json!({"service": "shop", "port": 8080, "share": 0.01}),
        )
    }

    fn resolved(value: Value) -> Result<Value, Error> {
        Template::parse(&value)?.resolve(&scope())
    }

    #[test]
    fn alone_it_keeps_its_type_and_inside_text_it_becomes_a_string() {
        let value = resolved(json!({"a": "${params.port}", "b": ["x-${params.port}"]})).unwrap();
        assert_eq!(value, json!({"a": 8080, "b": ["x-8080"]}));
    }

    #[test]
    fn a_doubled_dollar_is_a_dollar_and_results_are_never_parsed_again() {
        assert_eq!(
            resolved(json!("$${params.port}")).unwrap(),
            json!("${params.port}")
        );
        let sly = Scope::new().with("params", json!({"service": "${params.port}"}));
        let template = Template::parse(&json!("${params.service}!")).unwrap();
        assert_eq!(template.resolve(&sly).unwrap(), json!("${params.port}!"));
    }

    #[test]
    fn braces_and_quotes_inside_an_expression_do_not_end_it() {
        assert_eq!(resolved(json!("${ {'a}': 1}['a}'] }")).unwrap(), json!(1));
        assert!(matches!(
            resolved(json!("x ${params.port")),
            Err(Error::Unclosed { column: 3 })
        ));
    }

    #[test]
    fn integers_enter_as_int() {
        let product = Expression::parse("params.port * -1 < 0 && params.share < 1.0").unwrap();
        assert_eq!(product.evaluate_bool(&scope()), Ok(true));
    }

    #[test]
    fn a_condition_must_give_a_bool() {
        let number = Expression::parse("params.port").unwrap();
        assert!(matches!(
            number.evaluate_bool(&scope()),
            Err(Error::NotABool { .. })
        ));
    }

    #[test]
    fn a_syntax_error_says_where() {
        let error = Expression::parse("params.port +").unwrap_err();
        assert!(
            matches!(error, Error::Syntax { column, .. } if column >= 12),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "something is missing at its end");
        let error = Expression::parse("params.port > > 1").unwrap_err();
        assert_eq!(error.to_string(), "'>' is not expected there");
    }
}
