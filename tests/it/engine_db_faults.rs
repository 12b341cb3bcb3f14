//! Whatever happens to the engines' database - gone, replaced, locked, damaged, not theirs, huge - the stream goes on,
//! one line says what is wrong and what to do, the machines last read stay, and afterwards everything is read again.

use crate::support::engine_db::{EngineDb, SCHEMA, epoch, living_pid};
use crate::support::server::{in_shell, mounting_shell};
use crate::support::{
    DEADLINE, Sender, TestClient, TestServer, eventually, number_of, numbered, pause, skipped, state_change, within,
};
use rusqlite::Connection;
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where the server looks by itself.
const PATH: &str = "data/pipeline.db";
/// Some looks, for what must not be said again.
const LOOKS: Duration = Duration::from_millis(1500);
/// No event may take so long: less than the 5 s for which the original stands still when its database is locked.
const LATE: Duration = Duration::from_secs(4);

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// Runs them at once: they mostly wait.
fn at_once(scenes: &[(&str, &(dyn Fn() + Sync))]) {
    std::thread::scope(|scope| {
        for (what, scene) in scenes {
            eprintln!("{what}");
            scope.spawn(scene);
        }
    });
}

/// A server with a client to which events go, one by one, for as long as anybody waits for anything.
struct Scene {
    server: TestServer,
    client: TestClient,
    sender: Sender,
    /// Events sent so far.
    sent: usize,
    /// What came between them.
    others: Vec<String>,
    slowest: Duration,
}

impl Scene {
    /// At a database with two machines, from which one event was recovered.
    #[track_caller]
    fn start() -> Scene {
        Scene::start_in(folder(), |_| ())
    }

    #[track_caller]
    fn start_in(folder: Arc<TempDir>, change: impl FnOnce(&mut Command)) -> Scene {
        let db = EngineDb::create(folder.path().join(PATH));
        two_machines(&db);
        let mut scene = Scene::of(TestServer::start_command(folder, &[], change));
        let line = format!("🗄️ engine database {PATH}: 2 machines");
        scene.flows_until(&line, |server| server.lines().with(&line).pop());
        let event = refused(&db, "before");
        scene.recovers(&event);
        scene
    }

