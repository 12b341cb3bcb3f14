//! Every key of the file of services: what it takes, what holds without it, what it does. The parser, its messages,
//! docs/services.md and the fuzz target are made from this one table.

use crate::process::values::{DAY, GIB, HOUR, KIB, MIB};
use crate::supervise::settings::kinds::{Fallback, Key, Kind, Section};
use std::time::Duration;

/// Rows of the table: `"name" [beside keys]: kind, fallback, "help";`.
macro_rules! keys {
    ($($name:literal $([$($beside:literal),+])?: $kind:expr, $fallback:expr, $help:literal;)*) => {
        &[$(Key {
            name: $name,
            kind: $kind,
            fallback: $fallback,
            beside: &[$($($beside),+)?],
            help: $help,
        }),*]
    };
}

use Fallback::{Is, Required, Says};

/// Of a key without which there is nothing.
const NOTHING: Fallback = Says("");
/// Of a table whose keys have fallbacks.
const AS_BELOW: Fallback = Is("");

const MS: Duration = Duration::from_millis(1);
const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MONTH: Duration = DAY.saturating_mul(30);

/// Every table of the file with keys of its own, in the order of the docs.
pub static SECTIONS: [&Section; 18] = [
    &FILE, &SUPERVISE, &NEED, &SERVICE, &STOP, &READY, &MEMORY, &RESTART, &DELAY, &MOST, &PRESSURE, &CHECK, &EVIDENCE,
    &WATCH, &INCIDENTS, &CONFLICT, &CLEANUP, &ASK,
];

/// The tables of the file.
pub static FILE: Section = Section {
    header: "",
    about: "The tables of the file",
    keys: keys! {
        "supervise": Kind::Table(&SUPERVISE), AS_BELOW, "what holds for all services";
        "server": Kind::Server, NOTHING,
            "settings of a `threadcast serve` that is started before all services, and stopped after them; an empty table takes the defaults";
        "needs": Kind::Named(&NEED), NOTHING, "what must be there before services start, and is not ours";
        "service": Kind::Named(&SERVICE), NOTHING, "the services, by their names";
        "watch": Kind::Tables(&WATCH), NOTHING, "files whose changes are sent as events";
        "incidents": Kind::Table(&INCIDENTS), AS_BELOW, "how much evidence is kept";
        "conflict": Kind::Tables(&CONFLICT), NOTHING, "programs that may run a limited number of times";
        "cleanup": Kind::Table(&CLEANUP), AS_BELOW, "what `threadcast services cleanup` offers to remove";
    },
    one_of: &[],
};

static SUPERVISE: Section = Section {
    header: "[supervise]",
    about: "What holds for all services",
    keys: keys! {
        "run_dir": Kind::Path, Is("run"), "folder of what is running, and of the control socket; one supervisor each";
        "log_dir": Kind::Path, Is("logs"), "folder of NAME.log of each service, of monitoring.log, metrics.log and incidents/";
        "log_bytes": Kind::Size(64 * KIB, 64 * GIB), Is("10MiB"), "a log that is larger is copied to NAME.log.1 and emptied";
        "log_keep": Kind::Count(0, 100), Is("5"), "older copies of each log that are kept";
        "events": Kind::SocketPath, Says("that of `[server]`, else `/tmp/statemachine-events.sock`"),
            "event socket to which every change of a service is sent; none: nowhere";
        "url": Kind::Url, Says("that of `[server]`, else `http://127.0.0.1:3002`"), "the server that checks of machines ask";
        "interval": Kind::Time(TENTH, HOUR), Is("10s"), "time between two looks of each need and check that has no `interval`";
        "poll": Kind::Time(TENTH, HOUR), Is("2s"), "time between two looks at a watched file, where `[[watch]]` has no `every`";
        "env": Kind::Variables, NOTHING, "variables in the environment of every service; they win over all but a service's own";
        "env_file": Kind::Path, NOTHING, "file of KEY=VALUE lines for every service; the environment wins over it";
    },
    one_of: &[],
};

