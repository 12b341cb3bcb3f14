//! The plan, from what the tables of the file say.

use crate::config::Config;
use crate::config::file::Entry;
use crate::config::sources::{self, Fault};
use crate::config::table::{Setting, settings};
use crate::process::address::{Authority, ServerAddress};
use crate::supervise::settings::checks::{self, command_line};
use crate::supervise::settings::faults::Faults;
use crate::supervise::settings::plan::{
    Ask, Cleanup, Conflict, Incidents, Need, Order, Plan, Server, Supervise, Watch,
};
use crate::supervise::settings::references;
use crate::supervise::settings::services::{self, Common};
use crate::supervise::settings::values::Values;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Makes the plan of the whole file; `None` if a table is missing, which never happens without a fault.
pub(super) fn plan(file: &Path, folder: &Path, values: &Values, faults: &mut Faults) -> Option<Plan> {
    let common = values.table("supervise")?;
    let interval = common.time("interval").unwrap_or_default();
    let poll = common.time("poll").unwrap_or_default();
    let server = server(file, &common, values, faults);
    let named = values.named("needs").unwrap_or_default();
    let needs = named.iter().map(|(name, values)| need(name, values, interval));
    let of_services = Common {
        folder,
        interval,
        env: common
            .variables("env")
            .unwrap_or_default()
            .into_iter()
            .map(|(_, name, value)| (name, value))
            .collect(),
        env_file: common.path("env_file").map(|path| (common.place_of("env_file"), path)),
        needs: named.iter().map(|(name, _)| name.clone()).collect(),
    };
    let tables = values.named("service").unwrap_or_default();
    let services = tables
        .iter()
        .map(|(name, values)| services::service(name, values, &of_services, faults))
        .collect();
    let mut plan = Plan {
        file: file.to_owned(),
        folder: folder.to_owned(),
        supervise: supervise(&common, server.as_ref(), folder)?,
        server,
        needs: needs.collect(),
        services,
        watches: watches(&values.tables("watch").unwrap_or_default(), poll, faults),
        incidents: incidents(values),
        conflicts: conflicts(&values.tables("conflict").unwrap_or_default(), faults),
        cleanup: Cleanup::default(),
        order: Order::default(),
    };
    if let Some(values) = values.table("cleanup") {
        plan.cleanup = cleanup(&values, &plan.conflicts, faults);
    }
    plan.order = references::order(&plan, faults);
    Some(plan)
}

fn supervise(values: &Values, server: Option<&Server>, folder: &Path) -> Option<Supervise> {
    let events = match values.socket_path("events") {
        Some(path) => path,
        None => {
            let config = server.map(|server| &server.config.event_socket_path);
            let path = config.cloned().unwrap_or(Config::default().event_socket_path);
            Some(folder.join(path))
        }
    };
    Some(Supervise {
        run_dir: values.path("run_dir").unwrap_or_default(),
        log_dir: values.path("log_dir").unwrap_or_default(),
        log_bytes: values.size("log_bytes").unwrap_or_default(),
        log_keep: values.count("log_keep").unwrap_or_default(),
        events,
        url: match (values.address("url"), server) {
            (Some(url), _) => url,
            (None, Some(server)) => address_of(&server.config),
            (None, None) => checks::usual_server()?,
        },
        interval: values.time("interval").unwrap_or_default(),
        poll: values.time("poll").unwrap_or_default(),
        env_file: values.path("env_file"),
    })
}

/// Where a server with these settings answers.
fn address_of(config: &Config) -> ServerAddress {
    // A server that listens on every address answers on this one too.
    let is_every = config
        .host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_unspecified());
    let host = if is_every {
        "127.0.0.1".to_owned()
    } else {
        config.host.clone()
    };
    ServerAddress {
        authority: Authority::new(host, config.port),
        path: String::new(),
        query: None,
    }
}

/// The server of the file, if it has one. It runs in the file's folder; its log and its event socket are where
/// `[supervise]` has them, unless its own settings say otherwise.
fn server(file: &Path, common: &Values, values: &Values, faults: &mut Faults) -> Option<Server> {
    let entries = values.entries("server")?;
    let place = values.place_of("server");
    let mut in_force = match sources::of_entries(file, &entries) {
        Ok(in_force) => in_force.config,
        Err(list) => {
            for fault in list {
                match fault {
                    Fault::File(fault) => faults.push(fault),
                    // A default that does not fit what the file has.
                    other => faults.add(place, format!("[server] needs another setting: {}", plain(&other))),
                }
            }
            Config::default()
        }
    };
    let has = |name: &str| entries.iter().any(|entry: &Entry| entry.name == name);
    let mut more = Vec::new();
    let mut also = |name: &'static str, path: Option<PathBuf>| {
        if let (false, Some(path)) = (has(name), path)
            && let Some(setting) = Setting::find(name)
            && setting.set(&mut in_force, &path.display().to_string()).is_ok()
        {
            more.push(name);
        }
    };
    also("log-dir", common.path("log_dir"));
    also("event-socket-path", common.socket_path("events").flatten());
    let given = settings().filter(|setting| has(setting.name) || more.contains(&setting.name));
    let arguments = given.flat_map(|setting| {
        let values = match setting.values(&in_force) {
            values if values.is_empty() => vec!["none".to_owned()],
            values => values,
        };
        values.into_iter().map(|value| format!("--{}={value}", setting.name))
    });
    Some(Server {
        arguments: arguments.collect(),
        config: Box::new(in_force.clone()),
        place,
    })
}

