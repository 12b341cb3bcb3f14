//! The commands that send events to a server.

use crate::cli::arguments::{Arguments, absent, flag, switch, word, wrong};
use crate::cli::command::Command;
use crate::cli::reading::{TIME_MIN, event_socket, event_socket_flag, time};
use crate::cli::spec::Spec;
use crate::cli::usage::UsageError;
use crate::commands::demo::Demo;
use crate::commands::demo::play::{self, Freeze};
use crate::commands::emit::{Emit, Source};
use crate::commands::replay::Replay;
use std::time::Duration;

/// How long `emit` waits for room in the server's queue.
const EMIT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long `replay` waits for a server that is away or takes nothing.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);
/// From when on `demo` freezes a machine: by then it has changed its state a few times.
const FREEZE_AFTER: Duration = Duration::from_secs(10);
/// The slowest that a recording may be played, as a factor: a second of it then takes 17 minutes.
const SPEED_MIN: f64 = 0.001;
/// The fastest that a recording may be played, as a factor: a day of it then takes a tenth of a second.
const SPEED_MAX: f64 = 1_000_000.0;

pub(super) static EMIT: Spec = Spec {
    name: "emit",
    group: "Send",
    about: "Send an event from a shell, or many",
    more: "Says so if an event was not taken. Never waits longer than --timeout for a server that is busy; with --stdin, \
           once a line has waited that long in vain, those after it are tried without waiting until one goes through. \
           Ctrl-C or SIGTERM ends --stdin, which then says how many went out.",
    usage: &[
        "threadcast emit TYPE MACHINE [FLAGS]",
        "threadcast emit --stdin [FLAGS]",
    ],
    examples: &[
        "threadcast emit job_started worker-7 --payload '{\"job_id\": \"7\"}'",
        "my-program | threadcast emit --stdin",
    ],
    needs: "",
    exits: "0 all sent, 1 some refused",
    arguments: || {
        vec![
            word("type", "TYPE", "what has happened, such as state_change or job_started"),
            word("machine", "MACHINE", "the name of the machine that it happened to"),
            flag("payload", "JSON", "the event's payload [{}]"),
            switch(
                "stdin",
                "send each line of standard input, a JSON object, as it is; then say how many went out",
            ),
            flag(
                "timeout",
                "TIME",
                "how long each event may wait for room in the server's queue [1s]",
            ),
            event_socket_flag(),
        ]
    },
    parts: &[],
    read: emit,
};

fn emit(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let missing = |what| UsageError::Missing { command: "emit", what };
    let words = (arguments.text("type")?, arguments.text("machine")?);
    let payload = arguments.text("payload")?;
    let source = match (arguments.has("stdin"), words, payload) {
        (false, (Some(kind), Some(machine)), payload) if !kind.is_empty() && !machine.is_empty() => Source::Event {
            kind,
            machine,
            payload: payload.unwrap_or_else(|| "{}".to_owned()),
        },
        (false, (Some(_), Some(_)), _) => return Err(missing("a type and a machine that are not empty")),
        (false, ..) => return Err(missing("the type of the event and the name of its machine, or --stdin")),
        (true, (None, None), None) => Source::Stdin,
        (true, ..) => return Err(missing("either --stdin alone, or a type and a machine")),
    };
    Ok(Command::Emit(Emit {
        source,
        path: event_socket(arguments)?,
        timeout: time(arguments, "timeout", Duration::ZERO)?.unwrap_or(EMIT_TIMEOUT),
    }))
}

