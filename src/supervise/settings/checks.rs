//! Probes, signs of being ready, and checks, from what their tables say.

use crate::process::address::ServerAddress;
use crate::supervise::settings::faults::Faults;
use crate::supervise::settings::plan::{Check, CommandLine, Probe, QueueFormat, Ready, ReadySign, Sign, Then};
use crate::supervise::settings::scalars;
use crate::supervise::settings::values::Values;
use std::time::Duration;

/// The longest time in which nothing leaves a queue, if the file does not say.
const MOVES_WITHIN: Duration = Duration::from_secs(300);

/// The command of a table; without one, which is a fault already, one that is empty.
pub(super) fn command_line(values: &Values) -> CommandLine {
    CommandLine {
        words: values.command("command").unwrap_or_default(),
        place: values.place_of("command"),
    }
}

/// The probe that a table has; without one, which is a fault already, a command that is empty.
pub(super) fn probe(values: &Values) -> Probe {
    if let Some(address) = values.address("tcp") {
        return Probe::Tcp {
            address: address.authority,
            send: values.text("send"),
            expect: values.text("expect"),
        };
    }
    if let Some(address) = values.address("http") {
        let status = values.counts("status").unwrap_or_default();
        return Probe::Http {
            address,
            // The table of keys bounds them.
            status: status.into_iter().filter_map(|status| status.try_into().ok()).collect(),
        };
    }
    Probe::Command(command_line(values))
}

/// The sign of being ready.
pub(super) fn ready(values: &Values) -> Ready {
    let sign = match (values.path("file"), values.text("log")) {
        (Some(path), _) => ReadySign::File(path),
        (_, Some(text)) => ReadySign::Log(text),
        _ => ReadySign::Probe(probe(values)),
    };
    Ready {
        sign,
        timeout: values.time("timeout").unwrap_or_default(),
        interval: values.time("interval").unwrap_or_default(),
    }
}

/// The checks of a service, each with a name of its own.
pub(super) fn checks(tables: &[Values], interval: Duration, faults: &mut Faults) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for values in tables {
        let name = values.text("name").unwrap_or_default();
        if !name.is_empty()
            && let Some(first) = checks.iter().find(|check| check.name == name)
        {
            let message = format!(
                "there is a check {name:?} of this service already, at {}; give this one another name",
                first.place
            );
            faults.add(values.place_of("name"), message);
        }
        checks.push(Check {
            name,
            place: values.place_of("name"),
            sign: sign(values, faults),
            interval: values.time("interval").unwrap_or(interval),
            timeout: values.time("timeout").unwrap_or_default(),
            strikes: values.count("strikes").unwrap_or(1),
            then: match values.text("then").as_deref() {
                Some("restart") => Then::Restart,
                _ => Then::Warn,
            },
        });
    }
    checks
}

fn sign(values: &Values, faults: &mut Faults) -> Sign {
    let max_age = values.time("max_age").unwrap_or_default();
    let moves_within = values.time("moves_within");
    if let Some(path) = values.path("file") {
        return Sign::File { path, max_age };
    }
    if let Some(path) = values.path("queue") {
        return Sign::Queue {
            path,
            format: queue_format(values, faults),
            moves_within: moves_within.unwrap_or(MOVES_WITHIN),
        };
    }
    if let Some(text) = values.text("log") {
        return Sign::Log { text, max_age };
    }
    if let Some(machine) = values.text("machine") {
        let verdicts = values.texts("verdicts").unwrap_or_default();
        let has = |word: &str| verdicts.iter().any(|(_, verdict)| verdict == word);
        if verdicts.is_empty() {
            let message = format!("verdicts of {} is empty: write stuck, silent or both", values.title);
            faults.add(values.place_of("verdicts"), message);
        }
        return Sign::Machine {
            machine,
            stuck: has("stuck"),
            silent: has("silent"),
        };
    }
    if let Some(most) = values.size("memory") {
        return Sign::Memory { most };
    }
    if let Some(machine) = values.text("heartbeat") {
        return Sign::Heartbeat { machine, max_age };
    }
    match (probe(values), moves_within) {
        (Probe::Command(command), Some(moves_within)) => Sign::CommandQueue { command, moves_within },
        (probe, _) => Sign::Probe(probe),
    }
}

fn queue_format(values: &Values, faults: &mut Faults) -> QueueFormat {
    let key = values.text("key");
    if values.text("format").as_deref() != Some("lines") {
        return QueueFormat::Json { key };
    }
    if key.is_some() {
        let message = format!(
            "key of {} counts only with format = \"json\"; take one of them out",
            values.title
        );
        faults.add(values.place_of("key"), message);
    }
    QueueFormat::Lines
}

/// The server that checks of machines ask, when the file names none: the one that commands ask.
pub(super) fn usual_server() -> Option<ServerAddress> {
    scalars::url("http://127.0.0.1:3002").ok()
}
