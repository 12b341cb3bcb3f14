//! Files that somebody else takes away, puts something else in the place of, or keeps on a disk that does not answer:
//! the server says so, never writes where it should not, and never waits for them.

use crate::support::server::{in_shell, mounting_shell, run};
use crate::support::{TestServer, eventually, numbered, state_change};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Signal, geteuid};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Sends events with the numbers `numbers`, and waits until the journal has counted all of them.
#[track_caller]
fn publish(server: &TestServer, numbers: std::ops::Range<usize>) {
    let end = numbers.end as u64;
    for number in numbers {
        server.send(numbered(number, 200));
    }
    eventually("the journal has counted them", || {
        let journal = &server.health()["journal"];
        let count = |key: &str| journal[key].as_u64().unwrap();
        (count("events") + count("dropped") == end).then_some(())
    });
}

/// Every line in the folder of a journal, the oldest first.
fn lines(journal: &Path) -> Vec<Value> {
    let mut paths: Vec<_> = fs::read_dir(journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    paths.sort();
    let texts = paths.iter().map(|path| fs::read_to_string(path).unwrap());
    let lines: Vec<String> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Takes something away under load, and holds what the server says and keeps against it.
fn take_away(what: &str, take: impl FnOnce(&Path)) {
    eprintln!("{what}");
    let mut server = TestServer::start(&["--journal", "journal"]);
    let journal = server.path("journal");
    publish(&server, 0..100);
    assert_eq!(server.health()["journal"]["dropped"], 0);
    take(&journal);
    server.wait_for_line("taken out of journal by somebody else: 100 events of this run that were kept there are gone");
    publish(&server, 100..150);
    let health = server.health();
    assert_eq!(
        (&health["journal"]["dropped"], &health["journal"]["events"]),
        (&100.into(), &50.into()),
        "{what}"
    );
    assert_eq!(health["journal"]["state"], "on", "{what}");
    let kept = lines(&journal);
    let loss = &kept[1];
    assert_eq!(
        (&loss["seq"], &loss["to"], &loss["cause"], &loss["lost"]),
        (&1.into(), &100.into(), &"journal_removed".into(), &Value::Null),
        "{what}: {loss}"
    );
    let numbers: Vec<u64> = kept
        .iter()
        .filter(|line| line.get("event").is_some())
        .map(|line| line["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (101..151).collect::<Vec<_>>(), "{what}");
    // After a restart who comes back from before is told, and gets the rest.
    assert_eq!(server.stop().code(), Some(0), "{what}: {}", server.lines().all());
    let again = TestServer::start_in(server.folder(), &["--journal", "journal"]);
    let url = format!("http://{}", again.address);
    let (status, out, said) = run(
        again.folder().path(),
        &[
            "tail",
            "--url",
            &url,
            "-n",
            "1000",
            "--count",
            "50",
            "--duration",
            "20s",
            "--format",
            "json",
        ],
    );
    assert_eq!(
        (status, out.lines().filter(|line| line.contains("\"n\"")).count()),
        (0, 50),
        "{what}: {said}"
    );
}

#[test]
fn a_journal_that_is_taken_away_is_noticed_and_goes_on() {
    take_away("its segments are removed", |journal| {
        for entry in fs::read_dir(journal).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                fs::remove_file(path).unwrap();
            }
        }
    });
    take_away("its folder is removed", |journal| fs::remove_dir_all(journal).unwrap());
    take_away("its folder is moved", |journal| {
        fs::rename(journal, journal.with_extension("old")).unwrap()
    });
    take_away("its segment is emptied", |journal| {
        fs::write(journal.join("events-00000000000000000001.jsonl"), "").unwrap();
    });
    take_away("another file is put there", |journal| {
        let segment = journal.join("events-00000000000000000001.jsonl");
        fs::write(journal.join("other"), "{}\n").unwrap();
        fs::rename(journal.join("other"), segment).unwrap();
    });
}

#[test]
fn a_journal_whose_lock_is_removed_goes_on_where_it_was() {
    let mut server = TestServer::start(&["--journal", "journal"]);
    let journal = server.path("journal");
    publish(&server, 0..10);
    fs::remove_file(journal.join("journal.lock")).unwrap();
    eventually("the lock is there again", || {
        journal.join("journal.lock").exists().then_some(())
    });
    let (status, _, said) = run(
        server.folder().path(),
        &[
            "serve",
            "--port",
            "0",
            "--event-socket-path",
            "other.sock",
            "--journal",
            "journal",
        ],
    );
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("another server writes this journal"), "{said}");
    publish(&server, 10..20);
    assert_eq!(server.health()["journal"]["dropped"], 0);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(
        lines(&journal)
            .iter()
            .filter(|line| line.get("event").is_some())
            .count(),
        20
    );
}

#[test]
fn a_journal_that_another_server_has_taken_is_left_alone() {
    let mut server = TestServer::start(&["--journal", "journal"]);
    let journal = server.path("journal");
    publish(&server, 0..10);
    server.suspend();
    fs::remove_dir_all(&journal).unwrap();
    let other_folder = folder();
    let path = journal.to_str().unwrap().to_owned();
    let mut other = TestServer::start_in(Arc::clone(&other_folder), &["--journal", &path]);
    publish(&other, 0..5);
    server.signal(Signal::CONT);
    let said = server.wait_for_line("🚨 the journal cannot be written: its folder is not ours any more");
    assert!(said.contains("Stop that server, then restart this one"), "{said}");
    let health = server.health();
    assert_eq!(
        (&health["status"], &health["journal"]["state"]),
        (&"degraded".into(), &"failed".into())
    );
    // The stream goes on; what the other one has written stays its own.
    let mut client = server.client();
    server.send(numbered(10, 200));
    client.expect_numbers(10..11);
    assert_eq!(other.stop().code(), Some(0));
    eventually("what is there is not ours", || {
        let health = server.health();
        let error = health["journal"]["error"].as_str()?;
        error
            .contains("its folder has files that this server does not know")
            .then_some(())
    });
    // Looks go by, and it stays so; the lock is free for who has the right to it.
    let begun = std::time::Instant::now();
    eventually("three seconds go by", || {
        (begun.elapsed() > Duration::from_secs(3)).then_some(())
    });
    assert_eq!(server.health()["journal"]["state"], "failed");
    assert!(!journal.join("journal.lock").exists());
    let mut again = TestServer::start_in(Arc::clone(&other_folder), &["--journal", &path]);
    assert_eq!(again.stop().code(), Some(0));
    let kept = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = kept.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert_eq!(
        lines(&journal)
            .iter()
            .filter(|line| line.get("event").is_some())
            .count(),
        5
    );
    server.stop();
    for (path, bytes) in kept {
        assert_eq!(fs::read(&path).unwrap(), bytes, "{}", path.display());
    }
}

#[test]
fn a_server_without_its_folder_removes_nothing_there() {
    let keep = Duration::from_secs(6);
    let flags = [
        "--journal",
        "journal",
        "--journal-segment-bytes",
        "64KiB",
        "--journal-keep-age",
        "6s",
    ];
    let mut server = TestServer::start(&flags);
    let journal = server.path("journal");
    publish(&server, 0..1500);
    // Another folder with the same files takes its place, and another server that.
    server.suspend();
    let begun = std::time::Instant::now();
    let other_folder = folder();
    let other_journal = other_folder.path().join("journal");
    fs::create_dir(&other_journal).unwrap();
    for entry in fs::read_dir(&journal).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, other_journal.join(path.file_name().unwrap())).unwrap();
    }
    fs::rename(&journal, journal.with_extension("old")).unwrap();
    fs::rename(&other_journal, &journal).unwrap();
    let names = || {
        let entries = fs::read_dir(&journal).unwrap();
        let names: std::collections::BTreeSet<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names
    };
    let _other = TestServer::start_in(other_folder, &["--journal", journal.to_str().unwrap()]);
    let before = names();
    assert!(before.len() > 3, "{before:?}");
    server.signal(Signal::CONT);
    server.wait_for_line("🚨 the journal cannot be written: its folder is not ours any more");
    eventually("what it knows has become too old", || {
        (begun.elapsed() > 2 * keep).then_some(())
    });
    assert_eq!(names(), before);
    server.stop();
    assert_eq!(names(), before);
}