static NEED: Section = Section {
    header: "[needs.NAME]",
    about: "Something that must be there before the services start that depend on it, and that threadcast never starts or stops",
    keys: keys! {
        "tcp": Kind::Address, NOTHING, "it takes TCP connections here";
        "send" ["tcp"]: Kind::Text, NOTHING, "what is sent to it";
        "expect" ["tcp"]: Kind::Text, NOTHING, "what its answer must contain";
        "http": Kind::Url, NOTHING, "it answers a GET of this page";
        "status" ["http"]: Kind::Counts(100, 599), Says("200 to 299"), "statuses of the answer that count as fine";
        "command": Kind::Command, NOTHING, "this command ends with status 0";
        "timeout": Kind::Time(TENTH, HOUR), Is("5s"), "time limit of one look";
        "interval": Kind::Time(TENTH, HOUR), Says("that of `[supervise]`"), "time between two looks";
        "hint": Kind::Text, NOTHING, "what a person does when it is missing; shown then";
    },
    one_of: &["tcp", "http", "command"],
};

static SERVICE: Section = Section {
    header: "[service.NAME]",
    about: "A program that threadcast starts, watches and stops",
    keys: keys! {
        "command": Kind::Command, Required, "the program with its arguments; no shell reads it";
        "cwd": Kind::Path, Is("."), "the folder in which it runs";
        "env": Kind::Variables, NOTHING, "variables in its environment; they win over all others";
        "env_file": Kind::Path, NOTHING, "file of KEY=VALUE lines; the environment wins over it";
        "unbuffered": Kind::Switch, Is("true"), "PYTHONUNBUFFERED=1 is set, unless `env` has it, so that Python's lines are in the log at once";
        "enabled": Kind::Switch, Is("true"), "false: it starts only when a person says so";
        "oneshot": Kind::Switch, Is("false"), "it is meant to end, with status 0; without `ready` it is ready then";
        "depends_on": Kind::Dependencies, NOTHING,
            "what must be there before it starts: needs that are `present`, services that are `started` or `ready`; in a list, present or started";
        "start_wait": Kind::Time(Duration::ZERO, DAY), Is("0s"), "checks count only after this time, or from their first success";
        "stop": Kind::Table(&STOP), AS_BELOW, "how it is stopped";
        "ready": Kind::Table(&READY), NOTHING, "the sign that it has started; without it, it is ready when it runs";
        "memory": Kind::Table(&MEMORY), NOTHING, "how much memory it may take";
        "restart": Kind::Table(&RESTART), AS_BELOW, "when it is started again";
        "check": Kind::Tables(&CHECK), NOTHING, "the signs that it is well";
        "evidence": Kind::Table(&EVIDENCE), AS_BELOW, "what is kept of it before it is killed";
    },
    one_of: &[],
};

static STOP: Section = Section {
    header: "[service.NAME.stop]",
    about: "How a service is stopped",
    keys: keys! {
        "signal": Kind::Signal, Is("TERM"), "the signal that every process of the service gets";
        "wait": Kind::Time(Duration::ZERO, HOUR), Is("10s"), "time after which what is left is killed";
    },
    one_of: &[],
};

static READY: Section = Section {
    header: "[service.NAME.ready]",
    about: "The sign that a service is ready, for services that wait for it",
    keys: keys! {
        "file": Kind::Path, NOTHING, "this file is written since the start";
        "log": Kind::Text, NOTHING, "a line of its log since the start contains this";
        "http": Kind::Url, NOTHING, "this page answers a GET";
        "status" ["http"]: Kind::Counts(100, 599), Says("200 to 299"), "statuses of the answer that count as fine";
        "tcp": Kind::Address, NOTHING, "it takes TCP connections here";
        "send" ["tcp"]: Kind::Text, NOTHING, "what is sent to it";
        "expect" ["tcp"]: Kind::Text, NOTHING, "what its answer must contain";
        "command": Kind::Command, NOTHING, "this command, run in its folder with its environment, ends with status 0";
        "timeout": Kind::Time(TENTH, DAY), Is("60s"), "a service that is not ready after this long is in trouble: see Order";
        "interval": Kind::Time(TENTH, HOUR), Is("500ms"), "time between two looks until then";
    },
    one_of: &["file", "log", "http", "tcp", "command"],
};

static MEMORY: Section = Section {
    header: "[service.NAME.memory]",
    about: "How much memory all processes of a service may take together (Pss)",
    keys: keys! {
        "warn": Kind::Size(MIB, 1024 * GIB), Required, "above this, a warning";
    },
    one_of: &[],
};

static RESTART: Section = Section {
    header: "[service.NAME.restart]",
    about: "When a service is started again",
    keys: keys! {
        "on": Kind::Words(&["exit", "check"]), Is("exit,check"),
            "exit: it ended and should not have; check: a check with `then = \"restart\"` failed; an empty list: never";
        "delay": Kind::Table(&DELAY), AS_BELOW, "how long it rests before";
        "calm": Kind::Time(SECOND, DAY), Is("10m"), "after this long without a restart the delay is the first again";
        "most": Kind::Table(&MOST), AS_BELOW, "how often at most; then it is `failed` until a person says otherwise";
        "pressure": Kind::Table(&PRESSURE), AS_BELOW, "when a starved host postpones what checks want";
    },
    one_of: &[],
};

