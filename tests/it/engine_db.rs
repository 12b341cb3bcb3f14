//! Machines that the original's engines keep in their database are shown as they are there, also those that began
//! before the server; what is newer wins; engines that were killed are told from those that live; and the database is
//! only read.

use crate::support::client::Options;
use crate::support::engine_db::{DEFAULT_PATH, Engine, EngineDb, SCHEMA, card, cards, dead_pid, epoch, living_pid};
use crate::support::server::run;
use crate::support::{TestClient, TestServer, eventually, numbered, pause, state_change};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A card as it is to be.
fn text(name: &str, state: &str, last_activity: f64, config: Option<&str>) -> String {
    format!(
        "{{\"machine_name\":{0},\"current_state\":{1},\"last_activity\":{last_activity:?},\"metadata\":null,\
         \"config_type\":{2},\"id\":{0}}}",
        json!(name),
        json!(state),
        json!(config),
    )
}

/// The same of a machine whose process is dead.
fn stale(card: &str) -> String {
    format!("{},\"stale\":true}}", card.strip_suffix('}').unwrap())
}

#[track_caller]
fn shows(server: &TestServer, name: &str, expected: &str) {
    assert_eq!(card(server, name).as_deref(), Some(expected));
}

#[track_caller]
fn shows_soon(server: &TestServer, name: &str, expected: &str) {
    eventually(expected, || (card(server, name)? == expected).then_some(()));
}

/// Waits until an event of `machine` has reached the table.
#[track_caller]
fn tabled(server: &TestServer, machine: &str, state: &str) {
    let state = format!("\"current_state\":{}", json!(state));
    eventually("the event is in the table", || {
        card(server, machine)?.contains(&state).then_some(())
    });
}

fn terminated(machine: &str, timestamp: f64) -> String {
    format!(
        "{{\"machine_name\": \"{machine}\", \"type\": \"machine_terminated\", \"payload\": {{\"machine_name\": \
         \"{machine}\", \"config_type\": \"c\", \"timestamp\": {timestamp:?}}}}}"
    )
}

/// `/status`, key `stale_machines`.
fn stale_machines(server: &TestServer) -> Value {
    server.http("GET", "/status", &[]).json()["stale_machines"].take()
}

fn engine_health(server: &TestServer) -> Value {
    server.health()["engine_db"].take()
}

/// Waits until the last look found so many rows; they are shown before they are counted.
#[track_caller]
fn read_well(server: &TestServer, machines: usize, stale: usize) -> Value {
    let health = eventually("the database is read", || {
        let health = engine_health(server);
        (health["state"] == "ok" && health["machines"] == machines && health["stale"] == stale).then_some(health)
    });
    assert_eq!(health["error"], Value::Null);
    health
}

/// Values of a row as they may be in the database, and the card of it; by name in binary order. Without a pid, so that
/// nobody is dead however old the row is.
const ROWS: [(&str, &str); 8] = [
    (
        "'Z', 'busy', 1795393481.742173, NULL, NULL, 'conf'",
        r#"{"machine_name":"Z","current_state":"busy","last_activity":1795393481.742173,"metadata":null,"config_type":"conf","id":"Z"}"#,
    ),
    (
        // A whole number comes back as an integer, because of the column's affinity.
        "'a', 'idle', 1795393481.0, NULL, '{\"key\": \"v\\n\"}', NULL",
        r#"{"machine_name":"a","current_state":"idle","last_activity":1795393481,"metadata":"{\"key\": \"v\\n\"}","config_type":null,"id":"a"}"#,
    ),
    (
        "'b', NULL, NULL, NULL, NULL, NULL",
        r#"{"machine_name":"b","current_state":null,"last_activity":null,"metadata":null,"config_type":null,"id":"b"}"#,
    ),
    (
        "'c', x'62', x'31', NULL, x'7b7d', x'63'",
        r#"{"machine_name":"c","current_state":null,"last_activity":null,"metadata":null,"config_type":null,"id":"c"}"#,
    ),
    (
        "'d', 's', 'yesterday', NULL, '', ''",
        r#"{"machine_name":"d","current_state":"s","last_activity":null,"metadata":"","config_type":"","id":"d"}"#,
    ),
    (
        "'e', 's', '2026-13-45 00:00:00', NULL, NULL, NULL",
        r#"{"machine_name":"e","current_state":"s","last_activity":null,"metadata":null,"config_type":null,"id":"e"}"#,
    ),
    (
        "'f', 's', 0.30000000000000004, NULL, NULL, NULL",
        r#"{"machine_name":"f","current_state":"s","last_activity":0.30000000000000004,"metadata":null,"config_type":null,"id":"f"}"#,
    ),
    (
        "'päivä \"quoted\" \\ 🚀', 'a\tb', 17, NULL, NULL, NULL",
        r#"{"machine_name":"päivä \"quoted\" \\ 🚀","current_state":"a\tb","last_activity":17,"metadata":null,"config_type":null,"id":"päivä \"quoted\" \\ 🚀"}"#,
    ),
];

