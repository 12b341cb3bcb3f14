//! The commands that show what a server has.

use crate::cli::arguments::{Arguments, Raw, flag, switch, word, wrong, wrong_word};
use crate::cli::command::Command;
use crate::cli::reading::{
    ADMIN_SOCKET_PLACES, TIME_MIN, admin_socket, admin_socket_flag, count, server_url, stream_url, stream_url_flag,
    target, time, url_flag, watch, watch_flag,
};
use crate::cli::spec::Spec;
use crate::cli::usage::UsageError;
use crate::commands::clients::Clients;
use crate::commands::graph::{Form, Graph};
use crate::commands::machines::Machines;
use crate::commands::request::ServerUrl;
use crate::commands::tail::Tail;
use crate::commands::tail::lines::Format;
use crate::process::{address, values};
use crate::stream::conflation::period;
use crate::stream::filter::Filter;
use clap::ArgAction;

pub(super) static TAIL: Spec = Spec {
    name: "tail",
    group: "Watch",
    about: "Show events as they come",
    more: "When the server was away, it connects again and goes on after the last event that it has shown, or says what \
           is gone. Ctrl-C or SIGTERM ends it. Colors on a terminal only, and not with NO_COLOR.\n\n\
           Standard output has the events only. What is missing, and where to go on from, goes to standard error; in \
           human format also how the connection goes.",
    usage: &["threadcast tail [MACHINE...] [FLAGS]"],
    examples: &[
        "threadcast tail",
        "threadcast tail 'worker-*' --type 'job_*' -n 20",
        "threadcast tail --format json --count 1",
    ],
    needs: "",
    exits: "0 ended as asked, by Ctrl-C too, 1 failed, or no server has answered in all the time",
    arguments: || {
        vec![
            word("globs", "MACHINE", "as --machine")
                .num_args(0..)
                .action(ArgAction::Append),
            flag(
                "machine",
                "GLOBS",
                "only machines whose name matches: * any characters, ? one; several with commas between, or the flag again",
            ),
            flag("type", "GLOBS", "only events whose type matches"),
            flag(
                "lines",
                "N",
                "first the last N of these events that the server's history has",
            )
            .short('n'),
            flag(
                "since",
                "EPOCH:N",
                "begin after that event: what tail prints at its end",
            ),
            flag(
                "format",
                "FORMAT",
                "human (time, machine, from -> to, trigger), compact (without time), json (as it came) [human]",
            )
            .value_parser(Raw(&["human", "compact", "json"])),
            flag(
                "conflate",
                "TIME",
                "at most one state per machine in this time (100ms to 1m); what is left out is counted at the end",
            ),
            flag("count", "N", "end after that many events"),
            flag("duration", "TIME", "end after this time"),
            switch(
                "utc",
                "times in UTC on a terminal too, where they are local (elsewhere they are UTC)",
            ),
            stream_url_flag(),
            switch("follow", "nothing: it always follows")
                .short('f')
                .short_alias('F'),
        ]
    },
    parts: &[],
    read: tail,
};

fn tail(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let mut machines = arguments.texts("machine")?;
    machines.extend(arguments.texts("globs")?);
    let tail = Tail {
        url: stream_url(arguments)?,
        filter: filter(machines, arguments.texts("type")?)?,
        since: arguments.read("since", |value| {
            value.parse().map_err(|_| {
                "write EPOCH:N as tail prints it at its end, 16 hexadecimal digits, a colon and a number".to_owned()
            })
        })?,
        last: count(arguments, "lines")?.filter(|lines| *lines > 0),
        format: arguments
            .read("format", |value| match value {
                "human" => Ok(Format::Human),
                "compact" => Ok(Format::Compact),
                "json" => Ok(Format::Json),
                _ => Err("write human, compact or json".to_owned()),
            })?
            .unwrap_or(Format::Human),
        conflate: arguments.read("conflate", period)?,
        count: count(arguments, "count")?,
        duration: time(arguments, "duration", TIME_MIN)?,
        utc: arguments.has("utc"),
    };
    if tail.since.is_some() && tail.last.is_some() {
        return Err(UsageError::Missing {
            command: "tail",
            what: "either --since or -n, not both",
        });
    }
    Ok(Command::Tail(tail))
}

/// The filter of the values of --machine and --type. What is given more than once adds up, as commas do.
fn filter(machines: Vec<String>, kinds: Vec<String>) -> Result<Filter, UsageError> {
    let list = |lists: Vec<String>| (!lists.is_empty()).then(|| lists.join(","));
    let (machines, kinds) = (list(machines), list(kinds));
    let (machines, kinds) = (machines.as_deref(), kinds.as_deref());
    // One after the other, so that the fault names its flag.
    Filter::from_lists(machines, None)
        .map_err(|error| wrong("machine", machines.unwrap_or_default(), error.to_string()))?;
    Filter::from_lists(machines, kinds).map_err(|error| wrong("type", kinds.unwrap_or_default(), error.to_string()))
}

