//! The commands of the server: `serve`, and those that look at or act on one that runs.

use crate::cli::arguments::{Arguments, Raw, absent, flag, switch, word};
use crate::cli::command::Command;
use crate::cli::reading::{ADMIN_SOCKET_PLACES, admin_socket_flag, server_url, target, url_flag};
use crate::cli::spec::Spec;
use crate::cli::usage::UsageError;
use crate::commands::drill::Drill;
use crate::config::Config;
use crate::config::sources::{Given, InForce, resolve};
use crate::config::table::{GROUPS, Setting};
use crate::liveness::beats::NAMES;
use crate::liveness::drill::{DRILL_MAX, Kind};
use crate::process::values;
use clap::Arg;
use std::time::Duration;

pub(super) static SERVE: Spec = Spec {
    name: "serve",
    group: "Server",
    about: "Receive events, send them to browsers",
    more: "Receives events on a Unix datagram socket and sends each to every WebSocket client, until SIGTERM or Ctrl-C. \
           A further signal, more than 500 ms after the first, ends it at once. SIGHUP reads the settings again.\n\n\
           A setting comes from its flag, else from the environment (THREADCAST_SET_PORT for --port, and so on), else \
           from the settings file, else it has its default. `threadcast config show` prints those in force.",
    usage: &["threadcast serve [FLAGS]"],
    examples: &[
        "threadcast serve",
        "threadcast serve --port 8080 --journal /var/lib/threadcast/journal",
        "threadcast serve --config /etc/threadcast.toml",
    ],
    needs: "",
    exits: "0 stopped as asked, 1 failed",
    arguments: settings_flags,
    parts: &[],
    read: |arguments| Ok(Command::Serve(Box::new(settings_of(arguments)?.config))),
};

pub(super) static DOCTOR: Spec = Spec {
    name: "doctor",
    group: "Server",
    about: "Ask a server whether it is well",
    more: "With --probe, asks for /health and ends with status 0 when the answer is 200, for a container's HEALTHCHECK \
           or a script. A server whose data path hangs answers 503.",
    usage: &["threadcast doctor --probe [--url URL]"],
    examples: &[
        "threadcast doctor --probe",
        "HEALTHCHECK CMD [\"threadcast\", \"doctor\", \"--probe\"]",
    ],
    needs: "--probe",
    exits: "0 the server is well, 1 it is not, or nobody answers",
    arguments: || {
        vec![
            switch("probe", "one question, one line, one exit status").required(true),
            url_flag(),
        ]
    },
    parts: &[],
    read: |arguments| Ok(Command::Probe(server_url(arguments)?)),
};

pub(super) static DIAGNOSE: Spec = Spec {
    name: "diagnose",
    group: "Server",
    about: "Print what every thread does, with stacks",
    more: ADMIN_SOCKET_PLACES,
    usage: &["threadcast diagnose [FLAGS]"],
    examples: &[
        "threadcast diagnose",
        "threadcast diagnose --url localhost:8080 > report.txt",
    ],
    needs: "",
    exits: "0 fine, 1 no report",
    arguments: || vec![url_flag(), admin_socket_flag()],
    parts: &[],
    read: |arguments| Ok(Command::Diagnose(target(arguments)?)),
};

pub(super) static DRILL: Spec = Spec {
    name: "drill",
    group: "Server",
    about: "Freeze a thread, to see what a hang looks like",
    more: ADMIN_SOCKET_PLACES,
    usage: &["threadcast drill COMPONENT DURATION [FLAGS]"],
    examples: &[
        "threadcast drill fanout 20s",
        "threadcast drill client-3 10s --kind spin",
    ],
    needs: "the name of a component and a time, for instance: drill fanout 20s",
    exits: "0 the drill has begun, 1 it has not",
    arguments: || {
        vec![
            word(
                "component",
                "COMPONENT",
                format!(
                    "{}, or client-N: the thread of a client, which then holds its socket as if that were stuck",
                    NAMES.join(", ")
                ),
            )
            .num_args(1)
            .required(true)
            .value_parser(Raw(&NAMES)),
            word(
                "duration",
                "DURATION",
                format!("at most {}; 0s ends a drill", values::show_duration(DRILL_MAX)),
            )
            .required(true),
            flag(
                "kind",
                "KIND",
                "sleep (as one that waits for a lock or a disk), spin (computing), log (asleep with the log's lock in \
                 its hand) [sleep]",
            ),
            url_flag(),
            admin_socket_flag(),
        ]
    },
    parts: &[],
    read: drill,
};

fn drill(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let duration = arguments.read_word("duration", |value| values::duration(value, Duration::ZERO, DRILL_MAX))?;
    Ok(Command::Drill(Drill {
        component: arguments.required("component")?,
        duration: duration.ok_or_else(|| absent("duration"))?,
        kind: arguments.text("kind")?.unwrap_or_else(|| Kind::Sleep.name().to_owned()),
        server: target(arguments)?,
    }))
}

/// The flags of `serve`: one for each setting, and the settings file.
pub(super) fn settings_flags() -> Vec<Arg> {
    let file = flag(
        "config",
        "FILE",
        "the settings file: TOML, with a key for each of these settings",
    );
    let groups = GROUPS.iter().flat_map(|group| {
        let flags = group.settings.iter().map(setting_flag);
        flags.map(|flag| flag.help_heading(group.name))
    });
    std::iter::once(file).chain(groups).collect()
}

fn setting_flag(setting: &'static Setting) -> Arg {
    let kind = &setting.kind;
    let default = setting.show(&Config::default());
    let long = format!(
        "{} [{}; default {default}; {}]",
        setting.help,
        kind.takes(),
        setting.environment_name()
    );
    if setting.is_switch() {
        return flag(setting.name, "true|false", setting.help)
            .long_help(long)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(Raw(kind.words()));
    }
    flag(setting.name, kind.value(), format!("{} [{default}]", setting.help))
        .long_help(long)
        .value_parser(Raw(kind.words()))
}

/// The settings in force: those of the command line, the environment and the settings file.
pub(super) fn settings_of(arguments: &Arguments<'_>) -> Result<InForce, UsageError> {
    let mut given = Given {
        file: arguments.raw("config").map(Into::into),
        flags: Vec::new(),
    };
    for setting in GROUPS.iter().flat_map(|group| group.settings) {
        let values = arguments.texts(setting.name)?;
        // The last one counts, except of a list.
        let first = if setting.is_list() {
            0
        } else {
            values.len().saturating_sub(1)
        };
        given
            .flags
            .extend(values.into_iter().skip(first).map(|value| (setting, value)));
    }
    resolve(given, arguments.environment).map_err(UsageError::Settings)
}
