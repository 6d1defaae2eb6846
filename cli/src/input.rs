//! What is given to a runbook: where it comes from, its parameters, its selection.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use aldis_core::ids::TargetName;
use aldis_core::runbook::load::Loaded;
use aldis_core::runbook::{load, params};
use serde_json::{Map, Value};

use crate::cli::pair;
use crate::client::{Client, PlanRequest, Source};
use crate::error::Error;
use crate::exit::Exit;
use crate::render::text::count;

/// Bytes that are read of a runbook file: twice the longest valid one.
const READ: u64 = 512 * 1024;

/// What a file of parameters looks like.
const PARAMETERS: &str =
    "one `name: value` a line; `aldis runbook schema RUNBOOK` says which names there are";

/// A runbook and what is given to it.
#[derive(Clone, Debug, clap::Args)]
pub struct Input {
    /// NAME, NAME@VERSION, or a file (with a `/` in it, or ending in .yaml or .yml)
    #[arg(value_name = "RUNBOOK")]
    pub runbook: Option<String>,
    /// A parameter; may be repeated
    #[arg(short = 'p', long = "param", value_parser = pair, value_name = "NAME=VALUE")]
    pub params: Vec<(String, String)>,
    /// A file of parameters, YAML; -p wins over it
    #[arg(short = 'f', long = "params-file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only targets with this label; narrows the runbook's own selection
    #[arg(short = 'l', long = "selector", value_parser = pair, value_delimiter = ',', value_name = "KEY=VALUE")]
    pub selector: Vec<(String, String)>,
    /// Only this target of the selection; may be repeated
    #[arg(short = 't', long = "target", value_name = "REGION/CLUSTER")]
    pub targets: Vec<TargetName>,
}

impl Input {
    /// Reads what is to be read, and types the parameters by the runbook's schema.
    pub async fn request(&self, client: &Client) -> Result<PlanRequest, Error> {
        let Some(runbook) = &self.runbook else {
            return Err(Error::usage("which runbook?")
                .hint("`aldis runbook list` names those that there are"));
        };
        let source = source(runbook)?;
        if let Source::File { file, text } = &source {
            check(file, text)?;
        }
        let schema = if self.params.is_empty() {
            None
        } else {
            schema(client, &source).await?
        };
        let mut params = Map::new();
        for file in &self.files {
            params.extend(params_of(file)?);
        }
        for (key, text) in &self.params {
            params.insert(key.clone(), typed(schema.as_ref(), key, text));
        }
        Ok(PlanRequest {
            source,
            params: Value::Object(params),
            selector: self.selector.iter().cloned().collect::<BTreeMap<_, _>>(),
            targets: self.targets.clone(),
        })
    }
}

/// A file is read here; a name is the server's to know.
pub fn source(argument: &str) -> Result<Source, Error> {
    if !is_file(argument) {
        return Ok(Source::Name(argument.to_owned()));
    }
    Ok(Source::File {
        file: argument.to_owned(),
        text: read(argument)?,
    })
}

/// Reads a runbook file, a little beyond the longest that is valid, so that its length can be judged.
pub fn read(file: &str) -> Result<String, Error> {
    let cannot = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        Error::usage(format!("cannot read runbook `{file}`: {why}"))
            .hint("a name without `/` and `.yaml` is one of `aldis runbook list`")
    };
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(READ).read_to_string(&mut text))
        .map_err(cannot)?;
    Ok(text)
}

/// Checks a runbook here: every mistake with its lines, which the wire would not carry whole.
pub fn check(name: &str, text: &str) -> Result<Loaded, Error> {
    load::load(name, text).map_err(|found| {
        let mistakes = count(found.len(), "mistake", "mistakes");
        let lines = found.render().lines().map(str::to_owned).collect();
        Error::new(Exit::Invalid, format!("runbook `{name}` has {mistakes}"))
            .details(lines)
            .hint(format!("`aldis runbook validate {name}` checks it again"))
    })
}

fn is_file(argument: &str) -> bool {
    argument.contains('/') || argument.ends_with(".yaml") || argument.ends_with(".yml")
}