/// Starts a server that must not come up: its status, and what it said.
fn refused(folder: &Path, flags: &[&str]) -> (i32, String) {
    let base = ["serve", "--port", "0", "--event-socket-path", "events.sock"];
    let (status, _, said) = run(folder, &[&base[..], flags].concat());
    (status, said)
}

#[test]
fn what_may_never_answer_is_refused_at_the_start() {
    let cases: [(&str, &[&str], &str); 4] = [
        (
            "journal/events-00000000000000000001.jsonl",
            &["--journal", "journal"],
            "cannot read the journal",
        ),
        (
            "journal/journal.lock",
            &["--journal", "journal"],
            "cannot write to the journal's folder",
        ),
        ("state.json", &["--state-file", "state.json"], "cannot use state.json"),
        (
            "status.json",
            &["--status-file", "status.json"],
            "cannot use status.json",
        ),
    ];
    for (path, flags, expected) in cases {
        let folder = folder();
        fs::create_dir(folder.path().join("journal")).unwrap();
        fifo(&folder.path().join(path));
        let (status, said) = refused(folder.path(), flags);
        assert_eq!(status, 1, "{path}: {said}");
        assert!(
            said.contains(expected) && said.contains("it is a FIFO"),
            "{path}: {said}"
        );
        // Nobody can send to a server that is not there, and the file is still what it was.
        assert!(!folder.path().join("events.sock").exists(), "{path}");
        assert!(fs::symlink_metadata(folder.path().join(path)).is_ok(), "{path}");
    }
}