fn insert(db: &EngineDb, values: &str) {
    db.execute(&format!("INSERT INTO machine_state VALUES ({values})"));
}

#[test]
fn machines_that_began_before_the_server_are_in_the_first_initial_byte_for_byte() {
    let (folder, db) = EngineDb::in_folder();
    for (values, _) in ROWS.iter().rev() {
        insert(&db, values);
    }
    // No machine has such a name.
    insert(&db, "x'5a', 's', 1, NULL, NULL, NULL");
    insert(&db, "NULL, 's', 1, NULL, NULL, NULL");
    let begun = Instant::now();
    let server = TestServer::start_in(folder, &[]);
    // A server that took so long may have given up waiting for the database, which is promised, too.
    let (plain, v1) = if begun.elapsed() < Duration::from_millis(500) {
        (TestClient::connect(server.address).text(), v1_initial(&server))
    } else {
        eventually("the database is read", || {
            let health = engine_health(&server);
            (health["state"] == "ok").then(|| (TestClient::connect(server.address).text(), v1_initial(&server)))
        })
    };
    let expected: Vec<&str> = ROWS.iter().map(|(_, card)| *card).collect();
    assert_eq!(cards(&plain), expected);
    assert_eq!(cards(&v1), expected);
    assert_eq!(cards(&server.http("GET", "/initial", &[]).body), expected);
    server.wait_for_line("🗄️ engine database data/pipeline.db: ");
}

fn v1_initial(server: &TestServer) -> String {
    let options = Options {
        headers: vec!["Sec-WebSocket-Protocol: threadcast.v1".to_owned()],
        ..Options::default()
    };
    let mut client = TestClient::with(server.address, &options);
    assert_eq!(client.json()["type"], "hello");
    client.text()
}

#[test]
fn a_time_that_is_text_becomes_seconds() {
    let (folder, db) = EngineDb::in_folder();
    insert(&db, "'whole', 's', '2026-11-23 00:39:45', NULL, NULL, NULL");
    insert(&db, "'parts', 's', '2026-11-23 00:39:45.250', NULL, NULL, NULL");
    let before = epoch().floor();
    db.execute("INSERT INTO machine_state (machine_name, current_state) VALUES ('default', 's')");
    let after = epoch();
    let server = TestServer::start_in(folder, &[]);
    db.is_read_by(&server);
    let time = |name| {
        let card: Value = serde_json::from_str(&card(&server, name).unwrap()).unwrap();
        card["last_activity"].as_f64().unwrap_or_else(|| panic!("{card}"))
    };
    assert_eq!(time("whole"), 1_795_394_385.0);
    assert_eq!(time("parts"), 1_795_394_385.25);
    let default = time("default");
    assert!((before..=after).contains(&default), "{before} {default} {after}");
}

#[test]
fn a_row_that_makes_no_sense_hides_no_other() {
    let (folder, db) = EngineDb::in_folder();
    insert(&db, "'before', 's', 1.5, NULL, NULL, NULL");
    insert(&db, "CAST(x'ff' AS TEXT), 's', 1.5, NULL, NULL, NULL");
    insert(
        &db,
        "'m', CAST(x'ff' AS TEXT), 1.5, 'no pid', CAST(x'ff' AS TEXT), NULL",
    );
    insert(&db, "'n', 7, 9e999, -1, 7, 7");
    insert(
        &db,
        "'large', printf('%.*c', 100000, 'x'), 1.5, 99999999999, NULL, NULL",
    );
    insert(&db, "'z', 's', 1.5, NULL, NULL, NULL");
    let server = TestServer::start_in(folder, &[]);
    db.is_read_by(&server);
    shows(&server, "before", &text("before", "s", 1.5, None));
    shows(&server, "z", &text("z", "s", 1.5, None));
    eventually("the look is over", || {
        (engine_health(&server)["state"] == "ok").then_some(())
    });
    assert_eq!(server.health()["status"], "ok");
}

