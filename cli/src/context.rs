//! Which control plane, and as whom: the configuration file, shaped like a kubeconfig.
//!
//! ```yaml
//! currentContext: prod
//! contexts:
//!   - name: prod
//!     servers: [https://cp-1.example:7600, https://cp-2.example:7600]
//!     ca: ca.pem                        # relative paths are relative to this file
//!     auth: {cert: mei.pem, key: mei.key}
//!     protected: true                   # changes want the context's name typed
//! ```
//!
//! Chosen by `--context`, then `ALDIS_CONTEXT`, then the nearest `.aldis.yaml` above the working folder
//! (`context: NAME`: a repository pins its control plane), then `currentContext`. Nothing is chosen by
//! guessing.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::Exit;

/// Port of a control plane where an address names none.
pub const DEFAULT_PORT: u16 = 7600;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder to look in.
    #[error("no configuration file: neither ALDIS_CONFIG, XDG_CONFIG_HOME nor HOME is set")]
    NoHome,
    /// The file cannot be read or written.
    #[error("{what} `{}`: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It does not parse, or cannot be used.
    #[error("configuration `{}`: {problem}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        problem: String,
    },
    /// No context was chosen.
    #[error("no context is chosen in `{}`", path.display())]
    NotChosen {
        /// Which file.
        path: PathBuf,
        /// Names to choose from.
        names: Vec<String>,
    },
    /// The chosen one does not exist.
    #[error("there is no context `{name}` in `{}`", path.display())]
    Unknown {
        /// The name.
        name: String,
        /// Which file.
        path: PathBuf,
        /// Names to choose from.
        names: Vec<String>,
    },
    /// A server that is no address.
    #[error("`{text}` is no server; write https://HOST:PORT")]
    NotAServer {
        /// What was given.
        text: String,
    },
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::NotChosen { names, .. } if names.is_empty() => Some(
                "add one with `aldis context add NAME --server https://HOST:7600 --ca FILE --cert FILE --key FILE`, \
                 or try everything on this machine with `aldis dev`"
                    .to_owned(),
            ),
            Error::NotChosen { names, .. } | Error::Unknown { names, .. } => Some(format!(
                "choose with `--context NAME` or ALDIS_CONTEXT=NAME; there are: {}",
                list(names)
            )),
            Error::NoHome => Some("set ALDIS_CONFIG to the configuration file".to_owned()),
            Error::Invalid { .. } => Some(
                "mend the file, or name another one with ALDIS_CONFIG".to_owned(),
            ),
            Error::File { .. } | Error::NotAServer { .. } => None,
        };
        let converted = Self::new(Exit::Usage, error.to_string());
        match hint {
            Some(hint) => converted.hint(hint),
            None => converted,
        }
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Used where nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_context: Option<String>,
    /// By name, each name once.
    pub contexts: Vec<Context>,
}

/// One control plane and one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Context {
    /// What people call it.
    pub name: String,
    /// Where it is, `https://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Where its replicas are, when several are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// CA that signs the servers' certificates. PEM.
    pub ca: PathBuf,
    /// Who we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Changes want the name of the context typed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Auth {
    /// Client certificate, PEM, leaf first.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name or an address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for Server {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::NotAServer {
            text: text.to_owned(),
        };
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err(wrong()),
            None => text,
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (rest, DEFAULT_PORT),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
        if host.is_empty() || !host.chars().all(good) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl Context {
    /// Every server it names.
    pub fn addresses(&self) -> Result<Vec<Server>, Error> {
        self.server
            .iter()
            .chain(&self.servers)
            .map(|text| text.parse())
            .collect()
    }
}

/// Where the file is: `ALDIS_CONFIG`, else `$XDG_CONFIG_HOME/aldis/config.yaml`, else under `~/.config`.
pub fn path() -> Result<PathBuf, Error> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = variable("ALDIS_CONFIG") {
        return Ok(file.into());
    }
    let folder = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")))
        .ok_or(Error::NoHome)?;
    Ok(folder.join("aldis").join("config.yaml"))
}

/// What a repository says of itself, in `.aldis.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pin {
    /// The context that is used in it.
    context: String,
}

/// The context that the nearest `.aldis.yaml` names, from this folder upwards.
pub fn pinned(folder: &Path) -> Result<Option<String>, Error> {
    for folder in folder.ancestors() {
        let path = folder.join(".aldis.yaml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => {
                let what = "cannot read";
                return Err(Error::File { what, path, source });
            }
        };
        let pin: Pin = serde_saphyr::from_str(&text).map_err(|error| Error::Invalid {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        return Ok(Some(pin.context));
    }
    Ok(None)
}

/// Reads the file; one that is not there is empty.
pub fn load(path: &Path) -> Result<Config, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(source) => {
            return Err(Error::File {
                what: "cannot read configuration",
                path: path.to_owned(),
                source,
            });
        }
    };
    let invalid = |problem: String| Error::Invalid {
        path: path.to_owned(),
        problem,
    };
    if text.trim().is_empty() {
        return Ok(Config::default());
    }
    let config: Config =
        serde_saphyr::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    let mistakes = config.mistakes();
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(invalid(mistakes.join("\n  ")))
    }
}