    #[track_caller]
    fn of(server: TestServer) -> Scene {
        Scene {
            client: server.client(),
            sender: server.sender(),
            server,
            sent: 0,
            others: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    /// The database in the server's place for it.
    fn path(&self) -> PathBuf {
        self.server.path(PATH)
    }

    /// One more event, which must come, and not late.
    #[track_caller]
    fn flows(&mut self) {
        let begun = Instant::now();
        self.sender.send(&numbered(self.sent, 100)).unwrap();
        loop {
            let text = self.client.text();
            match number_of(text.as_bytes()) {
                Some(number) => break assert_eq!(number, self.sent, "{text}"),
                None => self.others.push(text),
            }
        }
        self.sent += 1;
        self.slowest = self.slowest.max(begun.elapsed());
        assert!(self.slowest < LATE, "an event took {:?}", self.slowest);
    }

    /// Events flow until `condition` gives something.
    #[track_caller]
    fn flows_until<T>(&mut self, what: &str, mut condition: impl FnMut(&TestServer) -> Option<T>) -> T {
        eventually(what, || {
            self.flows();
            let value = condition(&self.server);
            if value.is_none() {
                pause(Duration::from_millis(10));
            }
            value
        })
    }

    /// Events flow for `duration`, which is what it is about.
    #[track_caller]
    fn flows_for(&mut self, duration: Duration) {
        let begun = Instant::now();
        self.flows_until("a length of time", |_| (begun.elapsed() > duration).then_some(()));
    }

    /// Waits for a recovered event; it must come once.
    #[track_caller]
    fn recovers(&mut self, event: &str) {
        eventually(&format!("it is recovered: {event}"), || {
            self.flows();
            self.times(event).gt(&0).then_some(())
        });
        assert_eq!(self.times(event), 1, "{event}");
    }

    /// How often the client was sent `event`, but for those made by `numbered`.
    fn times(&self, event: &str) -> usize {
        self.others.iter().filter(|text| *text == event).count()
    }

    /// The row of `machine` in `/initial`.
    fn row(&self, machine: &str) -> Option<Value> {
        row(&self.server, machine)
    }

    /// The fault is there: one line tells of it and stays the only one, the stream and the machines stay, newcomers are
    /// served, and `/health` tells it as no fault of the stream.
    #[track_caller]
    fn suffers(&mut self, says: &str, state: &str) {
        let begun = format!("⚠️ engine database {PATH} cannot be read: {says}");
        let line = self.flows_until(&begun, |server| server.lines().with(&begun).pop());
        let end = ". The machines last read stay; looking again every ";
        let text = line.split_once(&begun).unwrap().1.split_once(end).expect(&line).0;
        let remedy = text.split_once("; ").expect(&line).1;
        assert!(remedy.len() > 10, "no remedy: {line}");

        let change = state_change("wire", "a", "b", epoch());
        self.server.send(&change);
        self.flows_until("the wire fills the table", |server| {
            row(server, "wire").filter(|row| row["current_state"] == "b")
        });
        let asked = Instant::now();
        drop(self.server.client());
        assert!(asked.elapsed() < LATE, "a newcomer waited {:?}", asked.elapsed());
        self.flows_for(LOOKS);
        assert_eq!(self.faults(), 1, "{}", self.server.lines().all());
        for machine in ["kept", "other"] {
            assert_eq!(self.row(machine).expect(machine)["current_state"], "idle");
        }
        let health = self.server.health();
        assert_eq!(health["status"], "ok", "{health}");
        let told = &health["engine_db"];
        assert_eq!(told["state"], state, "{told}");
        assert_eq!(
            (&told["path"], told["error"].is_string()),
            (&PATH.into(), true),
            "{told}"
        );
        assert!(
            told["seconds_since_read"].as_f64().unwrap() > LOOKS.as_secs_f64(),
            "{told}"
        );
    }

    /// How many lines told of a fault.
    fn faults(&self) -> usize {
        self.server.lines().with(" cannot be read").len()
    }

    /// What was wrong is mended, the machine "fresh" and the event `after` were written: all of it is read.
    #[track_caller]
    fn comes_back(mut self, after: &str) {
        let line = format!("✅ engine database {PATH} can be read again: ");
        self.flows_until(&line, |server| server.lines().with(&line).pop());
        self.flows_until("the new machine is there", |server| row(server, "fresh"));
        self.recovers(after);
        self.flows_until("it is well", |server| {
            let told = &server.health()["engine_db"];
            (told["state"] == "ok" && told["error"].is_null()).then_some(())
        });
        self.flows_for(LOOKS / 2);
        assert_eq!(
            (self.faults(), self.server.lines().with(&line).len()),
            (1, 1),
            "{}",
            self.server.lines().all()
        );
        // Nothing was recovered twice.
        assert_eq!((self.times(&event("before")), self.times(after)), (1, 1));
        assert_eq!(self.server.stop().code(), Some(0));
    }
}

/// The row of `machine` in `/initial`.
fn row(server: &TestServer, machine: &str) -> Option<Value> {
    let initial = server.initial();
    let rows = initial["machines"].as_array().unwrap();
    rows.iter().find(|row| row["machine_name"] == machine).cloned()
}

fn two_machines(db: &EngineDb) {
    for machine in ["kept", "other"] {
        db.machine(machine, "idle", epoch(), living_pid(), Some("conf"));
    }
}

/// Writes the event of that name as an engine does whose server is deaf; gives it as clients get it.
#[track_caller]
fn refused(db: &EngineDb, name: &str) -> String {
    db.refused("load", "refused", &format!("{{\"which\": \"{name}\"}}"));
    event(name)
}

fn event(name: &str) -> String {
    format!("{{\"machine_name\": \"load\", \"type\": \"refused\", \"payload\": {{\"which\": \"{name}\"}}}}")
}

/// What a mended database has.
#[track_caller]
fn news(db: &EngineDb) -> String {
    db.machine("fresh", "idle", epoch(), living_pid(), Some("conf"));
    refused(db, "after")
}

/// Another database with the two machines and the news, ready to be put in place at once.
#[track_caller]
fn another(folder: &Path) -> (PathBuf, String) {
    let path = folder.join("another.db");
    let db = EngineDb::create(&path);
    two_machines(&db);
    let event = news(&db);
    (path, event)
}

#[test]
fn a_database_that_is_not_there_yet_is_nothing_to_speak_of_and_is_read_when_it_comes() {
    let mut scene = Scene::of(TestServer::start(&[]));
    scene.flows_for(LOOKS);
    let said = scene.server.lines().with("engine database");
    assert!(said.is_empty(), "{said:?}");
    let told = &scene.server.health()["engine_db"];
    assert_eq!(
        (&told["state"], &told["error"]),
        (&"absent".into(), &Value::Null),
        "{told}"
    );
    assert!(!scene.path().parent().unwrap().exists(), "nobody asked for it");

    // An engine makes the file first, then its tables.
    fs::create_dir(scene.server.path("data")).unwrap();
    File::create(scene.path()).unwrap();
    scene.flows_for(LOOKS);
    let (ready, event) = another(&scene.server.path(""));
    fs::rename(ready, scene.path()).unwrap();
    let line = format!("🗄️ engine database {PATH}: 3 machines");
    scene.flows_until(&line, |server| server.lines().with(&line).pop());
    for machine in ["kept", "other", "fresh"] {
        assert!(scene.row(machine).is_some(), "{machine}");
    }
    scene.recovers(&event);
    assert_eq!(scene.server.lines().with("engine database").len(), 1);
}

#[test]
fn another_database_in_its_place_is_read_with_its_events_from_the_first() {
    let mut scene = Scene::start();
    let old = EngineDb::open(scene.path());
    for number in 0..5 {
        let event = refused(&old, &format!("old {number}"));
        scene.recovers(&event);
    }
    let change = state_change("kept", "idle", "heard of", epoch());
    scene.server.send(&change);

    let path = scene.server.path("another.db");
    let new = EngineDb::create(&path);
    new.machine("fresh", "idle", epoch(), living_pid(), Some("conf"));
    let events: Vec<String> = (0..3).map(|number| refused(&new, &format!("new {number}"))).collect();
    assert_eq!(new.connection().last_insert_rowid(), 3, "they begin at 1 again");
    drop(new);
    fs::rename(path, scene.path()).unwrap();
    let line = format!("🗄️ engine database {PATH}: 1 machine");
    scene.flows_until(&line, |server| server.lines().with(&line).pop());
    for event in &events {
        scene.recovers(event);
    }
    scene.flows_until("the machine of the other one alone is gone", |server| {
        row(server, "other").is_none().then_some(())
    });
    // It was heard of on the wire, so it is more than a row of that file.
    assert_eq!(scene.row("kept").unwrap()["current_state"], "heard of");
    assert!(scene.row("fresh").is_some());
    let late = refused(&EngineDb::open(scene.path()), "late");
    scene.recovers(&late);
    scene.flows_for(LOOKS);
    let of_both = scene.others.iter().filter(|text| text.contains("\"refused\""));
    let mut of_both: Vec<&String> = of_both.collect();
    of_both.sort();
    of_both.dedup();
    assert_eq!(of_both.len(), 1 + 5 + 3 + 1);
    assert_eq!(scene.times(&events[0]), 1);
    assert_eq!(scene.faults(), 0);
}

#[test]
fn a_database_that_goes_leaves_its_machines_and_is_read_when_it_is_back() {
    let gone = || {
        let mut scene = Scene::start();
        fs::remove_file(scene.path()).unwrap();
        scene.suffers("it is gone", "fault");
        // Maybe at the same inode; the ids begin at 1 again.
        let db = EngineDb::create(scene.path());
        two_machines(&db);
        let event = news(&db);
        scene.comes_back(&event);
    };
    let moved = || {
        let mut scene = Scene::start();
        let aside = scene.server.path("aside.db");
        fs::rename(scene.path(), &aside).unwrap();
        scene.suffers("it is gone", "fault");
        let event = news(&EngineDb::open(&aside));
        fs::rename(aside, scene.path()).unwrap();
        // The same file, whose first event was recovered before.
        scene.comes_back(&event);
    };
    let truncated = || {
        let mut scene = Scene::start();
        File::create(scene.path()).unwrap();
        scene.suffers("it is gone", "fault");
        // The same inode, and the ids begin at 1 again.
        let db = EngineDb::open(scene.path());
        db.execute(&format!("BEGIN; {SCHEMA} COMMIT;"));
        two_machines(&db);
        let event = news(&db);
        scene.comes_back(&event);
    };
    let covered = || {
        let mut scene = Scene::start();
        let aside = scene.server.path("aside.db");
        fs::rename(scene.path(), &aside).unwrap();
        fs::create_dir(scene.path()).unwrap();
        scene.suffers("it is a folder and no file", "fault");
        fs::remove_dir(scene.path()).unwrap();
        let event = news(&EngineDb::open(&aside));
        fs::rename(aside, scene.path()).unwrap();
        scene.comes_back(&event);
    };
    at_once(&[
        ("gone", &gone),
        ("moved away and back", &moved),
        ("truncated", &truncated),
        ("a folder in its place", &covered),
    ]);
}

#[test]
fn a_database_that_cannot_be_read_without_writing_beside_it_is_left_alone() {
    let mut scene = Scene::start_in(folder(), |command| {
        command.args(["--db-interval", "2s"]);
    });
    let beside = || {
        let files = fs::read_dir(scene.path().parent().unwrap()).unwrap().flatten();
        let mut names: Vec<_> = files.map(|file| file.file_name()).collect();
        names.sort();
        names
    };
    let before = beside();
    // Just after a look: a statement that has begun cannot know that it is made another kind of database.
    eventually("it was just read", || {
        let read = scene.server.health()["engine_db"]["seconds_since_read"].as_f64();
        read.filter(|seconds| *seconds < 0.3)
    });
    // With the end of its last connection its log goes.
    EngineDb::open(scene.path()).execute("PRAGMA journal_mode=WAL");
    assert_eq!(beside(), before);
    scene.suffers("it has a write-ahead log", "fault");
    let now = fs::read_dir(scene.path().parent().unwrap()).unwrap().count();
    assert_eq!(now, before.len(), "the server made a file");
    let db = EngineDb::open(scene.path());
    db.execute("PRAGMA journal_mode=DELETE");
    let event = news(&db);
    scene.comes_back(&event);
}

#[test]
fn a_database_that_is_not_the_engines_is_named_as_such() {
    let no_database = || {
        let mut scene = Scene::start();
        let aside = scene.server.path("aside.db");
        fs::hard_link(scene.path(), &aside).unwrap();
        let text = scene.server.path("text");
        fs::write(&text, "these are no pages\n".repeat(1000)).unwrap();
        fs::rename(text, scene.path()).unwrap();
        scene.suffers("it is no SQLite database", "fault");
        let event = news(&EngineDb::open(&aside));
        fs::rename(aside, scene.path()).unwrap();
        scene.comes_back(&event);
    };
    let changed = |change: &str, says: &str, mend: &str| {
        let mut scene = Scene::start();
        let db = EngineDb::open(scene.path());
        db.execute(change);
        scene.suffers(&format!("it is not the engine's: {says}"), "fault");
        db.execute(&format!("BEGIN; {mend}; COMMIT;"));
        let event = news(&db);
        scene.comes_back(&event);
    };
    at_once(&[
        ("no database", &no_database),
        ("no table of machines", &|| {
            changed(
                "ALTER TABLE machine_state RENAME TO another",
                "no such table: machine_state",
                "ALTER TABLE another RENAME TO machine_state",
            );
        }),
        ("a column missing", &|| {
            changed(
                "ALTER TABLE machine_state DROP COLUMN config_type",
                "no such column: config_type",
                "ALTER TABLE machine_state ADD COLUMN config_type TEXT",
            );
        }),
        ("no table of events", &|| {
            // Its ids begin at 1 again.
            let schema = SCHEMA.split_once("CREATE TABLE realtime_events").unwrap().1;
            changed(
                "DROP TABLE realtime_events",
                "no such table: realtime_events",
                &format!("CREATE TABLE realtime_events {schema}"),
            );
        }),
    ]);
}

#[test]
fn a_database_that_cannot_be_read_is_named_with_what_to_do() {
    at_once(&[
        ("damaged", &damaged),
        ("a writer was killed", &killed_writer),
        ("not for this user", &forbidden),
    ]);
}

fn damaged() {
    let mut scene = Scene::start();
    let db = EngineDb::open(scene.path());
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         INSERT INTO machine_state SELECT 'm' || i, 'idle', 1e9 + i, NULL, hex(randomblob(100)), 'c' FROM n",
    );
    scene.flows_until("all are read", |server| {
        (server.health()["engine_db"]["machines"] == 202).then_some(())
    });
    let (page, pages) = leaves_of_machine_state(db.connection());
    let file = File::options().read(true).write(true).open(scene.path()).unwrap();
    let whole: Vec<Vec<u8>> = pages.iter().map(|at| read_page(&file, at * page, page)).collect();
    for at in &pages {
        file.write_all_at(&vec![0xa5; page as usize], at * page).unwrap();
    }
    // A change of the other table, whose pages are whole.
    let damaged = refused(&db, "while damaged");
    scene.suffers("it is damaged", "fault");

    for (at, bytes) in pages.iter().zip(&whole) {
        file.write_all_at(bytes, at * page).unwrap();
    }
    let db = EngineDb::open(scene.path());
    let event = news(&db);
    scene.recovers(&damaged);
    scene.comes_back(&event);
}

fn read_page(file: &File, at: u64, len: u64) -> Vec<u8> {
    let mut page = vec![0; len as usize];
    file.read_exact_at(&mut page, at).unwrap();
    page
}

/// The length of a page in bytes, and which pages the rows of the machines are in.
fn leaves_of_machine_state(connection: &Connection) -> (u64, Vec<u64>) {
    let number = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap() as u64;
    let page = number("PRAGMA page_size");
    let sql = "SELECT pageno FROM dbstat WHERE name = 'machine_state' AND pagetype = 'leaf'";
    let mut statement = connection.prepare(sql).unwrap();
    let numbers = statement.query_map((), |row| row.get::<_, i64>(0)).unwrap();
    let pages: Vec<u64> = numbers.map(|number| number.unwrap() as u64 - 1).collect();
    assert!(pages.len() > 3);
    (page, pages)
}

/// Its half change is never shown.
fn killed_writer() {
    let mut scene = Scene::start();
    let (database, after) = half_changed(&scene.server.path(""));
    let journal = |path: &Path| PathBuf::from(format!("{}-journal", path.display()));
    fs::rename(journal(&database), journal(&scene.path())).unwrap();
    fs::rename(database, scene.path()).unwrap();
    scene.suffers("a writer was killed in the middle of a change", "fault");
    let said = scene.server.lines().with(" cannot be read").pop().unwrap();
    assert!(said.contains(&format!("({PATH}-journal)")), "{said}");
    assert!(journal(&scene.path()).exists(), "it is not for the server to touch");
    assert!(scene.row("fresh").is_none());

    // Whoever opens it for writing takes the half change back.
    let db = EngineDb::open(scene.path());
    db.machine("late", "idle", epoch(), living_pid(), None);
    scene.flows_until("it is read again", |server| row(server, "late"));
    assert_eq!(scene.row("kept").unwrap()["current_state"], "idle");
    assert!(!scene.others.iter().any(|text| text.contains("half")));
    scene.comes_back(&after);
}

/// A database and its journal as a writer leaves them that is killed when part of a large change is on the disk.
fn half_changed(folder: &Path) -> (PathBuf, String) {
    let (origin, after) = another(folder);
    let db = EngineDb::open(&origin);
    db.execute("PRAGMA cache_size = 5; BEGIN; UPDATE machine_state SET current_state = 'half', config_type = 'half'");
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO realtime_events
         (machine_name, event_type, payload) SELECT 'half', 'half', json_quote(hex(zeroblob(100))) FROM n",
    );
    let copy = folder.join("half.db");
    fs::copy(&origin, &copy).unwrap();
    fs::copy(folder.join("another.db-journal"), folder.join("half.db-journal")).unwrap();
    db.execute("ROLLBACK");
    let pages = fs::read(&copy).unwrap();
    assert!(
        pages.windows(4).any(|window| window == b"half"),
        "the change is on the disk"
    );
    (copy, after)
}

