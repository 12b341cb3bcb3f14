//! The settings in force, and where each comes from: flag over environment over settings file over default.

use crate::config::file::{self, Entry, FileError, Place, Value};
use crate::config::kinds::Kind;
use crate::config::table::{ENVIRONMENT_PREFIX, Setting, settings, unknown};
use crate::config::{Config, SettingError};
use crate::process::nearest::nearest;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The environment, as pairs of a name and a value.
pub type Environment = Vec<(OsString, OsString)>;

/// The name of the settings file's path in the environment, as `--config` gives it on the command line.
pub const CONFIG_IN_ENVIRONMENT: &str = "THREADCAST_SET_CONFIG";

/// Where the value of a setting comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    #[default]
    Default,
    /// The settings file, at this line.
    File(PathBuf, Place),
    /// The environment, by this name.
    Environment(String),
    /// A flag of the command line.
    Flag,
}

/// What was given on the command line of `serve`.
#[derive(Debug, Default)]
pub struct Given {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The settings with their values, in the order of the command line.
    pub flags: Vec<(&'static Setting, String)>,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct InForce {
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
}

impl InForce {
    /// Where the value of that setting comes from.
    pub fn origin(&self, setting: &Setting) -> Origin {
        self.origins.get(setting.name).cloned().unwrap_or_default()
    }

