//! What lies in a folder that is run again and again: a Procfile, scripts of package.json, Django, Dramatiq.

use crate::process::command_line::split;
use crate::process::safe_open;
use crate::supervise::settings::kinds::NAME_CHARACTERS_MAX;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A program that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    /// The file that tells of it.
    pub(super) from: String,
    pub(super) command: Vec<String>,
    /// The folder below, if it is another one.
    pub(super) folder: Option<String>,
    /// Where it takes connections, if that is known.
    pub(super) address: Option<&'static str>,
    /// It is meant to end.
    pub(super) is_oneshot: bool,
    pub(super) broker: Option<Broker>,
    /// What a person must still fill in.
    pub(super) todo: Option<&'static str>,
}

/// What a worker gets its messages from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Broker {
    Redis,
    RabbitMq,
}

/// A larger file is not read.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Limits of the search: folders below, and Python files in each. No project of this kind has more.
const FOLDERS_MAX: usize = 32;
const SOURCES_MAX: usize = 64;
/// Folders that hold what others have written, or what programs make.
const STRANGE: [&str; 7] = ["node_modules", "target", "venv", "dist", "build", "logs", "run"];

/// Looks in the folder and in those directly below. Blocks on their disk, without a bound.
pub(super) fn look(folder: &Path) -> Vec<Found> {
    let mut found = in_folder(folder, None);
    for below in folders(folder) {
        found.extend(in_folder(&folder.join(&below), Some(&below)));
    }
    let mut names = BTreeSet::new();
    for service in &mut found {
        service.name = unique(&service.name, &names);
        names.insert(service.name.clone());
    }
    found
}

/// A name of a service that no other one has.
fn unique(name: &str, others: &BTreeSet<String>) -> String {
    let safe = |character: char| {
        if character.is_ascii_alphanumeric() {
            character
        } else {
            '-'
        }
    };
    let name: String = name.chars().map(safe).take(NAME_CHARACTERS_MAX - 4).collect();
    let name = match name.trim_matches('-') {
        "" | "monitoring" | "metrics" | "incidents" | "websocket-server" | "hang-emergency" => "service".to_owned(),
        name => name.to_owned(),
    };
    let mut numbered = (2..).map(|number| format!("{name}-{number}"));
    let is_free = |name: &String| !others.contains(name);
    // There are fewer names than numbers.
    if is_free(&name) {
        name
    } else {
        numbered.find(is_free).unwrap_or_default()
    }
}

fn folders(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let folders = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        entry
            .file_type()
            .ok()?
            .is_dir()
            .then(|| entry.file_name().into_string().ok())?
    });
    let mut folders: Vec<String> = folders
        .filter(|name| !name.starts_with('.') && !STRANGE.contains(&name.as_str()))
        .collect();
    folders.sort();
    folders.truncate(FOLDERS_MAX);
    folders
}