fn forbidden() {
    let folder = folder();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    // Permissions do not bind root, so the server runs as another user then, with a number of its own.
    let user = 65_000 + std::process::id() % 400;
    let user = ["--reuid", "--regid"].map(|flag| format!("{flag}={user}"));
    let shell = ["setpriv", &user[0], &user[1], "--clear-groups", "--", "sh"];
    let mut scene = Scene::start_in(Arc::clone(&folder), |command| {
        if rustix::process::geteuid().is_root() {
            in_shell(command, &shell, "true");
        }
    });
    let (ready, event) = another(folder.path());
    fs::set_permissions(&ready, Permissions::from_mode(0o000)).unwrap();
    fs::rename(ready, scene.path()).unwrap();
    scene.suffers("", "fault");
    fs::set_permissions(scene.path(), Permissions::from_mode(0o644)).unwrap();
    scene.comes_back(&event);
}

#[test]
fn a_locked_database_delays_nobody_and_its_locker_is_named() {
    at_once(&[
        ("locked for long", &locked),
        ("locked for a moment", &locked_for_a_moment),
        ("locked at the start", &locked_at_the_start),
    ]);
}

fn locked() {
    let mut scene = Scene::start();
    let db = EngineDb::open(scene.path());
    db.execute("BEGIN EXCLUSIVE");
    scene.suffers(&locker(), "locked");
    let event = news(&db);
    db.execute("COMMIT");
    scene.comes_back(&event);
}