    /// How many settings some source has given.
    pub fn given(&self) -> usize {
        self.origins.len()
    }
}

/// Why the settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Flag(SettingError),
    /// A name in the environment, and what is wrong with it or its value.
    Environment(String, String),
    File(FileError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Flag(error) => write!(f, "--{error}"),
            Fault::Environment(name, message) => write!(f, "{name} in the environment {message}"),
            Fault::File(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Fault {}

/// Puts the sources together. Blocks on the settings file, without a bound.
///
/// # Errors
/// Everything that is wrong with a source, in the order of the sources, or, if nothing is, the first setting that does
/// not fit another one.
pub fn resolve(given: Given, environment: &Environment) -> Result<InForce, Vec<Fault>> {
    let mut in_force = InForce {
        config: Config::default(),
        origins: BTreeMap::new(),
    };
    let mut faults = Vec::new();
    let is_flag = given.file.is_some();
    let file = given.file.or_else(|| {
        let path = environment.iter().find(|(name, _)| name == CONFIG_IN_ENVIRONMENT);
        path.map(|(_, path)| path.into())
    });
    if file.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
        faults.push(no_path(is_flag));
    } else if let Some(path) = file {
        in_force.take_file(&path, &mut faults);
    }
    in_force.take_environment(environment, &mut faults);
    in_force.take_flags(given.flags, &mut faults);
    in_force.judged(faults)
}

/// The fault of an empty path of the settings file.
fn no_path(is_flag: bool) -> Fault {
    let wanted = "write the path of the settings file, or leave it out";
    if is_flag {
        return Fault::Flag(SettingError {
            name: "config".to_owned(),
            value: String::new(),
            wanted: wanted.to_owned(),
        });
    }
    Fault::Environment(CONFIG_IN_ENVIRONMENT.to_owned(), format!("cannot be empty: {wanted}"))
}

/// Reads settings that stand in a table of another file, whose keys these are. `path` is that file.
///
/// # Errors
/// Everything that is wrong with them.
pub fn of_entries(path: &Path, entries: &[Entry]) -> Result<InForce, Vec<Fault>> {
    let mut in_force = InForce {
        config: Config::default(),
        origins: BTreeMap::new(),
    };
    let mut faults = Vec::new();
    in_force.take_entries(path, entries, &mut faults);
    in_force.judged(faults)
}

/// Reads a settings file alone, as if there were neither environment nor flags. Blocks on the file, without a bound.
///
/// # Errors
/// Everything that is wrong with it.
pub fn of_file(path: &Path) -> Result<InForce, Vec<Fault>> {
    let given = Given {
        file: Some(path.to_owned()),
        flags: Vec::new(),
    };
    resolve(given, &Environment::new())
}

impl InForce {
    fn take_file(&mut self, path: &Path, faults: &mut Vec<Fault>) {
        match file::entries(path) {
            Ok(entries) => self.take_entries(path, &entries, faults),
            Err(error) => faults.push(Fault::File(error)),
        }
    }

    fn take_entries(&mut self, path: &Path, entries: &[Entry], faults: &mut Vec<Fault>) {
        let wrong = entries.iter().flat_map(|entry| self.take_entry(path, entry));
        faults.extend(wrong.map(|(place, message)| {
            Fault::File(FileError {
                path: path.to_owned(),
                place: Some(place),
                message,
            })
        }));
    }

    /// These settings, unless something is wrong with a source or with how they fit each other.
    fn judged(self, mut faults: Vec<Fault>) -> Result<InForce, Vec<Fault>> {
        if faults.is_empty()
            && let Err(error) = self.config.check()
        {
            faults.push(self.blame(error));
        }
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }

    /// Takes one key of the file; returns what is wrong with it, each with its place.
    fn take_entry(&mut self, path: &Path, entry: &Entry) -> Vec<(Place, String)> {
        let Some(setting) = Setting::find(&entry.name) else {
            return vec![(entry.key, unknown(&entry.name))];
        };
        if entry.is_list && matches!(setting.kind, Kind::Words(..)) {
            return self.take_words(path, entry, setting);
        }
        if entry.is_list && !setting.is_list() {
            return vec![(entry.key, format!("{} cannot be of type array", setting.name))];
        }
        setting.begin(&mut self.config);
        self.origins
            .insert(setting.name, Origin::File(path.to_owned(), entry.key));
        let set = entry.values.iter().filter_map(|(place, value)| {
            let set = text_of(setting, *place, value).and_then(|value| {
                let set = setting.set(&mut self.config, &value);
                set.map_err(|error| vec![(*place, error.to_string())])
            });
            set.err()
        });
        set.flatten().collect()
    }

    /// Takes a command that stands as a list of its words.
    fn take_words(&mut self, path: &Path, entry: &Entry, setting: &'static Setting) -> Vec<(Place, String)> {
        self.origins
            .insert(setting.name, Origin::File(path.to_owned(), entry.key));
        let (mut words, mut faults) = (Vec::new(), Vec::new());
        for (place, value) in &entry.values {
            match text_of(setting, *place, value) {
                Ok(word) => words.push(word),
                Err(wrong) => faults.extend(wrong),
            }
        }
        if faults.is_empty()
            && let Err(error) = setting.set_words(&mut self.config, words)
        {
            faults.push((entry.key, error.to_string()));
        }
        faults
    }

    fn take_environment(&mut self, environment: &Environment, faults: &mut Vec<Fault>) {
        for (name, value) in environment {
            let name = name.to_string_lossy();
            if !name.starts_with(ENVIRONMENT_PREFIX) || name == CONFIG_IN_ENVIRONMENT {
                continue;
            }
            if let Err(message) = self.take_variable(&name, value) {
                faults.push(Fault::Environment(name.into_owned(), message));
            }
        }
    }

    fn take_variable(&mut self, name: &str, value: &OsString) -> Result<(), String> {
        let Some(setting) = settings().find(|setting| setting.environment_name() == name) else {
            return Err(unknown_variable(name));
        };
        let value = value.to_str().ok_or("is not UTF-8")?;
        setting.begin(&mut self.config);
        self.origins.insert(setting.name, Origin::Environment(name.to_owned()));
        let values = if setting.is_list() {
            value.split(',').map(str::trim).collect()
        } else {
            vec![value]
        };
        for value in values {
            let set = setting.set(&mut self.config, value);
            set.map_err(|error| format!("cannot be {value:?}: {}", error.wanted))?;
        }
        Ok(())
    }

    fn take_flags(&mut self, flags: Vec<(&'static Setting, String)>, faults: &mut Vec<Fault>) {
        for (setting, value) in flags {
            let before = self.origins.insert(setting.name, Origin::Flag);
            if before != Some(Origin::Flag) {
                setting.begin(&mut self.config);
            }
            if let Err(error) = setting.set(&mut self.config, &value) {
                faults.push(Fault::Flag(error));
            }
        }
    }

    /// The fault of a setting that does not fit another, where it was given; one that nobody gave is a flag to give.
    fn blame(&self, error: SettingError) -> Fault {
        match self.origins.get(error.name.as_str()) {
            Some(Origin::File(path, place)) => Fault::File(FileError {
                path: path.clone(),
                place: Some(*place),
                message: error.to_string(),
            }),
            Some(Origin::Environment(name)) => {
                Fault::Environment(name.clone(), format!("cannot be {:?}: {}", error.value, error.wanted))
            }
            _ => Fault::Flag(error),
        }
    }
}

/// A value of the file as a flag would have it.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
fn text_of(setting: &Setting, place: Place, value: &Value) -> Result<String, Vec<(Place, String)>> {
    let wrong = |kind| Err(vec![(place, format!("{} cannot be of type {kind}", setting.name))]);
    match (value, &setting.kind) {
        (Value::Text(text) | Value::Bare(_, text), _) => Ok(text.clone()),
        (Value::Table(keys), Kind::Rules(rules)) => rules.of_table(setting.name, place, keys),
        (Value::Table(_), _) => wrong("table"),
        (Value::Other(kind), _) => wrong(kind),
    }
}

/// What to say about a name that begins as a setting's does and is none.
fn unknown_variable(name: &str) -> String {
    let names: Vec<String> = settings().map(Setting::environment_name).collect();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(nearest) => format!("is no setting; did you mean {nearest}?"),
        None => "is no setting; `threadcast config show` lists them".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn flags(pairs: &[(&str, &str)]) -> Vec<(&'static Setting, String)> {
        let flag = |(name, value): &(&str, &str)| (Setting::find(name).unwrap(), (*value).to_owned());
        pairs.iter().map(flag).collect()
    }

    fn said(result: Result<InForce, Vec<Fault>>) -> Vec<String> {
        result.unwrap_err().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let environment = environment(&[
            ("THREADCAST_SET_PORT", "1"),
            ("THREADCAST_SET_HOST", "::1"),
            ("THREADCAST_SET_ALLOW_ORIGIN", "https://a, https://b"),
            ("THREADCAST_PORT", "tcp://10.0.0.1:80"),
            ("THREADCAST_URL", "nonsense is not read here"),
        ]);
        let given = Given {
            file: None,
            flags: flags(&[
                ("port", "2"),
                ("allow-origin", "https://c"),
                ("allow-origin", "https://d"),
            ]),
        };
        let in_force = resolve(given, &environment).unwrap();
        assert_eq!((in_force.config.port, in_force.config.host.as_str()), (2, "::1"));
        assert_eq!(in_force.config.allow_origin, ["https://c", "https://d"]);
        let origin = |name| in_force.origin(Setting::find(name).unwrap());
        assert_eq!(origin("port"), Origin::Flag);
        assert_eq!(origin("host"), Origin::Environment("THREADCAST_SET_HOST".to_owned()));
        assert_eq!(origin("log-dir"), Origin::Default);
        let none = Given {
            file: None,
            flags: flags(&[("allow-origin", "none")]),
        };
        assert!(resolve(none, &environment).unwrap().config.allow_origin.is_empty());
        let list = resolve(Given::default(), &environment).unwrap().config.allow_origin;
        assert_eq!(list, ["https://a", "https://b"]);
    }

    #[test]
    fn an_unknown_name_under_the_prefix_is_refused_and_every_fault_is_told() {
        let environment = environment(&[
            ("THREADCAST_SET_PROT", "1"),
            ("THREADCAST_SET_NONSENSE_AND_MORE", ""),
            ("THREADCAST_SET_PORT", ""),
        ]);
        let given = Given {
            file: None,
            flags: flags(&[("ping-interval", "soon")]),
        };
        let said = said(resolve(given, &environment));
        assert_eq!(
            said[..3],
            [
                "THREADCAST_SET_PROT in the environment is no setting; did you mean THREADCAST_SET_PORT?",
                "THREADCAST_SET_NONSENSE_AND_MORE in the environment is no setting; `threadcast config show` lists them",
                "THREADCAST_SET_PORT in the environment cannot be \"\": write a whole number from 0 to 65535",
            ]
        );
        assert!(said[3].starts_with("--ping-interval cannot be \"soon\": "), "{said:?}");
    }

    #[test]
    fn a_setting_that_does_not_fit_another_is_blamed_where_it_was_given() {
        let environment = environment(&[("THREADCAST_SET_PONG_TIMEOUT", "5s")]);
        let told = said(resolve(Given::default(), &environment));
        assert!(told[0].starts_with("THREADCAST_SET_PONG_TIMEOUT in the environment cannot be \"5s\": it must"));
    }

    #[cfg(feature = "config-file")]
    mod file {
        use super::*;

        fn read(text: &str) -> Result<InForce, Vec<String>> {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("threadcast.toml");
            std::fs::write(&path, text).unwrap();
            let plain = |fault: &Fault| fault.to_string().replace(&path.display().to_string(), "FILE");
            of_file(&path).map_err(|faults| faults.iter().map(plain).collect())
        }

        #[test]
        fn a_settings_file_sets_what_flags_set() {
            let config = read(
                "port = 8765\nping-interval = \"5s\"\nallow-drill = true\nallow-origin = [\"https://a\", \"https://b\"]",
            );
            let config = config.unwrap().config;
            assert_eq!((config.port, config.ping_interval.as_secs()), (8765, 5));
            assert_eq!(config.allow_origin, ["https://a", "https://b"]);
        }

        #[test]
        fn every_fault_of_a_file_comes_with_its_line_and_column() {
            assert_eq!(
                read("port = 1\nprot = 2\n\n  port-x = 1\nhost = [\"a\"]\nping-interval = \"x\"\nslow-snapshot = 1.5")
                    .unwrap_err(),
                [
                    "FILE, line 2, column 1: there is no setting \"prot\"; did you mean \"port\"?",
                    "FILE, line 4, column 3: there is no setting \"port-x\"; did you mean \"port\"?",
                    "FILE, line 5, column 1: host cannot be of type array",
                    "FILE, line 6, column 17: ping-interval cannot be \"x\": write a time such as 500ms, 10s or 2m, from \
                     10ms to 1h",
                    "FILE, line 7, column 17: slow-snapshot cannot be of type float",
                ]
            );
            assert_eq!(
                read("allow-origin = [\"https://a\",\n  \"ä\", \"b\"]")
                    .unwrap_err()
                    .len(),
                2
            );
            let broken = read("host = ").unwrap_err();
            assert!(broken[0].starts_with("FILE, line 1, column 8: "), "{broken:?}");
            let unfit = read("port = 1\npong-timeout = \"5s\"").unwrap_err();
            assert!(
                unfit[0].starts_with("FILE, line 2, column 1: pong-timeout cannot be"),
                "{unfit:?}"
            );
        }

        #[test]
        fn rules_are_tables_or_texts_and_their_faults_have_places() {
            let tables = "port = 1\n[[stuck]]\ntype = \"face_*\"\nstate = \"cropping_*\"\nafter = \"2m\"\n\n[[stuck]]\nafter = \"never\"";
            let texts = "stuck = [\"face_*/cropping_*=120s\", { after = \"never\" }]\nport = 1";
            for text in [tables, texts] {
                let in_force = read(text).unwrap();
                assert_eq!(in_force.config.stuck.texts(), ["face_*/cropping_*=2m", "*/*=never"]);
                assert_eq!(in_force.given(), 2);
            }
            assert_eq!(
                read("[stuck]\nafter = \"2m\"").unwrap().config.stuck.texts(),
                ["*/*=2m"]
            );
            assert_eq!(
                read(
                    "port = { after = 1 }\n[[stuck]]\nafer = \"2m\"\nhost = \"h\"\n  state = [\"a\"]\n[[stuck]]\nafter = \"soon\"\n\
                     [[stuck]]\ntype = \"a/b\"\nafter = \"1s\"\n[[stuck]]\nstate = \"x\"\n[stuck.type]\nafter = 2\n[[stuck]]\ntype = \"c\""
                )
                .unwrap_err(),
                [
                    "FILE, line 1, column 8: port cannot be of type table",
                    "FILE, line 3, column 1: there is no key \"afer\" in stuck; did you mean \"after\"?",
                    "FILE, line 4, column 1: there is no key \"host\" in stuck, only type, state, after; a setting must stand \
                     above the first [[stuck]]",
                    "FILE, line 5, column 3: state of stuck must be a text",
                    "FILE, line 7, column 9: after of stuck cannot be \"soon\": write a time such as 500ms, 10s or 2m, from \
                     100ms to 8784h, or never",
                    "FILE, line 9, column 8: type of stuck cannot be \"a/b\": a type is written without a slash; write ? in \
                     its place",
                    "FILE, line 13, column 8: type of stuck must be a text",
                    "FILE, line 15, column 1: after of stuck is missing; write the time after which a machine is stuck, such \
                     as \"2m\", or \"never\"",
                ]
            );
        }

        #[test]
        fn environment_and_flags_win_over_the_file() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("t.toml");
            std::fs::write(
                &path,
                "port = 1\nhost = \"::1\"\nlog-dir = \"l\"\nallow-origin = [\"https://a\"]",
            )
            .unwrap();
            let environment = environment(&[
                ("THREADCAST_SET_HOST", "::2"),
                ("THREADCAST_SET_CONFIG", path.to_str().unwrap()),
            ]);
            let given = Given {
                file: None,
                flags: flags(&[("port", "2"), ("allow-origin", "https://b")]),
            };
            let in_force = resolve(given, &environment).unwrap();
            let config = &in_force.config;
            assert_eq!((config.host.as_str(), config.port), ("::2", 2));
            assert_eq!(config.allow_origin, ["https://b"]);
            let from = in_force.origin(Setting::find("log-dir").unwrap());
            assert_eq!(from, Origin::File(path, Place { line: 3, column: 1 }));
        }
    }
}