#[test]
fn dev_null_keeps_nothing_and_stays_what_it_is() {
    for flag in ["--state-file", "--status-file"] {
        let mut server = TestServer::start(&[flag, "/dev/null"]);
        server.send(state_change("m", "a", "b", 1.5));
        eventually("the machine is known", || {
            (server.health()["machines"] == 1).then_some(())
        });
        assert_eq!(server.stop().code(), Some(0), "{}", server.lines().all());
    }
    assert!(fs::read("/dev/null").unwrap().is_empty());
    assert!(!fs::symlink_metadata("/dev/null").unwrap().is_file());
    assert!(!Path::new("/dev/null.new").exists());
}

/// Has the fan-out hang: the watchdog says so, and `/health`, and both that it goes on.
fn a_hang_is_seen(server: &TestServer) {
    let answer = server.act("/drill?component=fanout&ms=30000");
    assert_eq!(answer.status, 200, "{}", answer.body);
    server.wait_for_line("SERVER HANG DETECTED: fanout");
    eventually("/health says so", || {
        (server.http("GET", "/health", &[]).status == 503).then_some(())
    });
    server.act("/drill?component=fanout&ms=0");
    eventually("it is over", || {
        (server.http("GET", "/health", &[]).status == 200).then_some(())
    });
}

/// As often as there are hangs: the first has not cost the watchdog.
fn hangs_are_seen(server: &TestServer) {
    a_hang_is_seen(server);
    server.act("/drill?component=inbox&ms=30000");
    server.wait_for_line("SERVER HANG DETECTED: inbox");
    server.act("/drill?component=inbox&ms=0");
}

#[test]
fn a_report_file_that_is_a_fifo_costs_no_report() {
    let folder = folder();
    fs::create_dir(folder.path().join("logs")).unwrap();
    fifo(&folder.path().join("logs/hang-emergency.log"));
    let flags = ["--allow-drill", "--hang-timeout", "1s"];
    let mut server = TestServer::start_in(folder, &flags);
    server.wait_for_line("cannot open logs/hang-emergency.log: it is a FIFO");
    hangs_are_seen(&server);
    // The stop does not wait for a watchdog that is in the middle of a report.
    let said = "💾 the report could not be written to logs/hang-emergency.log: it is a FIFO";
    eventually("both reports are over", || {
        (server.lines().with(said).len() == 2).then_some(())
    });
    assert_eq!(server.stop().code(), Some(0), "{}", server.lines().all());
}

/// A file system whose requests nobody answers: what opens something there waits for ever.
const DEAD_DISK: &str = "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 dead";