/// The schema of the runbook's parameters, as far as it is known before planning.
async fn schema(client: &Client, source: &Source) -> Result<Option<Value>, Error> {
    let loaded = match source {
        Source::File { file, text } => load::load(file, text).ok(),
        Source::Name(name) => {
            let (_, text) = client.runbook(name).await?;
            // Of a runbook that only a later build can read, the server types the parameters.
            load::load(name, &text).ok()
        }
    };
    Ok(loaded.map(|loaded| loaded.runbook.spec.params))
}

/// The value of `-p`: text where the schema says text, else a YAML value, else text after all, so that
/// the server can say what is wrong with it.
fn typed(schema: Option<&Value>, key: &str, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    let as_yaml = || serde_saphyr::from_str::<Value>(text).unwrap_or_else(|_| as_text());
    let Some(schema) = schema else {
        return as_yaml();
    };
    let declared = schema
        .get("properties")
        .and_then(|properties| properties.get(key))
        .and_then(|property| property.get("type"));
    let takes_text = match declared {
        Some(Value::String(one)) => one == "string",
        Some(Value::Array(several)) => several.iter().any(|name| name == "string"),
        // Without a type, and for names that the schema does not have.
        _ => return as_yaml(),
    };
    match params::coerce(schema, key, text) {
        Value::String(_) if !takes_text => as_yaml(),
        value => value,
    }
}

fn params_of(file: &PathBuf) -> Result<Map<String, Value>, Error> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::usage(format!("cannot read parameters `{shown}`: {error}")))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|error| {
        let drawn = error.to_string().replace("<input>", &shown.to_string());
        Error::usage(format!("parameters `{shown}` are no YAML"))
            .details(drawn.lines().map(str::to_owned).collect())
            .hint(PARAMETERS)
    })?;
    match value {
        Value::Object(params) => Ok(params),
        Value::Null => Ok(Map::new()),
        _ => Err(Error::usage(format!(
            "parameters `{shown}` must be a mapping of names to values"
        ))
        .hint(PARAMETERS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_file_is_known_by_how_it_is_written() {
        for file in ["./x", "runbooks/a.yaml", "a.yml", "a.yaml"] {
            assert!(is_file(file), "{file}");
        }
        for name in ["rollback-service", "rollback-service@4"] {
            assert!(!is_file(name), "{name}");
        }
        let missing = source("./none.yaml").unwrap_err();
        assert_eq!(
            missing.message,
            "cannot read runbook `./none.yaml`: there is no such file"
        );
        assert_eq!(missing.exit, Exit::Usage);
    }

    #[test]
    fn a_parameter_is_what_the_schema_says() {
        let schema = json!({"properties": {
            "tag": {"type": "string"},
            "port": {"type": "integer"},
            "hosts": {"type": "array"},
            "mode": {"enum": [1, 2]},
        }});
        let typed = |key: &str, text: &str| super::typed(Some(&schema), key, text);
        assert_eq!(typed("tag", "1.10"), json!("1.10"));
        assert_eq!(typed("port", "8080"), json!(8080));
        assert_eq!(typed("port", "http"), json!("http"));
        assert_eq!(typed("hosts", "[a, b]"), json!(["a", "b"]));
        assert_eq!(typed("mode", "2"), json!(2));
        assert_eq!(super::typed(None, "any", "true"), json!(true));
    }

    #[test]
    fn parameters_of_a_file_are_a_mapping() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.yaml");
        std::fs::write(&path, "service: checkout\nport: 80\n").unwrap();
        assert_eq!(
            Value::Object(params_of(&path).unwrap()),
            json!({"service": "checkout", "port": 80})
        );
        std::fs::write(&path, "- a\n").unwrap();
        let error = params_of(&path).unwrap_err();
        assert!(error.message.contains("mapping") && error.hint.is_some());
        std::fs::write(&path, "a: [\n").unwrap();
        assert!(params_of(&path).unwrap_err().hint.is_some());
    }
}