static DELAY: Section = Section {
    header: "[service.NAME.restart.delay]",
    about: "How long a service rests before it is started again; the time doubles with each restart",
    keys: keys! {
        "first": Kind::Time(MS, HOUR), Is("1s"), "the first time";
        "most": Kind::Time(MS, DAY), Is("1m"), "the longest time";
    },
    one_of: &[],
};

static MOST: Section = Section {
    header: "[service.NAME.restart.most]",
    about: "How many restarts within which time are enough",
    keys: keys! {
        "times": Kind::Count(1, 1000), Is("5"), "one more restart than this is not tried";
        "within": Kind::Time(SECOND, MONTH), Is("10m"), "the time in which they count";
    },
    one_of: &[],
};

static PRESSURE: Section = Section {
    header: "[service.NAME.restart.pressure]",
    about: "When the host is starved of CPU, so that no check counts",
    keys: keys! {
        "cpu": Kind::Count(1, 100), Is("80"), "percent in /proc/pressure/cpu (some avg10); 100: never";
        "wait": Kind::Time(SECOND, HOUR), Is("1m"), "the pressure must last this long";
    },
    one_of: &[],
};

static CHECK: Section = Section {
    header: "[[service.NAME.check]]",
    about: "A sign that a service is well, looked at again and again",
    keys: keys! {
        "name": Kind::Name, Required, "its name in logs and incidents; one of a kind in its service";
        "file": Kind::Path, NOTHING, "a status file that the service writes again and again";
        "queue": Kind::Path, NOTHING, "a file with what waits for the service: while it is not empty, something must leave it";
        "http": Kind::Url, NOTHING, "this page answers a GET";
        "tcp": Kind::Address, NOTHING, "it takes TCP connections here";
        "command": Kind::Command, NOTHING,
            "this command, run in its folder with its environment, ends with status 0; with `moves_within` it prints how much waits";
        "log": Kind::Text, NOTHING, "a line of its log contains this, again and again";
        "machine": Kind::Text, NOTHING, "the server does not count this machine among those in trouble";
        "memory": Kind::Size(MIB, 1024 * GIB), NOTHING, "all its processes together take at most this (Pss)";
        "heartbeat": Kind::Text, NOTHING, "events of this machine come in, again and again";
        "max_age" ["file", "log", "heartbeat"]: Kind::Time(SECOND, MONTH), Is("120s"), "how old the newest may be";
        "key" ["queue"]: Kind::Text, NOTHING, "the key under which the object in the file has the list";
        "format" ["queue"]: Kind::Word(&["json", "lines"]), Is("json"), "json: a list, or an object with one under `key`; lines: a line each";
        "moves_within" ["queue", "command"]: Kind::Time(SECOND, MONTH),
            Says("of a queue 5m; of a command, its status counts"), "the longest time in which nothing leaves what waits";
        "verdicts" ["machine"]: Kind::Words(&["stuck", "silent"]), Is("stuck,silent"), "what counts as trouble";
        "status" ["http"]: Kind::Counts(100, 599), Says("200 to 299"), "statuses of the answer that count as fine";
        "send" ["tcp"]: Kind::Text, NOTHING, "what is sent to it";
        "expect" ["tcp"]: Kind::Text, NOTHING, "what its answer must contain";
        "interval": Kind::Time(TENTH, DAY), Says("that of `[supervise]`"), "time between two looks";
        "timeout": Kind::Time(TENTH, HOUR), Is("5s"), "time limit of one look";
        "strikes": Kind::Count(1, 1000), Is("1"), "looks in a row that must fail before it counts";
        "then": Kind::Word(&["warn", "restart"]), Is("warn"), "what follows";
    },
    one_of: &[
        "file",
        "queue",
        "http",
        "tcp",
        "command",
        "log",
        "machine",
        "memory",
        "heartbeat",
    ],
};

