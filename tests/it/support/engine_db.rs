//! The original engine's database, made and written as the engines do it.

use super::{DEADLINE, TestServer, eventually};
use rusqlite::Connection;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Where servers look by default, below their folder.
pub const DEFAULT_PATH: &str = "data/pipeline.db";
/// The machine by which [`EngineDb::is_read_by`] knows. Behind others in a snapshot, by its name.
const MARKER: &str = "~marker";

/// The tables and indexes that are read, as the original makes them.
pub const SCHEMA: &str = "
    CREATE TABLE machine_state (machine_name TEXT PRIMARY KEY, current_state TEXT,
        last_activity TIMESTAMP DEFAULT CURRENT_TIMESTAMP, pid INTEGER, metadata TEXT, config_type TEXT);
    CREATE INDEX idx_machine_state_activity ON machine_state (last_activity);
    CREATE TABLE realtime_events (id INTEGER PRIMARY KEY AUTOINCREMENT, machine_name TEXT NOT NULL,
        event_type TEXT NOT NULL, payload TEXT NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
        consumed BOOLEAN DEFAULT 0, consumed_at TIMESTAMP);
    CREATE INDEX idx_realtime_pending ON realtime_events (consumed, created_at);";

/// The database, open for writing.
#[derive(Debug)]
pub struct EngineDb {
    connection: Connection,
    path: PathBuf,
}

impl EngineDb {
    /// A new file with the engine's tables, and the folder that it is in.
    #[track_caller]
    pub fn create(path: impl AsRef<Path>) -> EngineDb {
        let path = path.as_ref();
        assert!(!path.exists(), "{} is there already", path.display());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let db = EngineDb::open(path);
        // In one transaction: whoever looks meanwhile sees no table, or all of them.
        db.execute(&format!("BEGIN; {SCHEMA} COMMIT;"));
        db
    }

    /// A folder for a server, with a new database where the server looks by default.
    #[track_caller]
    pub fn in_folder() -> (Arc<TempDir>, EngineDb) {
        let folder = Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap());
        let db = EngineDb::create(folder.path().join(DEFAULT_PATH));
        (folder, db)
    }

    /// A file that is there, as one more engine opens it.
    #[track_caller]
    pub fn open(path: impl AsRef<Path>) -> EngineDb {
        let path = path.as_ref().to_owned();
        let connection = Connection::open(&path).unwrap();
        connection.busy_timeout(DEADLINE).unwrap();
        EngineDb { connection, path }
    }

    /// What an engine writes at each change of state: its row, new or not. `last_activity` in seconds since the epoch;
    /// without a `pid` nobody can tell whether the engine lives.
    #[track_caller]
    pub fn machine(
        &self,
        name: &str,
        state: &str,
        last_activity: f64,
        pid: impl Into<Option<u32>>,
        config: Option<&str>,
    ) {
        let pid: Option<u32> = pid.into();
        let sql = "INSERT INTO machine_state (machine_name, current_state, last_activity, pid, metadata, config_type)
            VALUES (?, ?, ?, ?, NULL, ?) ON CONFLICT(machine_name) DO UPDATE SET current_state = excluded.current_state,
            last_activity = excluded.last_activity, pid = excluded.pid, config_type = excluded.config_type";
        let written = self
            .connection
            .execute(sql, (name, state, last_activity, pid, config))
            .unwrap();
        assert_eq!(written, 1);
    }

    /// What an engine writes when it ends.
    #[track_caller]
    pub fn ended(&self, name: &str) {
        let sql = "DELETE FROM machine_state WHERE machine_name = ?";
        assert_eq!(self.connection.execute(sql, (name,)).unwrap(), 1, "{name}");
    }

    /// What an engine writes when its event was not taken; `payload` is the text of a JSON document. Gives the row's
    /// id.
    #[track_caller]
    pub fn refused(&self, name: &str, kind: &str, payload: &str) -> i64 {
        let sql = "INSERT INTO realtime_events (machine_name, event_type, payload) VALUES (?, ?, ?)";
        self.connection.execute(sql, (name, kind, payload)).unwrap();
        self.connection.last_insert_rowid()
    }

    /// Waits until `server` has read the machines as they are now. What was changed of the events before this it has
    /// read by then only if it had not begun with them: they come first.
    #[track_caller]
    pub fn is_read_by(&self, server: &TestServer) {
        let now = epoch();
        let state = format!("{now:?}");
        self.machine(MARKER, &state, now, living_pid(), None);
        let state = format!("\"current_state\":\"{state}\"");
        eventually("the database is read", || {
            card(server, MARKER)?.contains(&state).then_some(())
        });
    }

    /// Any statements.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.connection
            .execute_batch(sql)
            .unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// The connection itself.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The rows of an `initial`, byte for byte.
#[track_caller]
pub fn cards(initial: &str) -> Vec<String> {
    let keys: BTreeMap<String, &RawValue> =
        serde_json::from_str(initial).unwrap_or_else(|error| panic!("{error}: {initial}"));
    let rows: Vec<&RawValue> = serde_json::from_str(keys["machines"].get()).unwrap();
    rows.iter().map(|row| row.get().to_owned()).collect()
}

/// The row of machine `name` in `/initial`, byte for byte; `None` when it has none.
#[track_caller]
pub fn card(server: &TestServer, name: &str) -> Option<String> {
    let begin = format!("{{\"machine_name\":{},", serde_json::json!(name));
    let rows = cards(&server.http("GET", "/initial", &[]).body);
    rows.into_iter().find(|row| row.starts_with(&begin))
}

/// Now, as an engine writes it.
pub fn epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// The pid of a process that lives as long as the test: this one. It began before any row of a test.
pub fn living_pid() -> u32 {
    std::process::id()
}

/// The pid of a process that has ended and is reaped.
pub fn dead_pid() -> u32 {
    Engine::start().kill()
}

/// A process that stands for an engine's; killed and reaped when this goes.
#[derive(Debug)]
pub struct Engine(Child);

impl Engine {
    /// Begins now, and does nothing.
    pub fn start() -> Engine {
        let mut command = Command::new("sleep");
        command
            .arg("3600")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Engine(command.spawn().unwrap())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills and reaps it; gives the pid, which is nobody's now.
    pub fn kill(self) -> u32 {
        self.pid()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
