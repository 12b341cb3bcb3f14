//! Files of services as people have them: the real binary writes one for a folder, and finds the faults of another.

use crate::support::server::{run, run_with};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap()
}

/// Writes the files, with the folders that they lie in.
fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Programs of these names that do nothing; returns a PATH with them.
fn programs(folder: &Path, names: &[&str]) -> String {
    let bin = folder.join(".bin");
    fs::create_dir_all(&bin).unwrap();
    for name in names {
        fs::write(bin.join(name), "#!/bin/sh\n").unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("{}:/usr/bin:/bin", bin.display())
}

#[cfg(feature = "config-file")]
#[test]
fn a_sound_file_is_told_with_its_phases() {
    let folder = folder();
    let text = "[server]\nport = 4001\n[needs.db]\ntcp = \"localhost:5432\"\n[needs.redis]\ntcp = \"localhost:6379\"\n\
                [service.worker]\ncommand = \"true\"\ndepends_on = [\"db\"]\nready = { log = \"up\" }\n\
                [service.page]\ncommand = \"true\"\ndepends_on = { worker = \"ready\" }\n\
                [service.tool]\ncommand = \"true\"\nenabled = false\n";
    write(folder.path(), &[("services.toml", text)]);
    for arguments in [&["services", "check"][..], &["services", "check", "services.toml"]] {
        let (status, output, said) = run(folder.path(), arguments);
        assert_eq!((status, said.as_str()), (0, ""));
        assert_eq!(
            output,
            "services.toml: 3 services, 2 needs: fine\nneeds: db, redis\nbefore all services: the server (127.0.0.1:4001)\n\
             phase 1: worker\nphase 2: page\nnot started by itself: tool\n"
        );
    }
}

#[cfg(feature = "config-file")]
#[test]
fn every_fault_of_a_file_is_told_with_its_place_and_status_1() {
    let folder = folder();
    let text =
        "[service.a]\ncomand = \"x\"\n[service.b]\ncommand = \"no-such-program-1\"\ndepends_on = [\"b\u{202e}\"]\n";
    write(folder.path(), &[("s.toml", text)]);
    let (status, output, said) = run(folder.path(), &["services", "check", "s.toml"]);
    assert_eq!((status, output.as_str()), (1, ""));
    let lines: Vec<&str> = said.lines().collect();
    for (line, part) in lines.iter().zip([
        "threadcast: s.toml, line 1, column 10: [service.a] has no command",
        "threadcast: s.toml, line 2, column 1: there is no key \"comand\" in [service.a]; did you mean \"command\"?",
        "threadcast: s.toml, line 4, column 1: the command of [service.b] cannot run: there is no \"no-such-program-1\"",
        "threadcast: s.toml, line 5, column 15: depends_on of [service.b] names \"b\\u{202e}\"",
        "hint: docs/services.md",
    ]) {
        assert!(line.starts_with(part), "{said}");
    }
    assert_eq!(lines.len(), 5, "{said}");
    let (status, _, said) = run(folder.path(), &["services", "check", "none.toml"]);
    assert!(
        status == 1 && said.contains("none.toml: cannot read") && said.contains("`threadcast services init`"),
        "{said}"
    );
}

#[test]
fn usage_that_cannot_be_followed_is_status_2() {
    for (arguments, part) in [
        (&["services"][..], "services needs one of status, start, stop"),
        (&["services", "chekc"], "did you mean \"check\"?"),
        (&["services", "check", "a", "b"], "\"b\""),
        (&["services", "check", ""], "FILE cannot be \"\": write a path"),
        (&["services", "init", "--force"], "there is no flag --force"),
    ] {
        let (status, _, said) = run(folder().path(), arguments);
        assert!(status == 2 && said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn a_folder_of_known_files_gets_a_file_that_is_sound() {
    let folder = folder();
    write(
        folder.path(),
        &[
            ("Procfile", "web: sh -c 'exec sleep \"$N\"'\nclock: sleep 9\n"),
            ("backend/pyproject.toml", "dependencies = [\"dramatiq[redis]\"]"),
            ("backend/uv.lock", ""),
            ("backend/jobs.py", "@dramatiq.actor\ndef job(): ...\n"),
            ("site \"x\"/manage.py", ""),
            ("frontend/package.json", "{\"scripts\": {\"dev\": \"vite\"}}"),
        ],
    );
    let path = programs(folder.path(), &["uv", "npm", "python3"]);
    let (status, output, said) = run_with(folder.path(), &["services", "init"], &[("PATH", &path)]);
    assert_eq!((status, said.as_str()), (0, ""));
    assert_eq!(
        output,
        "./services.toml: 5 services\n  web (Procfile)\n  clock (Procfile)\n  backend-worker (backend/pyproject.toml)\n  \
         frontend (frontend/package.json)\n  site--x--django (site \"x\"/manage.py)\n\
         Look through it, then let `threadcast services check` look for faults.\n"
    );
    let text = fs::read_to_string(folder.path().join("services.toml")).unwrap();
    assert!(
        text.contains("command = [\"uv\", \"run\", \"dramatiq\", \"jobs\"]\ncwd = \"backend\"\n"),
        "{text}"
    );
    if cfg!(feature = "config-file") {
        let (status, output, said) = run_with(folder.path(), &["services", "check"], &[("PATH", &path)]);
        assert_eq!((status, said.as_str()), (0, ""), "{text}");
        assert!(
            output.starts_with("services.toml: 5 services, 1 need: fine\nneeds: redis\nphase 1: web, clock"),
            "{output}"
        );
    }
    // A second one changes nothing.
    let (status, _, said) = run(folder.path(), &["services", "init", "."]);
    assert!(
        status == 1 && said.contains("is there already, and stays as it is"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(folder.path().join("services.toml")).unwrap(), text);
}

#[test]
fn a_folder_without_known_files_gets_an_example_and_what_is_commented_out_is_sound() {
    let folder = folder();
    let (status, output, _) = run(folder.path(), &["services", "init"]);
    assert!(
        status == 0 && output.contains("nothing known is in this folder"),
        "{output}"
    );
    if cfg!(not(feature = "config-file")) {
        return;
    }
    let path = folder.path().join("services.toml");
    let (status, output, said) = run(folder.path(), &["services", "check"]);
    assert!(
        status == 0 && output.starts_with("services.toml: 1 service, 0 needs: fine\n"),
        "{said}"
    );
    // Whatever a person makes of it by taking the marks of comments away.
    let text = fs::read_to_string(&path).unwrap();
    let is_setting =
        |line: &str| line.starts_with("# [") || line.split_once(" = ").is_some_and(|(key, _)| !key[2..].contains(' '));
    let open: Vec<&str> = text
        .lines()
        .map(|line| {
            if line.starts_with("# ") && is_setting(line) {
                &line[2..]
            } else {
                line
            }
        })
        .collect();
    fs::write(folder.path().join(".env"), "A=1\n").unwrap();
    fs::write(&path, open.join("\n")).unwrap();
    let (status, output, said) = run(folder.path(), &["services", "check"]);
    assert!(
        status == 0 && output.contains("before all services: the server"),
        "{said}{}",
        open.join("\n")
    );
    let (status, _, said) = run(folder.path(), &["services", "init", "/nowhere/at/all"]);
    assert!(
        status == 1 && said.contains("cannot write /nowhere/at/all/services.toml"),
        "{said}"
    );
}