/// What must be said of a lock that this process holds.
fn locker() -> String {
    let us = std::process::id();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    // 1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 1073741824 1073742335 (proc_locks(5))
    if locks
        .lines()
        .any(|line| line.split_whitespace().nth(4) == Some(&us.to_string()))
    {
        return format!("process {us} (");
    }
    skipped("the name of who has locked it, because /proc/locks does not tell here");
    "another process has locked it".to_owned()
}

/// That is not worth a line.
fn locked_for_a_moment() {
    let mut scene = Scene::start();
    let db = EngineDb::open(scene.path());
    db.execute("BEGIN EXCLUSIVE");
    let mut free = Instant::now();
    scene.flows_until("one look has seen it", |server| {
        let looked = Instant::now();
        let state = server.health()["engine_db"]["state"].clone();
        if state == "ok" {
            free = looked;
        }
        (state == "locked").then_some(())
    });
    let event = news(&db);
    db.execute("COMMIT");
    let seen_twice = free.elapsed() > Duration::from_millis(1900);
    scene.recovers(&event);
    scene.flows_for(LOOKS);
    assert!(seen_twice || scene.faults() == 0, "{}", scene.server.lines().all());
}

/// The server serves at once, and reads it later.
fn locked_at_the_start() {
    let folder = folder();
    let db = EngineDb::create(folder.path().join(PATH));
    two_machines(&db);
    db.execute("BEGIN EXCLUSIVE");
    let mut scene = Scene::of(TestServer::start_in(folder, &[]));
    assert!(scene.row("kept").is_none());
    let line = format!("⚠️ engine database {PATH} cannot be read: {}", locker());
    scene.flows_until(&line, |server| server.lines().with(&line).pop());
    let told = &scene.server.health()["engine_db"];
    assert_eq!(
        (&told["state"], &told["seconds_since_read"]),
        (&"locked".into(), &Value::Null)
    );
    let event = news(&db);
    db.execute("COMMIT");
    scene.flows_until("it is read", |server| row(server, "fresh"));
    scene.recovers(&event);
    assert!(scene.row("kept").is_some());
    assert_eq!(scene.faults(), 1);
}