fn dead_disks() -> Option<&'static [&'static str]> {
    let shell = mounting_shell()?;
    let folder = folder();
    let status = std::process::Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", &format!("{DEAD_DISK} .")])
        .current_dir(folder.path())
        .status();
    if status.is_ok_and(|status| status.success()) {
        return Some(shell);
    }
    crate::support::skipped("disks that never answer, because this host has no FUSE for this user");
    None
}

#[test]
fn a_dead_disk_under_the_reports_stops_nobody_else() {
    let Some(shell) = dead_disks() else { return };
    let folder = folder();
    fs::create_dir(folder.path().join("dead")).unwrap();
    fs::create_dir(folder.path().join("logs")).unwrap();
    symlink("../dead/reports.log", folder.path().join("logs/hang-emergency.log")).unwrap();
    let flags = ["--allow-drill", "--hang-timeout", "1s"];
    let mut server = TestServer::start_command(Arc::clone(&folder), &flags, |command| {
        in_shell(command, shell, &format!("{DEAD_DISK} dead"));
    });
    server.wait_for_line("SERVER HANG DETECTED: reports");
    let said = server.wait_for_line("💾 the report is not in logs/hang-emergency.log yet");
    assert!(said.contains("its disk has not answered for 1 s"), "{said}");
    let mut client = server.client();
    for number in 0..20 {
        server.send(numbered(number, 200));
        client.expect_numbers(number..number + 1);
    }
    a_hang_is_seen(&server);
    // The thread stands still in the kernel, and is left behind.
    assert_eq!(server.stop().code(), Some(1), "{}", server.lines().all());
    server.wait_for_line("thread reports did not end within");
}

/// Owner of what another user puts somewhere.
const SOMEBODY: u32 = 12345;

#[test]
fn the_log_follows_no_link_that_another_user_can_have_put_there() {
    if !geteuid().is_root() {
        return crate::support::skipped("links of another user, which only root can make for a test");
    }
    for (what, owner, mode, expected) in [
        (
            "a link of another user",
            SOMEBODY,
            0o755,
            "is a link that user 12345 has made, which is not followed",
        ),
        (
            "our link where others may write",
            0,
            0o777,
            "is a link in a folder that other users may write",
        ),
    ] {
        let folder = folder();
        let (logs, precious) = (folder.path().join("logs"), folder.path().join("precious"));
        fs::create_dir(&logs).unwrap();
        fs::set_permissions(&logs, fs::Permissions::from_mode(mode)).unwrap();
        fs::write(&precious, "precious").unwrap();
        for name in ["websocket-server.log", "hang-emergency.log"] {
            symlink(&precious, logs.join(name)).unwrap();
            lchown(logs.join(name), Some(owner), None).unwrap();
        }
        let server = TestServer::start_in(folder, &[]);
        let said = server.wait_for_line("cannot write logs/websocket-server.log: websocket-server.log");
        assert!(said.contains(expected), "{what}: {said}");
        let said = server.wait_for_line("cannot open logs/hang-emergency.log: hang-emergency.log");
        assert!(said.contains(expected), "{what}: {said}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{what}");
    }
}

#[test]
fn a_log_that_people_link_elsewhere_is_followed() {
    let folder = folder();
    let (logs, elsewhere) = (folder.path().join("logs"), folder.path().join("elsewhere"));
    fs::create_dir(&logs).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    symlink("../elsewhere/server.log", logs.join("websocket-server.log")).unwrap();
    symlink(elsewhere.join("reports.log"), logs.join("hang-emergency.log")).unwrap();
    symlink("elsewhere/state.json", folder.path().join("state.json")).unwrap();
    let mut server = TestServer::start_in(Arc::clone(&folder), &["--state-file", "state.json"]);
    server.send(state_change("m", "a", "b", 1.5));
    eventually("the machine is saved where the link leads", || {
        fs::read_to_string(elsewhere.join("state.json")).ok()
    });
    assert_eq!(server.stop().code(), Some(0), "{}", server.lines().all());
    assert!(folder.path().join("state.json").is_symlink());
    let log = fs::read_to_string(elsewhere.join("server.log")).unwrap();
    assert!(
        log.contains(" listens on http://") && log.contains("👋 stopped in"),
        "{log}"
    );
    assert!(elsewhere.join("reports.log").exists());
    assert!(logs.join("websocket-server.log").is_symlink());
}