#[test]
fn the_newest_of_row_and_event_wins_whichever_comes_last() {
    let (folder, db) = EngineDb::in_folder();
    let server = TestServer::start_in(folder, &[]);
    let now = epoch();
    // Also one at the same time is not newer.
    let older = [("m", now), ("n", now - 1.0), ("o", now - 5.0)];
    for (name, _) in older {
        server.send(state_change(name, "x", "wire", now));
    }
    tabled(&server, "o", "wire");
    for _ in 0..2 {
        for (name, time) in older {
            db.machine(name, "older", time, None, None);
        }
        db.is_read_by(&server);
        for (name, _) in older {
            shows(&server, name, &text(name, "wire", now, None));
        }
    }
    db.machine("m", "newer", now + 5.5, None, None);
    db.is_read_by(&server);
    shows(&server, "m", &text("m", "newer", now + 5.5, None));
    // An event that is newer than the row beats it, and it is not read again over it.
    server.send(state_change("m", "newer", "newest", now + 6.5));
    tabled(&server, "m", "newest");
    db.is_read_by(&server);
    shows(&server, "m", &text("m", "newest", now + 6.5, None));
}

#[test]
fn a_row_completes_what_the_wire_has_not_said() {
    let (folder, db) = EngineDb::in_folder();
    let server = TestServer::start_in(folder, &[]);
    let now = epoch();
    server.send(state_change("m", "x", "wire", now));
    server.send(format!(
        "{{\"machine_name\": \"n\", \"type\": \"machine_registered\", \"payload\": {{\"machine_name\": \"n\", \
         \"config_type\": \"said\", \"current_state\": \"wire\", \"timestamp\": {now:?}}}}}"
    ));
    tabled(&server, "n", "wire");
    db.machine("m", "older", now - 5.0, None, Some("conf"));
    db.machine("n", "older", now - 5.0, None, Some("conf"));
    db.execute("UPDATE machine_state SET metadata = '{\"a\": 1}'");
    db.is_read_by(&server);
    let completed = |name: &str, config: &str| {
        text(name, "wire", now, Some(config)).replace("\"metadata\":null", r#""metadata":"{\"a\": 1}""#)
    };
    shows(&server, "m", &completed("m", "conf"));
    shows(&server, "n", &completed("n", "said"));
}

#[test]
fn a_machine_that_ended_comes_back_by_a_newer_row_only() {
    let (folder, db) = EngineDb::in_folder();
    let now = epoch();
    db.machine("ended", "s", now - 5.0, None, None);
    db.machine("forgotten", "s", now - 5.0, None, None);
    let server = TestServer::start_in(folder, &[]);
    db.is_read_by(&server);
    server.send(terminated("ended", now));
    eventually("it has ended", || card(&server, "ended").is_none().then_some(()));
    let port = server.address.port().to_string();
    let (status, _, said) = run(&server.path(""), &["forget", "forgotten", "--port", &port]);
    assert_eq!(status, 0, "{said}");
    // The rows are still there, and change as by an engine that was late.
    for late in [4.0, 3.0] {
        db.is_read_by(&server);
        for name in ["ended", "forgotten"] {
            assert_eq!(card(&server, name), None, "{late}");
            db.machine(name, "late", now - late, None, None);
        }
    }
    db.is_read_by(&server);
    for name in ["ended", "forgotten"] {
        assert_eq!(card(&server, name), None);
        // Newer than the moment in which it was forgotten.
        db.machine(name, "again", now + 3600.5, None, None);
    }
    db.is_read_by(&server);
    for name in ["ended", "forgotten"] {
        shows(&server, name, &text(name, "again", now + 3600.5, None));
    }
}

#[test]
fn a_machine_that_was_forgotten_stays_so_after_a_restart() {
    let (folder, db) = EngineDb::in_folder();
    db.machine("m", "s", epoch(), dead_pid(), None);
    let mut server = TestServer::start_in(folder, &[]);
    db.is_read_by(&server);
    let port = server.address.port().to_string();
    let (status, _, said) = run(&server.path(""), &["forget", "m", "--port", &port]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(server.stop().code(), Some(0));
    let server = TestServer::start_in(server.folder(), &[]);
    db.is_read_by(&server);
    assert_eq!(card(&server, "m"), None);
}

#[test]
fn a_row_that_disappears_takes_its_machine_only_if_the_wire_knows_nothing_of_it() {
    let (folder, db) = EngineDb::in_folder();
    let now = epoch();
    for name in ["heard", "read", "stays"] {
        db.machine(name, "s", now, None, None);
    }
    let server = TestServer::start_in(folder, &[]);
    db.is_read_by(&server);
    server.send(state_change("heard", "s", "t", now + 1.5));
    tabled(&server, "heard", "t");
    db.ended("heard");
    db.ended("read");
    db.is_read_by(&server);
    shows(&server, "heard", &text("heard", "t", now + 1.5, None));
    shows(&server, "stays", &text("stays", "s", now, None));
    assert_eq!(card(&server, "read"), None);
}

#[test]
fn a_machine_that_ended_while_no_server_ran_is_not_kept_by_the_state_file() {
    let (folder, db) = EngineDb::in_folder();
    let now = epoch();
    db.machine("read", "s", now, None, None);
    let mut server = TestServer::start_in(folder, &[]);
    db.is_read_by(&server);
    assert!(card(&server, "read").is_some());
    assert_eq!(server.stop().code(), Some(0));
    db.ended("read");
    let server = TestServer::start_in(server.folder(), &[]);
    db.is_read_by(&server);
    eventually("it is gone", || card(&server, "read").is_none().then_some(()));
}

#[test]
fn a_machine_whose_process_is_dead_is_stale_and_one_that_lives_is_not() {
    let (folder, db) = EngineDb::in_folder();
    let dead = dead_pid();
    let now = epoch();
    // One of the numbers that a reader in a hurry gets wrong in the last digit.
    let digits = 1_795_457_749.736_858_1;
    // This process began long after that.
    let long_before = now - 864_000.0;
    db.machine("dead", "busy", digits, dead, Some("c"));
    db.machine("living", "busy", now, living_pid(), Some("c"));
    db.machine("reused", "busy", long_before, living_pid(), Some("c"));
    let server = TestServer::start_in(folder, &[]);
    shows_soon(&server, "dead", &stale(&text("dead", "busy", digits, Some("c"))));
    shows_soon(&server, "living", &text("living", "busy", now, Some("c")));
    shows_soon(
        &server,
        "reused",
        &stale(&text("reused", "busy", long_before, Some("c"))),
    );
    read_well(&server, 3, 2);
    let status = server.http("GET", "/status", &[]).body;
    // As the snapshot has it, to the last digit.
    for (name, pid, time) in [("dead", dead, digits), ("reused", living_pid(), long_before)] {
        let listed = format!("{{\"last_activity\":{time:?},\"machine\":\"{name}\",\"pid\":{pid}}}");
        assert!(status.contains(&listed), "{listed} is not in {status}");
    }
    assert_eq!(stale_machines(&server).as_array().unwrap().len(), 2);
    let plain = TestClient::connect(server.address).text();
    assert_eq!(plain.matches("\"stale\":true").count(), 2, "{plain}");
    assert_eq!(plain.matches("\"stale\"").count(), 2, "{plain}");
    server.wait_for_line("🗄️ engine database data/pipeline.db: 3 machines, 2 of them stale");
}

#[test]
fn a_death_is_noticed_without_a_change_in_the_database_and_an_event_clears_it() {
    let settings: [&[&str]; 2] = [&[], &["--machine-ttl", "1h"]];
    std::thread::scope(|scope| {
        for flags in settings {
            scope.spawn(move || a_death_is_noticed_and_cleared(flags));
        }
    });
}

fn a_death_is_noticed_and_cleared(flags: &[&str]) {
    const NAMES: [&str; 2] = ["changes", "logs"];
    let (folder, db) = EngineDb::in_folder();
    let engines = NAMES.map(|name| {
        let engine = Engine::start();
        db.machine(name, "busy", epoch(), engine.pid(), None);
        engine
    });
    let server = TestServer::start_in(folder, flags);
    db.is_read_by(&server);
    for name in NAMES {
        assert!(!card(&server, name).unwrap().contains("stale"));
    }
    let before = fs::read(db.path()).unwrap();
    drop(engines);
    for name in NAMES {
        eventually("its death is noticed", || {
            card(&server, name)?.ends_with(",\"stale\":true}").then_some(())
        });
    }
    assert!(fs::read(db.path()).unwrap() == before);
    eventually("both are listed", || {
        (stale_machines(&server).as_array().unwrap().len() == 2).then_some(())
    });

    // They were started again, and their rows are not written yet.
    let now = epoch() + 10.0;
    server.send(state_change("changes", "busy", "again", now));
    server.send(r#"{"machine_name": "logs", "type": "activity_log", "payload": {"message": "again"}}"#);
    shows_soon(&server, "changes", &text("changes", "again", now, None));
    let is_clear = || !card(&server, "logs").unwrap().contains("stale");
    eventually("an event clears it", || is_clear().then_some(()));
    // Nor does it come back with the old row.
    db.is_read_by(&server);
    db.is_read_by(&server);
    shows(&server, "changes", &text("changes", "again", now, None));
    assert!(is_clear(), "{flags:?}");
}

#[test]
fn a_living_process_whose_row_has_no_time_is_not_stale() {
    let (folder, db) = EngineDb::in_folder();
    db.execute(&format!(
        "INSERT INTO machine_state VALUES ('m', 's', NULL, {}, NULL, NULL)",
        living_pid()
    ));
    let server = TestServer::start_in(folder, &[]);
    db.is_read_by(&server);
    shows(&server, "m", &text("m", "s", 0.5, None).replace("0.5", "null"));
}

#[test]
fn a_machine_that_came_back_and_is_killed_again_is_stale_again() {
    let (folder, db) = EngineDb::in_folder();
    db.machine("m", "busy", epoch(), dead_pid(), None);
    let server = TestServer::start_in(folder, &[]);
    let is_stale = |expected: bool| {
        eventually("it is stale, or not", || {
            (card(&server, "m")?.contains("\"stale\":true") == expected).then_some(())
        });
    };
    is_stale(true);
    // An engine tells of a change before it writes its row, and of other things later.
    let engine = Engine::start();
    server.send(state_change("m", "busy", "again", epoch()));
    db.machine("m", "again", epoch(), engine.pid(), None);
    db.is_read_by(&server);
    is_stale(false);
    server.send(r#"{"machine_name": "m", "type": "activity_log", "payload": {"message": "x"}}"#);
    server.send(state_change("after it", "a", "b", 1.5));
    tabled(&server, "after it", "b");
    engine.kill();
    is_stale(true);
    // By the row of its next process.
    db.machine("m", "third", epoch(), living_pid(), None);
    is_stale(false);
}

#[test]
fn of_many_stale_machines_a_hundred_are_listed() {
    let (folder, db) = EngineDb::in_folder();
    let (dead, now) = (dead_pid(), epoch());
    db.execute("BEGIN");
    for number in 0..130 {
        db.machine(&format!("m{number:03}"), "s", now, dead, None);
    }
    db.execute("COMMIT");
    let server = TestServer::start_in(folder, &[]);
    eventually("they are counted", || {
        (engine_health(&server)["stale"] == 130).then_some(())
    });
    assert_eq!(stale_machines(&server).as_array().unwrap().len(), 100);
    let initial = server.http("GET", "/initial", &[]).body;
    assert_eq!(initial.matches("\"stale\":true").count(), 130);
}

#[test]
fn a_stale_machine_leaves_after_the_ttl_and_a_living_one_stays() {
    let (folder, db) = EngineDb::in_folder();
    let (engine, now) = (Engine::start(), epoch());
    db.machine("long dead", "s", now - 1000.0, dead_pid(), None);
    db.machine("dies", "s", now, engine.pid(), None);
    db.machine("lives", "s", now, living_pid(), None);
    let server = TestServer::start_in(folder, &["--machine-ttl", "3s"]);
    eventually("both are silent for longer", || {
        db.is_read_by(&server);
        (epoch() > now + 4.0).then_some(())
    });
    assert_eq!(card(&server, "long dead"), None);
    shows(&server, "dies", &text("dies", "s", now, None));
    shows(&server, "lives", &text("lives", "s", now, None));
    engine.kill();
    eventually("it leaves", || card(&server, "dies").is_none().then_some(()));
    shows(&server, "lives", &text("lives", "s", now, None));
}

#[test]
fn an_absent_file_is_nothing_to_speak_of_and_its_coming_is_seen() {
    its_coming_is_seen(false);
}

#[test]
fn an_empty_file_is_nothing_to_speak_of_and_its_filling_is_seen() {
    its_coming_is_seen(true);
}

fn its_coming_is_seen(empty: bool) {
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    let path = folder.path().join(DEFAULT_PATH);
    if empty {
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
    }
    let server = TestServer::start_in(folder, &[]);
    // Longer than it is from one look to the next.
    pause(Duration::from_millis(2500));
    let health = engine_health(&server);
    assert_eq!(
        health,
        json!({"path": health["path"], "state": "absent", "error": null, "seconds_since_read": null,
                "machines": 0, "stale": 0, "recovered": 0})
    );
    assert!(health["path"].as_str().unwrap().ends_with(DEFAULT_PATH), "{health}");
    assert_eq!(server.health()["status"], "ok");
    assert!(
        server.lines().with("engine database").is_empty(),
        "{}",
        server.lines().all()
    );
    if empty {
        assert_eq!(fs::metadata(&path).unwrap().len(), 0)
    } else {
        assert!(!path.parent().unwrap().exists())
    }

    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let db = EngineDb::open(&path);
    db.execute(&format!("BEGIN; {SCHEMA}"));
    db.machine("m", "s", 1.5, None, None);
    db.execute("COMMIT");
    shows_soon(&server, "m", &text("m", "s", 1.5, None));
    let health = read_well(&server, 1, 0);
    assert!(health["seconds_since_read"].as_f64().unwrap() < 60.0, "{health}");
    server.wait_for_line("🗄️ engine database data/pipeline.db: 1 machine");
}

#[test]
fn another_file_in_its_place_is_read_instead() {
    let (folder, db) = EngineDb::in_folder();
    db.machine("old", "s", 1.5, None, None);
    db.machine("both", "s", 1.5, None, None);
    let server = TestServer::start_in(folder, &[]);
    db.is_read_by(&server);
    let path = db.path().to_owned();
    let other = EngineDb::create(server.path("other.db"));
    other.machine("new", "s", 1.5, None, None);
    other.machine("both", "t", 2.5, None, None);
    drop((db, other));
    fs::rename(server.path("other.db"), &path).unwrap();
    shows_soon(&server, "new", &text("new", "s", 1.5, None));
    shows(&server, "both", &text("both", "t", 2.5, None));
    assert_eq!(card(&server, "old"), None);
    eventually("the other one is told", || {
        (server.lines().with("🗄️ engine database ").len() == 2).then_some(())
    });
    let links = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
    let open: Vec<_> = links.filter_map(|link| fs::read_link(link.path()).ok()).collect();
    assert!(
        !open
            .iter()
            .any(|path| path.to_string_lossy().contains("pipeline.db (deleted)")),
        "{open:?}"
    );
}

#[test]
fn a_first_row_that_comes_later_sends_nobody_a_state_that_was_not_asked_for() {
    let (folder, db) = EngineDb::in_folder();
    let server = TestServer::start_in(folder, &[]);
    let mut client = server.client();
    // Later than the server waits for the database at its start.
    pause(Duration::from_secs(1));
    db.is_read_by(&server);
    server.send(numbered(0, 0));
    client.expect_numbers(0..1);
}

/// The names of the server's threads.
fn threads(server: &TestServer) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn a_path_of_ones_own_is_read_and_none_is_not() {
    let (folder, db) = EngineDb::in_folder();
    db.machine("default", "s", 1.5, None, None);
    let own = EngineDb::create(folder.path().join("own place.db"));
    own.machine("own", "s", 1.5, None, None);
    let mut server = TestServer::start_in(folder, &["--db", "own place.db"]);
    own.is_read_by(&server);
    shows(&server, "own", &text("own", "s", 1.5, None));
    assert_eq!(card(&server, "default"), None);
    assert!(
        threads(&server).contains(&"enginedb".to_owned()),
        "{:?}",
        threads(&server)
    );
    assert_eq!(server.stop().code(), Some(0));

    let server = TestServer::start_in(server.folder(), &["--db", "none", "--state-file", "none"]);
    assert_eq!(server.health()["engine_db"], Value::Null);
    assert_eq!(server.initial()["machines"], json!([]));
    assert!(
        !threads(&server).contains(&"enginedb".to_owned()),
        "{:?}",
        threads(&server)
    );
    assert!(!server.path("none").exists());
}

/// What a folder holds: names, sizes, and when each was changed.
fn listing(folder: &Path) -> Vec<(String, u64, i64, i64)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let about = entry.metadata().unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, about.len(), about.mtime(), about.mtime_nsec())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn nothing_is_ever_written_to_the_database_or_beside_it() {
    let (folder, db) = EngineDb::in_folder();
    let engine = Engine::start();
    db.machine("dead", "s", epoch(), dead_pid(), None);
    db.machine("dies", "s", epoch(), engine.pid(), None);
    db.refused("m", "tick", "{}");
    // As by an engine that came later than the server.
    db.execute("UPDATE realtime_events SET created_at = datetime('now', '+1 hour')");
    let path = db.path().to_owned();
    drop(db);
    let (before, listed) = (fs::read(&path).unwrap(), listing(path.parent().unwrap()));
    assert_eq!(listed.len(), 1, "{listed:?}");
    let mut server = TestServer::start_in(folder, &[]);
    let reads = |stale: u64| {
        eventually("the database is read", || {
            let health = engine_health(&server);
            (health["stale"] == stale && health["recovered"] == 1).then_some(())
        });
        assert_eq!(listing(path.parent().unwrap()), listed);
    };
    reads(1);
    engine.kill();
    reads(2);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(listing(path.parent().unwrap()), listed);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn a_path_that_was_given_and_is_not_there_is_said_once_and_read_when_it_comes() {
    for (path, part) in [
        ("own.db", "there is no such file. Machines"),
        ("nowhere/own.db", "there is no such file, and not even its folder"),
        ("empty.db", "the file is empty"),
    ] {
        let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
        if path == "empty.db" {
            fs::write(folder.path().join(path), b"").unwrap();
        }
        let server = TestServer::start_in(Arc::clone(&folder), &["--db", path, "--db-interval", "100ms"]);
        let line = server.wait_for_line("⚠️ engine database ");
        let whole = folder.path().join(path);
        for part in [part, whole.to_str().unwrap(), "WARN", "looking again every 100ms"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let told = engine_health(&server);
        assert_eq!(told["state"], "absent");
        assert!(
            told["error"].as_str().unwrap().contains("looking again every 100ms"),
            "{told}"
        );
        assert_eq!(
            server.http("GET", "/status", &[]).json()["engine_db"]["error"],
            told["error"]
        );
        assert_eq!(server.health()["status"], "ok");
        fs::create_dir_all(whole.parent().unwrap()).unwrap();
        let db = EngineDb::open(&whole);
        db.execute(&format!("BEGIN; {SCHEMA}"));
        db.machine("m", "s", 1.5, None, None);
        db.execute("COMMIT");
        db.is_read_by(&server);
        assert_eq!(engine_health(&server)["error"], Value::Null);
        let said = server.lines().with("⚠️ engine database ");
        assert_eq!(said.len(), 1, "{said:?}");
    }
}

#[test]
fn what_is_no_file_is_called_what_it_is() {
    let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
    let path = folder.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixDatagram::bind(folder.path().join("socket")).unwrap();
    for (path, kind) in [
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("/dev/null", "a device"),
        (".", "a folder"),
    ] {
        let server = TestServer::start_in(
            Arc::clone(&folder),
            &["--db", path, "--db-interval", "100ms", "--state-file", "none"],
        );
        let what = format!("it is {kind} and no file");
        server.wait_for_line(&format!("⚠️ engine database {path} cannot be read: {what}"));
        let told = engine_health(&server);
        assert_eq!(
            (&told["state"], &told["error"]),
            (&"fault".into(), &what.into()),
            "{told}"
        );
    }
}