fn in_folder(folder: &Path, below: Option<&str>) -> Vec<Found> {
    let mut found = match read(&folder.join("Procfile")) {
        // It names all that runs there.
        Some(text) => procfile(&text),
        None => [package(folder), django(folder), dramatiq(folder)].concat(),
    };
    for service in &mut found {
        if let Some(below) = below {
            service.name = match service.name.as_str() {
                "dev" | "start" => below.to_owned(),
                name => format!("{below}-{name}"),
            };
            service.from = format!("{below}/{}", service.from);
            service.folder = Some(below.to_owned());
        }
    }
    found
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = safe_open::read(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The lines `NAME: COMMAND`; a command that needs a shell gets one.
fn procfile(text: &str) -> Vec<Found> {
    let line = |line: &str| {
        let (name, command) = line.split_once(':')?;
        let (name, command) = (name.trim(), command.trim());
        let is_name = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
        (!name.is_empty() && !command.is_empty() && name.chars().all(is_name)).then(|| Found {
            name: name.to_owned(),
            from: "Procfile".to_owned(),
            command: words(command),
            is_oneshot: name == "release",
            ..Found::default()
        })
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(line)
        .collect()
}

/// The words of a command line; those of a shell with that line, where it needs one.
fn words(command: &str) -> Vec<String> {
    let needs_shell = command.contains(|sign: char| "$|&;<>*?(){}`~".contains(sign));
    match split(command) {
        Ok(words) if !needs_shell && words.first().is_some_and(|first| !first.contains('=')) => words,
        _ => vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()],
    }
}

/// The scripts that run on: `dev`, else `start`; and `worker`.
fn package(folder: &Path) -> Vec<Found> {
    let document = read(&folder.join("package.json")).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let Some(Value::Object(scripts)) = document.as_ref().and_then(|document| document.get("scripts")) else {
        return Vec::new();
    };
    let managers = [
        ("pnpm-lock.yaml", "pnpm"),
        ("yarn.lock", "yarn"),
        ("bun.lock", "bun"),
        ("bun.lockb", "bun"),
    ];
    let manager = managers.iter().find(|(lock, _)| folder.join(lock).exists());
    let manager = manager.map_or("npm", |(_, manager)| manager);
    let page = ["dev", "start"].into_iter().find(|name| scripts.contains_key(*name));
    let worker = ["worker"].into_iter().find(|name| scripts.contains_key(*name));
    let found = page.into_iter().chain(worker).map(|name| Found {
        name: name.to_owned(),
        from: "package.json".to_owned(),
        command: [manager, "run", name].map(str::to_owned).to_vec(),
        ..Found::default()
    });
    found.collect()
}

/// The words before a Python program of this folder, and the folder of its programs, if it has its own.
fn python(folder: &Path) -> (Vec<String>, PathBuf) {
    let runner = |words: [&str; 2]| (words.map(str::to_owned).to_vec(), PathBuf::new());
    if folder.join("uv.lock").exists() {
        return runner(["uv", "run"]);
    }
    if folder.join("poetry.lock").exists() {
        return runner(["poetry", "run"]);
    }
    let own = [".venv/bin", "venv/bin"]
        .into_iter()
        .find(|bin| folder.join(bin).join("python").exists());
    (Vec::new(), own.map(PathBuf::from).unwrap_or_default())
}

/// A Python program with its arguments, as it runs in this folder.
fn python_command(folder: &Path, program: &str, arguments: &[&str]) -> Vec<String> {
    let (mut words, own) = python(folder);
    let program = match program {
        "python3" if own != Path::new("") => own.join("python"),
        program => own.join(program),
    };
    let program = program.display().to_string();
    words.push(program);
    words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    words
}

fn django(folder: &Path) -> Vec<Found> {
    if !folder.join("manage.py").is_file() {
        return Vec::new();
    }
    vec![Found {
        name: "django".to_owned(),
        from: "manage.py".to_owned(),
        command: python_command(folder, "python3", &["manage.py", "runserver"]),
        address: Some("localhost:8000"),
        ..Found::default()
    }]
}

fn dramatiq(folder: &Path) -> Vec<Found> {
    let Some(project) = read(&folder.join("pyproject.toml")).filter(|text| text.contains("dramatiq")) else {
        return Vec::new();
    };
    let module = actors(folder);
    let is_rabbit = project.contains("dramatiq[rabbitmq") || project.contains("pika");
    vec![Found {
        name: "worker".to_owned(),
        from: "pyproject.toml".to_owned(),
        command: python_command(folder, "dramatiq", &[module.as_deref().unwrap_or("tasks")]),
        broker: Some(if is_rabbit { Broker::RabbitMq } else { Broker::Redis }),
        todo: module
            .is_none()
            .then_some("the module with the actors, in place of tasks"),
        ..Found::default()
    }]
}

/// The module in this folder that has actors.
fn actors(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".py"))
        .collect();
    names.sort();
    let has_actors = |name: &&String| {
        read(&folder.join(name)).is_some_and(|text| text.contains("@dramatiq.actor") || text.contains("@actor"))
    };
    let name = names.iter().take(SOURCES_MAX).find(has_actors)?;
    name.strip_suffix(".py").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = look(folder.path());
        found
            .into_iter()
            .map(|found| (found.name, found.command.join(" ")))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, command)| ((*name).to_owned(), (*command).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_folder_runs_is_known_from_its_files() {
        let procfile =
            "# what runs\nweb: gunicorn app:app -b :$PORT\nworker: python3 -u worker.py\nrelease: ./migrate\nno line\n";
        assert_eq!(
            commands(&[("Procfile", procfile), ("manage.py", "")]),
            pairs(&[
                ("web", "sh -c gunicorn app:app -b :$PORT"),
                ("worker", "python3 -u worker.py"),
                ("release", "./migrate")
            ])
        );
        let scripts = "{\"scripts\": {\"dev\": \"vite\", \"start\": \"x\", \"worker\": \"y\"}}";
        assert_eq!(
            commands(&[("package.json", scripts), ("yarn.lock", "")]),
            pairs(&[("dev", "yarn run dev"), ("worker", "yarn run worker")])
        );
        assert_eq!(
            commands(&[("manage.py", ""), (".venv/bin/python", "")]),
            pairs(&[("django", ".venv/bin/python manage.py runserver")])
        );
        assert_eq!(
            commands(&[("package.json", "nonsense"), ("node_modules/Procfile", "a: b")]),
            []
        );
    }

    #[test]
    fn folders_below_are_looked_at_and_names_are_unique() {
        let project = "[project]\ndependencies = [\"dramatiq[redis]\"]";
        assert_eq!(
            commands(&[
                ("backend/pyproject.toml", project),
                ("backend/uv.lock", ""),
                ("backend/jobs.py", "@dramatiq.actor\ndef f(): ..."),
                ("frontend/package.json", "{\"scripts\": {\"start\": \"x\"}}"),
                ("Procfile", "frontend: a\nfrontend: b"),
            ]),
            pairs(&[
                ("frontend", "a"),
                ("frontend-2", "b"),
                ("backend-worker", "uv run dramatiq jobs"),
                ("frontend-3", "npm run start")
            ])
        );
    }
}