#[test]
fn a_log_that_leads_to_standard_error_goes_there() {
    let folder = folder();
    fs::create_dir(folder.path().join("logs")).unwrap();
    symlink("/dev/stderr", folder.path().join("logs/websocket-server.log")).unwrap();
    let server = TestServer::start_in(folder, &[]);
    // Once from the terminal's own way, once from the file's.
    eventually("it is there twice", || {
        (server.lines().with(" listens on http://").len() == 2).then_some(())
    });
    assert_eq!(server.lines().with("cannot write"), [""; 0]);
}

#[test]
fn a_changed_mode_of_the_event_socket_is_noticed() {
    let server = TestServer::start(&[]);
    let mode = |mode| fs::set_permissions(server.socket_path(), fs::Permissions::from_mode(mode)).unwrap();
    let given = fs::metadata(server.socket_path()).unwrap().permissions().mode() & 0o777;
    mode(0o000);
    let said = server.wait_for_line("somebody has changed the permissions of event socket");
    assert!(
        said.contains("to 000") && said.contains(&format!("chmod {given:03o}")),
        "{said}"
    );
    let health = eventually("health says so", || {
        Some(server.health()).filter(|health| health["status"] == "degraded")
    });
    assert!(
        health["reasons"].to_string().contains("has permissions 000 now"),
        "{health}"
    );
    mode(given);
    server.wait_for_line(&format!("has its permissions {given:03o} again"));
    assert_eq!(server.health()["status"], "ok");
}

#[test]
fn two_servers_that_share_a_log_rotate_it() {
    let folder = folder();
    let logs = folder.path().join("logs");
    let shared = logs.to_str().unwrap();
    let flags = ["--log-dir", shared, "--log-level", "debug"];
    let mut first = TestServer::start_in(Arc::clone(&folder), &flags);
    let other = crate::files::folder();
    let mut second = TestServer::start_in(other, &flags);
    // Nearly full: each of them has some of what is to come.
    let log = logs.join("websocket-server.log");
    let full = 10 * 1024 * 1024;
    let filler = vec![b'\n'; full - 2000 - fs::metadata(&log).unwrap().len() as usize];
    std::io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(&log).unwrap(), &filler).unwrap();
    for round in 0..60 {
        for server in [&first, &second] {
            server.http("GET", &format!("/nothing-{round}"), &[]);
        }
    }
    assert_eq!(first.stop().code(), Some(0));
    assert_eq!(second.stop().code(), Some(0));
    let size = |name: &str| fs::metadata(logs.join(name)).map_or(0, |facts| facts.len());
    assert!(size("websocket-server.log.1") > full as u64 / 2, "it was not rotated");
    assert!(
        size("websocket-server.log") < full as u64 / 2,
        "{}",
        size("websocket-server.log")
    );
    assert_eq!(size("websocket-server.log.2"), 0, "it was rotated once, by one of them");
    let now = fs::read_to_string(&log).unwrap();
    assert_eq!(
        now.matches("👋 stopped in").count(),
        2,
        "both go on in the new file: {now}"
    );
}

#[test]
fn a_start_on_a_dead_disk_ends_when_it_is_told_to() {
    let Some(shell) = dead_disks() else { return };
    let folder = folder();
    fs::create_dir(folder.path().join("dead")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_threadcast"));
    command
        .args([
            "serve",
            "--port",
            "0",
            "--event-socket-path",
            "events.sock",
            "--state-file",
            "dead/state.json",
        ])
        .current_dir(folder.path());
    in_shell(&mut command, shell, &format!("{DEAD_DISK} dead"));
    let mut child = command.spawn().unwrap();
    eventually("it starts", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let mut names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.any(|name| name == "start\n").then_some(())
    });
    // Held by that disk in the kernel, so that it runs no handler.
    eventually("its main thread is held", || {
        let state = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        state
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('D')
            .then_some(())
    });
    let begun = std::time::Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let status = eventually("it ends", || {
        let status = child.try_wait().unwrap();
        // Its end at the deadline is not the one that is meant, but leaves nothing behind.
        if begun.elapsed() > Duration::from_secs(30) {
            let _ = child.kill();
        }
        status
    });
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("it is reading the state file dead/state.json"), "{said}");
    assert!(!folder.path().join("events.sock").exists());
}
