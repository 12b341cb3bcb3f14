//! The text of a first file of services.

use crate::commands::init_services::found::{Broker, Found};
use crate::config::show::quoted;

const HEAD: &str = "\
# What runs here, and how it is watched. `threadcast services check` looks for faults in this file; docs/services.md
# lists every key. Paths are relative to this file. Times are \"500ms\", \"10s\", \"2m\"; sizes \"64KiB\", \"1MiB\".

[supervise]
# run_dir = \"run\"                # what is running
# log_dir = \"logs\"               # NAME.log of each service
# interval = \"10s\"               # how often needs and checks look
# env_file = \".env\"              # KEY=VALUE lines for every service
";

const SERVER: &str = "
# A server to which services and their changes are shown; the keys are those of `threadcast config show`.
# [server]
# port = 3002
";

/// What a service can have besides, the first time.
const MORE: &str = "\
# ready = { log = \"started\", timeout = \"60s\" }   # or file, http, tcp, command: the sign that it has started
# stop = { signal = \"TERM\", wait = \"10s\" }       # what is left then is killed
# memory = { warn = \"500MiB\" }                   # of all its processes together
# [[service.NAME.check]]
# name = \"status\"
# file = \"status.json\"           # it writes this again and again; or queue, http, tcp, command, log, memory
# max_age = \"120s\"
# then = \"restart\"               # or \"warn\"
";

/// Makes the file; without services, with one that is an example.
pub(super) fn file(services: &[Found]) -> String {
    let mut text = format!("{HEAD}{SERVER}");
    let mut brokers: Vec<Broker> = services.iter().filter_map(|service| service.broker).collect();
    brokers.sort();
    brokers.dedup();
    for broker in brokers {
        text.push_str(need(broker));
    }
    let example = Found {
        name: "example".to_owned(),
        from: "an example: it writes the time".to_owned(),
        command: ["sh", "-c", "while sleep 10; do date; done"]
            .map(str::to_owned)
            .to_vec(),
        ..Found::default()
    };
    let services = if services.is_empty() {
        std::slice::from_ref(&example)
    } else {
        services
    };
    for (at, service) in services.iter().enumerate() {
        text.push_str(&section(service));
        if at == 0 {
            let more = MORE.replace("NAME", &service.name);
            // A key stands once.
            let more = more
                .lines()
                .filter(|line| service.address.is_none() || !line.starts_with("# ready"));
            more.for_each(|line| text.push_str(&format!("{line}\n")));
        }
    }
    text
}

fn need(broker: Broker) -> &'static str {
    match broker {
        Broker::Redis => {
            "\n# Redis must be there; it is never started or stopped from here.\n[needs.redis]\ntcp = \"localhost:6379\"\n\
             send = \"PING\\r\\n\"\nexpect = \"+PONG\"\nhint = \"redis-server\"\n"
        }
        Broker::RabbitMq => {
            "\n# RabbitMQ must be there; it is never started or stopped from here.\n[needs.rabbitmq]\n\
             tcp = \"localhost:5672\"\nhint = \"rabbitmq-server\"\n"
        }
    }
}

fn section(service: &Found) -> String {
    let words: Vec<String> = service.command.iter().map(|word| quoted(word)).collect();
    let mut text = format!("\n# From {}.\n[service.{}]\n", comment(&service.from), service.name);
    text.push_str(&format!("command = [{}]", words.join(", ")));
    if let Some(todo) = service.todo {
        text.push_str(&format!("   # write {todo}"));
    }
    text.push('\n');
    if let Some(folder) = &service.folder {
        text.push_str(&format!("cwd = {}\n", quoted(folder)));
    }
    if service.is_oneshot {
        text.push_str("oneshot = true\n");
    }
    match service.broker {
        Some(Broker::Redis) => text.push_str("depends_on = { redis = \"present\" }\n"),
        Some(Broker::RabbitMq) => text.push_str("depends_on = { rabbitmq = \"present\" }\n"),
        None => {}
    }
    if let Some(address) = service.address {
        text.push_str(&format!("ready = {{ tcp = {} }}\n", quoted(address)));
    }
    text
}

/// A text that ends with its line.
fn comment(text: &str) -> String {
    text.replace(char::is_control, "?")
}
