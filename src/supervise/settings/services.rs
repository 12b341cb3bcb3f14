//! Services, from what their tables say.

use crate::config::file::Place;
use crate::process::values::show_duration;
use crate::supervise::settings::checks::{self, command_line};
use crate::supervise::settings::faults::Faults;
use crate::supervise::settings::plan::{Dependency, Evidence, Restart, Service, Stop, Then, Wanted};
use crate::supervise::settings::table::EVIDENCE_MAX;
use crate::supervise::settings::values::Values;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What holds for every service that says nothing else.
#[derive(Debug)]
pub(super) struct Common<'a> {
    pub(super) folder: &'a Path,
    pub(super) interval: Duration,
    pub(super) env: Vec<(String, String)>,
    pub(super) env_file: Option<(Place, PathBuf)>,
    /// Names of needs, which a list of `depends_on` tells from services.
    pub(super) needs: Vec<String>,
}

/// Makes a service of its table.
pub(super) fn service(name: &str, values: &Values, common: &Common<'_>, faults: &mut Faults) -> Service {
    let own = values.variables("env").unwrap_or_default();
    let own = own.into_iter().map(|(_, name, value)| (name, value));
    let env_file = values.path("env_file").map(|path| (values.place_of("env_file"), path));
    let stop = values.table("stop");
    let time_of = |table: &Option<Values>, key: &str| table.as_ref().and_then(|table| table.time(key));
    let restart = restart(values, faults);
    let tables = values.tables("check").unwrap_or_default();
    let checks = checks::checks(&tables, common.interval, faults);
    if !restart.on_check {
        for check in checks.iter().filter(|check| check.then == Then::Restart) {
            let message = format!(
                "check {:?} wants a restart, and restart.on of [service.{name}] has no \"check\"; add it there, or write \
                 then = \"warn\"",
                check.name
            );
            faults.add(check.place, message);
        }
    }
    Service {
        name: name.to_owned(),
        place: values.place,
        command: command_line(values),
        cwd: values.path("cwd").unwrap_or_else(|| common.folder.to_owned()),
        cwd_place: values.place_of("cwd"),
        env: common.env.iter().cloned().chain(own).collect(),
        env_below: Vec::new(),
        env_files: common.env_file.iter().cloned().chain(env_file).collect(),
        unbuffered: values.switch("unbuffered").unwrap_or(true),
        enabled: values.switch("enabled").unwrap_or(true),
        oneshot: values.switch("oneshot").unwrap_or(false),
        depends_on: depends_on(values, common),
        start_wait: values.time("start_wait").unwrap_or_default(),
        stop: Stop {
            signal: stop
                .as_ref()
                .and_then(|stop| stop.signal("signal"))
                .unwrap_or(Signal::TERM),
            wait: time_of(&stop, "wait").unwrap_or_default(),
        },
        ready: values.table("ready").map(|ready| checks::ready(&ready)),
        memory_warn: values.table("memory").and_then(|memory| memory.size("warn")),
        restart,
        checks,
        evidence: evidence(values, faults),
    }
}

fn depends_on(values: &Values, common: &Common<'_>) -> Vec<Dependency> {
    let names = values.dependencies("depends_on").unwrap_or_default();
    let dependency = |(place, name, word): (Place, String, Option<String>)| Dependency {
        wanted: match word.as_deref() {
            Some("present") => Wanted::Present,
            Some("ready") => Wanted::Ready,
            None if common.needs.contains(&name) => Wanted::Present,
            _ => Wanted::Started,
        },
        name,
        place,
    };
    names.into_iter().map(dependency).collect()
}

fn restart(values: &Values, faults: &mut Faults) -> Restart {
    let table = values.table("restart");
    let inner = |key: &str| table.as_ref().and_then(|table| table.table(key));
    let (delay, most, pressure) = (inner("delay"), inner("most"), inner("pressure"));
    let time = |table: &Option<Values>, key: &str| table.as_ref().and_then(|table| table.time(key));
    let on = table.as_ref().and_then(|table| table.texts("on")).unwrap_or_default();
    let has = |word: &str| on.iter().any(|(_, on)| on == word);
    let restart = Restart {
        on_exit: has("exit"),
        on_check: has("check"),
        delay_first: time(&delay, "first").unwrap_or_default(),
        delay_most: time(&delay, "most").unwrap_or_default(),
        calm: time(&table, "calm").unwrap_or_default(),
        most_times: most.as_ref().and_then(|most| most.count("times")).unwrap_or_default(),
        most_within: time(&most, "within").unwrap_or_default(),
        pressure_cpu: pressure
            .as_ref()
            .and_then(|table| table.count("cpu"))
            .unwrap_or_default(),
        pressure_wait: time(&pressure, "wait").unwrap_or_default(),
    };
    if let Some(delay) = &delay
        && let (Some(first), Some(most)) = (delay.time("first"), delay.time("most"))
        && most < first
    {
        let key = if delay.has("most") { "most" } else { "first" };
        let message = format!(
            "{} has first = {} and most = {}; make most the longer one",
            delay.title,
            show_duration(first),
            show_duration(most)
        );
        faults.add(delay.place_of(key), message);
    }
    restart
}

fn evidence(values: &Values, faults: &mut Faults) -> Evidence {
    let table = values.table("evidence");
    let time = |key: &str| table.as_ref().and_then(|table| table.time(key)).unwrap_or_default();
    let evidence = Evidence {
        signal: table.as_ref().and_then(|table| table.signal("signal")),
        signal_wait: time("signal_wait"),
        signal_file: table.as_ref().and_then(|table| table.path("signal_file")),
        command: table.as_ref().filter(|table| table.has("command")).map(command_line),
        command_timeout: time("command_timeout"),
    };
    let Some(table) = &table else {
        return evidence;
    };
    if evidence.signal == Some(Signal::KILL) {
        let message = format!(
            "signal of {} cannot be KILL, which no process can handle: write USR1, or another one that it handles",
            table.title
        );
        faults.add(table.place_of("signal"), message);
    }
    let both = evidence.signal_wait + evidence.command_timeout;
    if both > EVIDENCE_MAX {
        let message = format!(
            "signal_wait and command_timeout of {} are {} together, and evidence never delays a kill for more than {}: \
             make one of them shorter",
            table.title,
            show_duration(both),
            show_duration(EVIDENCE_MAX)
        );
        faults.add(table.place, message);
    }
    evidence
}