pub(super) static MACHINES: Spec = Spec {
    name: "machines",
    group: "Watch",
    about: "Show every machine, and which one is stuck",
    more: "Those in trouble come first: stuck, silent, slow. On a narrow terminal columns are left out; the last line \
           names them. Colors on a terminal only, and not with NO_COLOR.\n\n\
           VERDICT: stuck when it is in its state for far longer than usual, or than declared, and alive; silent when \
           the same goes without a sign of life; slow when it takes longer than usual: this is shown, and no alert is \
           sent.\n\
           TIME: how long it has been in its state, also across restarts of the server; ? when nobody knows.\n\
           USUAL: how long machines of its type stay in that state, the median; blank when nothing is known.\n\
           TRIGGER: that of its last change of state that had one.\n\
           RATE: events in the last 10 s, per second.\n\
           SEEN: time since its last event; ? when nobody knows.\n\
           NOTE: stale when its process is gone, as the engine's database says; noisy when it sends over 100 events/s.\
           \n\n\
           --check is for scripts: it shows only machines that are stuck or silent, and ends with status 1 if there are \
           any, 0 if there are none. With --json the list of the document has only these. A --machine that matches no \
           machine is status 1 too: a check that looks at nothing has found nothing.\n\n\
           --graph shows what the server has learned: for each type and state how often it was entered, how many \
           machines are in it now, how many stays count (STAYS) and how long they take, and from when on a machine is \
           stuck in it (LIMIT; blank: never); then the ways into it, by state and trigger. `threadcast machines --graph \
           worker --dot | dot -Tsvg > worker.svg` draws it.\n\n\
           --forget is for a machine that was killed and never said so. It goes through the server's admin socket; \
           `threadcast forget NAME` is the same, and its help says where commands look for it.",
    usage: &[
        "threadcast machines [GLOBS...] [FLAGS]",
        "threadcast machines --graph [TYPES] [FLAGS]",
        "threadcast machines --forget NAME [FLAGS]",
    ],
    examples: &[
        "threadcast machines",
        "threadcast machines 'encoder-*' --watch",
        "threadcast machines --check || echo 'have a look'",
        "threadcast machines --graph worker",
        "threadcast machines --forget worker-7",
    ],
    needs: "",
    exits: "0 fine, also if no machine matches, 1 no list, nothing to forget, or --check found a machine",
    arguments: || {
        vec![
            word(
                "globs",
                "GLOBS",
                "only machines whose name matches: * any characters, ? one; several with commas between",
            )
            .num_args(0..)
            .action(ArgAction::Append),
            watch_flag(),
            switch(
                "json",
                "the server's document as it is (GET /api/machines) instead of a table",
            ),
            switch(
                "check",
                "only machines that are stuck or silent, and status 1 if there are any",
            ),
            flag(
                "graph",
                "TYPES",
                "what machines of these types (globs; else of all types) usually do, instead of the machines; with --json \
                 the server's document (GET /api/graph)",
            )
            .num_args(0..=1)
            .default_missing_value("")
            .allow_hyphen_values(false),
            switch("dot", "with --graph: in the language of graphviz"),
            flag(
                "forget",
                "NAME",
                "remove this machine, which no longer exists, and show nothing",
            ),
            url_flag(),
            admin_socket_flag(),
        ]
    },
    parts: &[],
    read: machines,
};

/// The machines that the words of `machines` match: all without words.
fn wanted(globs: &[String]) -> Result<Filter, UsageError> {
    let list = globs.join(",");
    let machines = (!globs.is_empty()).then_some(list.as_str());
    Filter::from_lists(machines, None).map_err(|error| wrong_word("globs", &list, &error.to_string()))
}

/// What `--graph` asks for: all types without a value.
fn graph(arguments: &Arguments<'_>) -> Result<Option<Graph>, UsageError> {
    let types = arguments.read("graph", |list| {
        let list = (!list.is_empty()).then_some(list);
        Filter::from_lists(None, list).map_err(|error| error.to_string())
    })?;
    let form = if arguments.has("dot") {
        Form::Dot
    } else if arguments.has("json") {
        Form::Json
    } else {
        Form::Table
    };
    Ok(types.map(|types| Graph { types, form }))
}