#[test]
fn a_full_disk_stops_the_engines_writing_and_not_our_reading() {
    let Some(shell) = mounting_shell() else { return };
    let folder = folder();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let db = EngineDb::create(folder.path().join("ready.db"));
    two_machines(&db);
    let server = TestServer::start_command(Arc::clone(&folder), &["--db", "disk/pipeline.db"], |command| {
        let fill = "{ cat /dev/zero > disk/filler; } 2>/dev/null";
        let script = format!("mount -t tmpfs -o size=256k tmpfs disk && cp ready.db disk/pipeline.db; {fill}");
        in_shell(command, shell, &script);
    });
    let mut scene = Scene::of(server);
    let line = "🗄️ engine database disk/pipeline.db: 2 machines";
    scene.flows_until(line, |server| server.lines().with(line).pop());
    let path = folder.path().join("disk/pipeline.db");
    match write_on_the_disk_of(&scene.server, &path, "full") {
        Some((written, said)) => assert!(!written && said.contains("full"), "{said}"),
        None => return,
    }
    scene.flows_for(LOOKS);
    let told = &scene.server.health()["engine_db"];
    assert_eq!((&told["state"], &told["machines"]), (&"ok".into(), &2.into()), "{told}");

    let disk = PathBuf::from(format!("/proc/{}/root", scene.server.pid()));
    fs::remove_file(disk.join(folder.path().strip_prefix("/").unwrap()).join("disk/filler")).unwrap();
    let (written, said) = write_on_the_disk_of(&scene.server, &path, "room").unwrap();
    assert!(written, "{said}");
    scene.recovers(&event("room"));
    assert_eq!((scene.faults(), scene.times(&event("full"))), (0, 0));
}