pub(super) static REPLAY: Spec = Spec {
    name: "replay",
    group: "Send",
    about: "Send what a journal has recorded again",
    more: "Sends the events in their order, byte for byte and with their original timing. Line ends between the tokens \
           of an event are spaces in a journal. Ctrl-C or SIGTERM ends it.\n\n\
           A POINT is an event's number (digits alone: 1234), or a time: @SECONDS or SECONDS.FRACTION since 1970, or UTC \
           as in 2026-11-23T00:24:40Z.",
    usage: &["threadcast replay --journal DIR [FLAGS]"],
    examples: &[
        "threadcast replay --journal journal",
        "threadcast replay --journal journal --from 2026-11-23T00:24:40Z --speed 10",
    ],
    needs: "--journal, the folder of the recording",
    exits: "0 all sent, or ended as asked; 1 some not taken, or no recording",
    arguments: || {
        vec![
            flag(
                "journal",
                "DIR",
                "the folder of the recording; a server may be writing it: what it adds is not replayed",
            )
            .required(true),
            flag("from", "POINT", "begin with this event [the first]"),
            flag("to", "POINT", "end with this one [the last]"),
            switch("fast", "without pauses, as fast as the server takes it"),
            flag("speed", "X", "X times as fast as it happened [1]"),
            flag(
                "timeout",
                "TIME",
                "how long to wait for a server that is away or takes nothing [10s]",
            ),
            event_socket_flag(),
        ]
    },
    parts: &[],
    read: replay,
};

fn replay(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let missing = |what| UsageError::Missing {
        command: "replay",
        what,
    };
    let fast = arguments.has("fast");
    let speed = arguments.read("speed", |value| match value.parse() {
        Ok(speed) if (SPEED_MIN..=SPEED_MAX).contains(&speed) => Ok(speed),
        _ => Err(format!("write how many times faster, from {SPEED_MIN} to {SPEED_MAX}")),
    })?;
    if fast && speed.is_some() {
        return Err(missing("either --fast or --speed, not both"));
    }
    Ok(Command::Replay(Replay {
        journal: arguments.raw("journal").ok_or_else(|| absent("--journal"))?.into(),
        from: arguments.read("from", str::parse)?,
        to: arguments.read("to", str::parse)?,
        speed: (!fast).then_some(speed.unwrap_or(1.0)),
        path: event_socket(arguments)?,
        timeout: time(arguments, "timeout", TIME_MIN)?.unwrap_or(REPLAY_TIMEOUT),
    }))
}

pub(super) static DEMO: Spec = Spec {
    name: "demo",
    group: "Send",
    about: "Five machines, to have something to see",
    more: "They work, fail, retry, end and come back; their events go to a running server. Ctrl-C or SIGTERM ends them, \
           and tells the server.\n\n\
           A frozen machine is what a worker looks like that hangs and lives: it sends activity once a second, and stays in \
           the first state of work (not waiting, not idle) that it enters after --freeze-after.",
    usage: &["threadcast demo [FLAGS]"],
    examples: &["threadcast demo", "threadcast demo --freeze image_worker_002"],
    needs: "",
    exits: "0 fine, 1 no event was taken",
    arguments: || {
        vec![
            flag(
                "freeze",
                "NAME",
                format!(
                    "a machine that stops changing its state: {}; may be given again",
                    machine_names()
                ),
            ),
            flag("freeze-after", "TIME", "from when on it may freeze [10s]"),
            flag("freeze-for", "TIME", "how long it stays frozen [to the end]"),
            event_socket_flag(),
        ]
    },
    parts: &[],
    read: demo,
};

fn machine_names() -> String {
    play::names().collect::<Vec<_>>().join(", ")
}

fn demo(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let name = |value: String| {
        let known = play::names().find(|name| *name == value);
        known.ok_or_else(|| wrong("freeze", &value, format!("write one of {}", machine_names())))
    };
    let machines: Vec<_> = arguments
        .texts("freeze")?
        .into_iter()
        .map(name)
        .collect::<Result<_, _>>()?;
    let after = time(arguments, "freeze-after", Duration::ZERO)?;
    let lasts = time(arguments, "freeze-for", TIME_MIN)?;
    if machines.is_empty() && (after.is_some() || lasts.is_some()) {
        return Err(UsageError::Missing {
            command: "demo",
            what: "--freeze, the name of a machine, for --freeze-after and --freeze-for",
        });
    }
    Ok(Command::Demo(Demo {
        path: event_socket(arguments)?,
        freeze: Freeze {
            machines,
            after: after.unwrap_or(FREEZE_AFTER),
            lasts,
        },
    }))
}