/// The fault of a setting, without the dashes of a flag.
fn plain(fault: &Fault) -> String {
    let text = fault.to_string();
    text.strip_prefix("--").map_or(text.clone(), str::to_owned)
}

fn need(name: &str, values: &Values, interval: Duration) -> Need {
    Need {
        name: name.to_owned(),
        probe: checks::probe(values),
        timeout: values.time("timeout").unwrap_or_default(),
        interval: values.time("interval").unwrap_or(interval),
        hint: values.text("hint"),
        place: values.place,
    }
}

fn watches(tables: &[Values], poll: Duration, faults: &mut Faults) -> Vec<Watch> {
    let mut watches: Vec<Watch> = Vec::new();
    for values in tables {
        let name = values.text("name").unwrap_or_default();
        once(watches.iter().map(|watch| watch.name.as_str()), &name, values, faults);
        watches.push(Watch {
            name,
            path: values.path("path").unwrap_or_default(),
            every: values.time("every").unwrap_or(poll),
            settle: values.time("settle").unwrap_or_default(),
        });
    }
    watches
}

fn incidents(values: &Values) -> Incidents {
    let table = values.table("incidents");
    Incidents {
        keep: table.as_ref().and_then(|table| table.count("keep")).unwrap_or_default(),
        keep_bytes: table
            .as_ref()
            .and_then(|table| table.size("keep_bytes"))
            .unwrap_or_default(),
    }
}

fn conflicts(tables: &[Values], faults: &mut Faults) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = Vec::new();
    for values in tables {
        let name = values.text("name").unwrap_or_default();
        once(
            conflicts.iter().map(|conflict| conflict.name.as_str()),
            &name,
            values,
            faults,
        );
        let expected = values.count("expected").unwrap_or(1);
        let conflict = Conflict {
            name,
            place: values.place,
            matches: texts(values, "match"),
            inside: values.paths("inside").unwrap_or_default(),
            expected,
            warn: values.count("warn").unwrap_or(expected + 1),
            critical: values.count("critical"),
        };
        if conflict.warn <= expected {
            let message = format!(
                "warn of {} is {}, and {expected} are expected; write more than {expected}",
                values.title, conflict.warn
            );
            faults.add(values.place_of("warn"), message);
        }
        if let Some(critical) = conflict.critical
            && critical <= conflict.warn.max(expected)
        {
            let message = format!(
                "critical of {} is {critical}; it must be more than warn ({}) and expected ({expected})",
                values.title, conflict.warn
            );
            faults.add(values.place_of("critical"), message);
        }
        conflicts.push(conflict);
    }
    conflicts
}

fn cleanup(values: &Values, conflicts: &[Conflict], faults: &mut Faults) -> Cleanup {
    for (place, name) in values.texts("strays").unwrap_or_default() {
        if !conflicts.iter().any(|conflict| conflict.name == name) {
            let names = conflicts.iter().map(|conflict| conflict.name.as_str());
            let message = format!(
                "strays of [cleanup] names {name:?}, which is no [[conflict]]{}",
                references::instead(&name, names)
            );
            faults.add(place, message);
        }
    }
    let mut asks: Vec<Ask> = Vec::new();
    for values in values.tables("ask").unwrap_or_default() {
        let name = values.text("name").unwrap_or_default();
        once(asks.iter().map(|ask| ask.name.as_str()), &name, &values, faults);
        asks.push(Ask {
            name,
            command: command_line(&values),
            warning: values.text("warning"),
            timeout: values.time("timeout").unwrap_or_default(),
        });
    }
    Cleanup {
        strays: texts(values, "strays"),
        files: texts(values, "files"),
        asks,
    }
}

fn texts(values: &Values, key: &str) -> Vec<String> {
    let texts = values.texts(key).unwrap_or_default();
    texts.into_iter().map(|(_, text)| text).collect()
}

/// Adds a fault if the name is there already.
fn once<'a>(mut names: impl Iterator<Item = &'a str>, name: &str, values: &Values, faults: &mut Faults) {
    if !name.is_empty() && names.any(|known| known == name) {
        let message = format!(
            "there is another {} of the name {name:?}; give this one its own",
            values.title
        );
        faults.add(values.place_of("name"), message);
    }
}