fn machines(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let machines = Machines {
        server: server_url(arguments)?,
        socket: admin_socket(arguments)?,
        wanted: wanted(&arguments.texts("globs")?)?,
        json: arguments.has("json"),
        watch: watch(arguments)?,
        check: arguments.has("check"),
        graph: graph(arguments)?,
        forget: arguments.text("forget")?,
    };
    let dot = arguments.has("dot");
    let some = machines.check || !machines.wanted.is_everything();
    let shows = machines.json || machines.watch.is_some() || some || machines.graph.is_some() || dot;
    let what = if machines.forget.is_some() && shows {
        "either --forget, or what to show"
    } else if machines.graph.is_some() && some {
        "either --graph, or the machines to show"
    } else if dot && machines.graph.is_none() {
        "--graph with --dot"
    } else if dot && (machines.json || machines.watch.is_some()) {
        "--dot without --json and --watch"
    } else if machines.check && machines.watch.is_some() {
        "either --check, which looks once, or --watch"
    } else {
        return Ok(Command::Machines(machines));
    };
    Err(UsageError::Missing {
        command: "machines",
        what,
    })
}

pub(super) static CLIENTS: Spec = Spec {
    name: "clients",
    group: "Watch",
    about: "Show who is connected, and who is slow",
    more: "The slowest comes first. The server answers also while its data path stands still. On a narrow terminal \
           columns are left out; the last line names them. Colors on a terminal only, and not with NO_COLOR.\n\n\
           QUEUED, BYTES: events that wait in the client's queue.\n\
           LAG: age of the oldest event that waits for it.\n\
           SKIPPED: events that it was not sent, because the history no longer had them; +? when nobody knows how many \
           more.\n\
           BEHIND: how often its queue was full, so that it had to catch up from the history.\n\
           SLOWEST: the longest that an event took to its socket.\n\
           PONG: time since the last pong, or anything else, came from it.\n\n\
           --end is no ban: a page or `threadcast tail` connects again by itself. It goes through the server's admin \
           socket; `threadcast help forget` says where commands look for it.",
    usage: &["threadcast clients [FLAGS]", "threadcast clients --end ID [FLAGS]"],
    examples: &[
        "threadcast clients",
        "threadcast clients --watch 1s",
        "threadcast clients --end 3",
    ],
    needs: "",
    exits: "0 fine, 1 no figures, or no such client",
    arguments: || {
        vec![
            watch_flag(),
            switch(
                "json",
                "the server's document as it is (GET /status) instead of a table",
            ),
            flag("end", "ID", "end the client with this ID, and show nothing"),
            url_flag(),
            admin_socket_flag(),
        ]
    },
    parts: &[],
    read: clients,
};

fn clients(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let clients = Clients {
        server: server_url(arguments)?,
        socket: admin_socket(arguments)?,
        json: arguments.has("json"),
        watch: watch(arguments)?,
        end: arguments.read("end", |value| {
            let wanted = "write the number of a client, as column ID has it";
            values::number(value, 0, u64::MAX).map_err(|_| wanted.to_owned())
        })?,
    };
    if clients.end.is_some() && (clients.json || clients.watch.is_some()) {
        return Err(UsageError::Missing {
            command: "clients",
            what: "either --end, or what to show",
        });
    }
    Ok(Command::Clients(clients))
}

pub(super) static FORGET: Spec = Spec {
    name: "forget",
    // The same as `machines --forget`.
    group: "",
    about: "Remove a machine that no longer exists",
    more: ADMIN_SOCKET_PLACES,
    usage: &["threadcast forget NAME [FLAGS]"],
    examples: &["threadcast forget worker-7"],
    needs: "the name of a machine",
    exits: "0 forgotten, 1 no such machine or no such server",
    arguments: || {
        vec![
            word(
                "name",
                "NAME",
                "a machine that was killed and never said so; the server tells every browser that shows it",
            )
            .required(true),
            url_flag(),
            admin_socket_flag(),
            flag("host", "ADDRESS", "where the server listens, as --url says it").hide(true),
            flag("port", "PORT", "its port, as --url says it").hide(true),
        ]
    },
    parts: &[],
    read: forget,
};

fn forget(arguments: &Arguments<'_>) -> Result<Command, UsageError> {
    let machine = arguments.required("name")?;
    let mut server = target(arguments)?;
    // Both flags are from before there was --url.
    let host = arguments.read("host", address::parse_host)?;
    let port = arguments.read("port", |value| values::number(value, 1, u64::from(u16::MAX)))?;
    if host.is_some() || port.is_some() {
        if arguments.raw("url").is_some() {
            return Err(UsageError::Missing {
                command: "forget",
                what: "either --url, or --host and --port",
            });
        }
        let usual = ServerUrl::default();
        let port = port.map_or(usual.port(), |port| port as u16);
        server.server = ServerUrl::new(host.unwrap_or_else(|| usual.host().to_owned()), port);
    }
    Ok(Command::Forget { machine, server })
}