static EVIDENCE: Section = Section {
    header: "[service.NAME.evidence]",
    about: "What is kept of a service before it is killed, beside what /proc tells, its log and its last events",
    keys: keys! {
        "signal": Kind::Signal, NOTHING, "a signal that makes it tell where it is; sent only to a process that handles it";
        "signal_wait" ["signal"]: Kind::Time(TENTH, EVIDENCE_MAX), Is("1s"), "time to wait for its answer";
        "signal_file" ["signal"]: Kind::Path, NOTHING, "the file to which it answers; without it, its log";
        "command": Kind::Command, NOTHING, "a program that looks at it, such as py-spy; {pid} stands for the process; left out when it is not there";
        "command_timeout" ["command"]: Kind::Time(TENTH, EVIDENCE_MAX), Is("5s"), "its time limit";
    },
    one_of: &[],
};

static WATCH: Section = Section {
    header: "[[watch]]",
    about: "A file or a folder that threadcast looks at again and again; it sends an event for what appears, changes or goes",
    keys: keys! {
        "name": Kind::Name, Required, "its name in events";
        "path": Kind::Path, Required, "the file or the folder";
        "every": Kind::Time(TENTH, HOUR), Says("`poll` of `[supervise]`"), "time between two looks";
        "settle": Kind::Time(Duration::ZERO, HOUR), Is("2s"), "a file counts as written once it has not changed for this long";
    },
    one_of: &[],
};

static INCIDENTS: Section = Section {
    header: "[incidents]",
    about: "How much evidence is kept; the oldest goes first",
    keys: keys! {
        "keep": Kind::Count(1, 10_000), Is("50"), "folders";
        "keep_bytes": Kind::Size(64 * KIB, 1024 * GIB), Is("64MiB"), "bytes of all of them together";
    },
    one_of: &[],
};

static CONFLICT: Section = Section {
    header: "[[conflict]]",
    about: "A program that may run a limited number of times, no matter what started it",
    keys: keys! {
        "name": Kind::Name, Required, "its name in warnings, and for `[cleanup]`";
        "match": Kind::Patterns, Required,
            "the program: the file name of what runs or, of an interpreter, of its script, its -m module or its -c text; other arguments do not count";
        "inside": Kind::Paths, NOTHING, "only processes whose folder, or whose program's, is one of these or below";
        "expected": Kind::Count(0, 100_000), Is("1"), "how many there are when all is well";
        "warn": Kind::Count(1, 100_000), Says("one more than `expected`"), "this many processes are worth a warning";
        "critical": Kind::Count(1, 100_000), NOTHING, "this many processes are critical";
    },
    one_of: &[],
};

static CLEANUP: Section = Section {
    header: "[cleanup]",
    about: "What `threadcast services cleanup` lists, and removes when a person confirms the list",
    keys: keys! {
        "strays": Kind::Texts, NOTHING, "names of `[[conflict]]` whose processes that belong to no service are ended";
        "files": Kind::Texts, NOTHING, "files that are removed, with * and ?, relative to this file; of a pid file, only when its process is gone";
        "ask": Kind::Tables(&ASK), NOTHING, "commands, each of which is confirmed by its name";
    },
    one_of: &[],
};

static ASK: Section = Section {
    header: "[[cleanup.ask]]",
    about: "A command of the cleanup that runs only when it is named",
    keys: keys! {
        "name": Kind::Text, Required, "its name for `--ask`";
        "command": Kind::Command, Required, "the command";
        "warning": Kind::Text, NOTHING, "what a person should know before";
        "timeout": Kind::Time(TENTH, HOUR), Is("30s"), "its time limit";
    },
    one_of: &[],
};

/// Evidence never delays a kill for longer.
pub const EVIDENCE_MAX: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_beside_keys_of_its_table_and_is_there_once() {
        for section in SECTIONS {
            let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            for (at, key) in section.keys.iter().enumerate() {
                assert!(!names[..at].contains(&key.name), "{}: {}", section.header, key.name);
                assert!(!key.help.ends_with('.'), "{}: {}", section.header, key.name);
            }
            let beside = section.keys.iter().flat_map(|key| key.beside);
            for name in beside.chain(section.one_of) {
                assert!(names.contains(name), "{}: {name}", section.header);
            }
        }
    }

    #[test]
    fn every_table_that_a_key_takes_is_listed() {
        let mut reached = vec![""];
        for section in SECTIONS {
            for key in section.keys {
                if let Kind::Table(inner) | Kind::Named(inner) | Kind::Tables(inner) = key.kind {
                    reached.push(inner.header);
                }
            }
        }
        let listed: Vec<&str> = SECTIONS.iter().map(|section| section.header).collect();
        for header in &reached {
            assert!(listed.contains(header), "{header}");
        }
        assert_eq!(reached.len(), listed.len());
    }
}