/// Writes the file whole, readable by its owner only.
pub fn save(path: &Path, config: &Config) -> Result<(), Error> {
    let failed = |what: &'static str| {
        move |source: std::io::Error| Error::File {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let text = serde_saphyr::to_string(config).map_err(|error| Error::Invalid {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(failed("cannot make the folder of"))?;
    }
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(failed("cannot write configuration"))
}

impl Config {
    /// The context that a command works in. Relative paths become relative to the file's folder.
    pub fn choose(&self, wanted: Option<&str>, path: &Path) -> Result<Context, Error> {
        let name = wanted.or(self.current_context.as_deref());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(Error::NotChosen {
                path: path.to_owned(),
                names: self.names(),
            });
        };
        let found = self.contexts.iter().find(|context| context.name == name);
        let Some(found) = found else {
            return Err(Error::Unknown {
                name: name.to_owned(),
                path: path.to_owned(),
                names: self.names(),
            });
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut context = found.clone();
        context.ca = folder.join(&context.ca);
        if let Some(auth) = &mut context.auth {
            auth.cert = folder.join(&auth.cert);
            auth.key = folder.join(&auth.key);
        }
        Ok(context)
    }

    /// Puts a context in, in place of one of the same name.
    pub fn put(&mut self, context: Context) {
        match self.contexts.iter_mut().find(|c| c.name == context.name) {
            Some(old) => *old = context,
            None => self.contexts.push(context),
        }
    }

    /// Every name, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.contexts.iter().map(|c| c.name.clone()).collect()
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (index, context) in self.contexts.iter().enumerate() {
            let key = format!("contexts[{index}]");
            if context.name.is_empty() {
                mistakes.push(format!("{key}.name: must not be empty"));
            }
            let again = self.contexts.iter().take(index);
            if again.clone().any(|other| other.name == context.name) {
                mistakes.push(format!("{key}.name: `{}` stands twice", context.name));
            }
            match context.addresses() {
                Err(error) => mistakes.push(format!("{key}.server: {error}")),
                Ok(servers) if servers.is_empty() => {
                    mistakes.push(format!("{key}.server: must be given"));
                }
                Ok(_) => {}
            }
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
currentContext: dev
contexts:
  - {name: dev, server: 'https://localhost:7600', ca: ca.pem, auth: {cert: me.pem, key: me.key}}
  - {name: prod, servers: ['https://a:1', 'b'], ca: /etc/ca.pem, protected: true}
";

    fn config() -> Config {
        serde_saphyr::from_str(FILE).unwrap()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_paths_are_of_the_file() {
        let path = Path::new("/home/mei/aldis/config.yaml");
        let chosen = config().choose(None, path).unwrap();
        assert_eq!(chosen.ca, Path::new("/home/mei/aldis/ca.pem"));
        let chosen = config().choose(Some("prod"), path).unwrap();
        assert_eq!(chosen.ca, Path::new("/etc/ca.pem"));
        let servers: Vec<_> = chosen
            .addresses()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(servers, ["https://a:1", "https://b:7600"]);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = config()
            .choose(Some("prd"), Path::new("c.yaml"))
            .unwrap_err();
        let error = crate::error::Error::from(error);
        assert_eq!(error.message, "there is no context `prd` in `c.yaml`");
        assert!(error.hint.unwrap().ends_with("there are: dev, prod"));
    }

    #[test]
    fn nothing_is_chosen_by_guessing() {
        let mut config = config();
        config.current_context = None;
        config.contexts.truncate(1);
        let error = config.choose(None, Path::new("c.yaml"));
        assert!(matches!(error, Err(Error::NotChosen { .. })), "{error:?}");
    }

    #[test]
    fn what_is_no_https_address_is_refused() {
        for text in [
            "http://a:1",
            "https://",
            "a:b",
            "https://a b",
            "https://a:99999",
        ] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
        let server: Server = "https://[::1]:7601/".parse().unwrap();
        assert_eq!((server.host.as_str(), server.port), ("::1", 7601));
        assert_eq!(server.to_string(), "https://[::1]:7601");
    }

    #[test]
    fn a_saved_file_comes_back_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.yaml");
        save(&path, &config()).unwrap();
        assert_eq!(load(&path).unwrap(), config());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_nearest_pin_above_a_folder_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(pinned(&inner).unwrap(), None);
        std::fs::write(root.path().join(".aldis.yaml"), "context: far\n").unwrap();
        assert_eq!(pinned(&inner).unwrap().as_deref(), Some("far"));
        std::fs::write(root.path().join("a/.aldis.yaml"), "context: near\n").unwrap();
        assert_eq!(pinned(&inner).unwrap().as_deref(), Some("near"));
        std::fs::write(inner.join(".aldis.yaml"), "server: x\n").unwrap();
        assert!(matches!(pinned(&inner), Err(Error::Invalid { .. })));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        std::fs::write(
            &path,
            "contexts: [{name: a, server: 'http://x', ca: c}, {name: a, ca: c}]",
        )
        .unwrap();
        let error = load(&path).unwrap_err();
        let hint = crate::error::Error::from(load(&path).unwrap_err()).hint;
        assert!(hint.is_some_and(|hint| hint.contains("ALDIS_CONFIG")));
        let error = error.to_string();
        assert!(
            error.contains("contexts[0].server") && error.contains("contexts[1].name"),
            "{error}"
        );
        assert!(error.contains("contexts[1].server"), "{error}");
    }
}