/// Writes an event into a database that only the server sees, as an engine would; whether it could, and what it said.
/// `None`, said, where nobody here can.
fn write_on_the_disk_of(server: &TestServer, path: &Path, name: &str) -> Option<(bool, String)> {
    const SCRIPT: &str = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as engine:\n    engine.execute(\
        'INSERT INTO realtime_events (machine_name, event_type, payload) VALUES (?, ?, ?)', ('load', 'refused', sys.argv[2]))";
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={}", server.pid()))
        .args(["--mount", "--"]);
    let mut with_python = |arguments: &[&str]| command.arg("python3").args(arguments).output();
    let payload = format!("{{\"which\": \"{name}\"}}");
    let output = with_python(&["-c", SCRIPT, path.to_str().unwrap(), &payload]);
    let usable = Command::new("python3").args(["-c", "import sqlite3"]).status();
    if !usable.is_ok_and(|status| status.success()) {
        skipped("a full disk below the database, because python3 with sqlite3 is not installed");
        return None;
    }
    let output = output.unwrap();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[test]
fn a_million_rows_hold_nobody_up_and_take_no_more_memory() {
    let mut scene = Scene::start();
    let path = scene.server.path("another.db");
    let db = EngineDb::create(&path);
    // Each machine has a pid of its own, most of them nobody's.
    db.execute(
        "PRAGMA synchronous = OFF; BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
         INSERT INTO machine_state SELECT 'machine-' || i, 'idle', 1e9 + i, i + 1000, NULL, 'c' FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
         INSERT INTO realtime_events (machine_name, event_type, payload, created_at)
         SELECT 'old', 'old', '{\"n\": 1}', '2020-01-01 00:00:00' FROM n;
         COMMIT;",
    );
    let event = news(&db);
    drop(db);
    let before = scene.server.resident_bytes();
    fs::rename(path, scene.path()).unwrap();
    let patience = 3 * DEADLINE;
    within(patience, "they are read", || {
        scene.flows();
        row(&scene.server, "fresh")
    });
    scene.recovers(&event);
    // The newest are there, as many as a client can take at once.
    assert!(scene.row("machine-1000000").is_some());
    scene.server.wait_for_line("; it has more, of which the newest count");
    assert!(scene.server.http("GET", "/initial", &[]).body.len() <= 1024 * 1024);
    let db = EngineDb::open(scene.path());
    db.machine("late", "idle", epoch(), living_pid(), Some("conf"));
    let late = refused(&db, "late");
    within(patience, "they are read once more", || {
        scene.flows();
        row(&scene.server, "late")
    });
    scene.recovers(&late);
    scene.flows_for(LOOKS);
    assert!(
        !scene.others.iter().any(|text| text.contains("\"old\"")),
        "from before the start"
    );
    let grown = scene.server.resident_bytes().saturating_sub(before);
    eprintln!(
        "{} KiB more memory, the slowest event took {:?}",
        grown / 1024,
        scene.slowest
    );
    assert!(grown < 64 * 1024 * 1024, "{} KiB more memory", grown / 1024);
    assert_eq!(scene.server.health()["status"], "ok");
    assert_eq!(
        scene.server.http("GET", "/status", &[]).json()["stale_machines"]
            .as_array()
            .map(Vec::len),
        Some(100)
    );
    assert_eq!(scene.faults(), 0);
}
