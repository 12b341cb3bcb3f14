//! The settings in force as a settings file, each with where it comes from.

use crate::config::kinds::Kind;
use crate::config::sources::{InForce, Origin};
use crate::config::table::{GROUPS, Setting};

/// Comments begin at this column at the earliest.
const COMMENT_COLUMN: usize = 40;

/// Makes the settings file. Read again, it gives the same settings: a default is a comment in it, so that it stays a
/// default.
pub fn as_file(in_force: &InForce) -> String {
    let mut text = String::new();
    for group in &GROUPS {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("# {}\n", group.name));
        for setting in group.settings {
            let (sign, origin) = match in_force.origin(setting) {
                Origin::Default => ("# ", "default".to_owned()),
                Origin::File(path, place) => ("", format!("{}, line {}", path.display(), place.line)),
                Origin::Environment(name) => ("", name),
                Origin::Flag => ("", format!("--{}", setting.name)),
            };
            let line = format!("{sign}{} = {}", setting.name, value(setting, in_force));
            // A path may have any character, and a comment ends with its line.
            let origin = origin.replace(char::is_control, "?");
            text.push_str(&format!("{line:<COMMENT_COLUMN$}  # {origin}\n"));
        }
    }
    text
}

/// The value in force, as TOML.
fn value(setting: &Setting, in_force: &InForce) -> String {
    let values = setting.values(&in_force.config);
    match (&setting.kind, values.as_slice()) {
        (Kind::List(..) | Kind::Rules(_), values) => {
            let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            format!("[{}]", values.join(", "))
        }
        (Kind::Switch(_), [value]) => value.clone(),
        (_, [value]) if value.parse::<u32>().is_ok_and(|number| number.to_string() == *value) => value.clone(),
        (_, values) => quoted(&values.concat()),
    }
}

/// A basic string (TOML 1.0, String): quotes, backslashes and control characters are escaped.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(character))),
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
#[cfg(feature = "config-file")]
mod tests {
    use super::*;
    use crate::config::sources::{Environment, Given, of_file, resolve};
    use crate::config::table::settings;

    /// A value that the setting may take: one that some other test gives, or a path with what a path may have.
    fn candidates() -> Vec<&'static str> {
        vec![
            "0",
            "1",
            "7",
            "0640",
            "5s",
            "90m",
            "250ms",
            "12h",
            "400d",
            "64KiB",
            "3MiB",
            "1GiB",
            "true",
            "false",
            "auto",
            "none",
            "never",
            "::1",
            "example.org",
            "https://a.example",
            "*",
            "direct",
            "queued",
            "report",
            "abort",
            "debug",
            "error",
            "/run/a b.sock",
            "quoted \"folder\" \\ of ä",
            "tab\tand\nline",
            "12",
            "'",
            "text",
            "json",
            "face_*/cropping_*=2m",
            "*/waiting \"room\"=never",
        ]
    }

    #[test]
    fn settings_shown_and_read_again_are_the_same() {
        let seed: u64 = std::env::var("THREADCAST_SEED").map_or(0, |seed| seed.parse().unwrap());
        let cases: u64 = std::env::var("THREADCAST_CASES").map_or(300, |cases| cases.parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shown.toml");
        for case in seed..seed + cases {
            let mut random = fastrand::Rng::with_seed(case);
            let mut flags = Vec::new();
            for setting in settings() {
                for _ in 0..random.usize(0..3) {
                    let value = (*random.choice(&candidates()).unwrap()).to_owned();
                    if setting.set(&mut crate::config::Config::default(), &value).is_ok() {
                        flags.push((setting, value));
                    }
                }
            }
            let given = Given { file: None, flags };
            // Settings that do not fit each other are not in force.
            let Ok(in_force) = resolve(given, &Environment::new()) else {
                continue;
            };
            let shown = as_file(&in_force);
            std::fs::write(&path, &shown).unwrap();
            let again = of_file(&path).unwrap_or_else(|faults| panic!("seed {case}: {faults:?} in\n{shown}"));
            assert_eq!(
                format!("{:?}", again.config),
                format!("{:?}", in_force.config),
                "seed {case}:\n{shown}"
            );
            for setting in settings() {
                assert_eq!(
                    again.origin(setting) == Origin::Default,
                    in_force.origin(setting) == Origin::Default
                );
            }
        }
    }

    #[test]
    fn each_setting_says_where_it_comes_from() {
        let environment = vec![("THREADCAST_SET_HOST".into(), "::1".into())];
        let flags = vec![(Setting::find("port").unwrap(), "8080".to_owned())];
        let shown = as_file(&resolve(Given { file: None, flags }, &environment).unwrap());
        let line = |name: &str| shown.lines().find(|line| line.contains(&format!("{name} ="))).unwrap();
        assert_eq!(line("host"), format!("{:<40}  # THREADCAST_SET_HOST", "host = \"::1\""));
        assert_eq!(line("port"), format!("{:<40}  # --port", "port = 8080"));
        assert_eq!(
            line("allow-origin"),
            format!("{:<40}  # default", "# allow-origin = []")
        );
    }
}
