//! The document of the control socket as a table for people.

use crate::commands::painter::{DIM, NONE, Painter, RED};
use crate::commands::table::{Column, Fit, Table, column, count, time, width};
use crate::process::visible::visible;
use crate::process::words;
use serde_json::Value;

const COLUMNS: [Column; 10] = [
    column("SERVICE", Fit::Ends(8), 0),
    column("STATE", Fit::Word, 0),
    column("PID", Fit::Number, 2),
    column("UP", Fit::Number, 1),
    column("MEMORY", Fit::Number, 3),
    column("CPU %", Fit::Number, 4),
    column("PROCESSES", Fit::Number, 6),
    column("RESTARTS", Fit::Number, 5),
    column("LAST EXIT", Fit::Beginning(12), 7),
    column("NOTE", Fit::Beginning(10), 0),
];

/// Returns whether everything is as it should be.
pub(super) fn is_well(document: &Value) -> bool {
    let of = |name: &str| document.get(name).and_then(Value::as_array);
    let services = of("services").is_some_and(|services| services.iter().all(|service| service["ok"] == true));
    let needs = of("needs").is_some_and(|needs| needs.iter().all(|need| need["present"] != false));
    let conflicts = of("conflicts").is_none_or(|list| list.iter().all(|conflict| conflict["ok"] != false));
    services && needs && conflicts && of("hung").is_none_or(Vec::is_empty)
}

/// The table, with a line for each check that fails, each need that is not there and each thread that hangs.
pub(super) fn table(document: &Value) -> String {
    let painter = Painter::of_stdout();
    let list = |name: &str| {
        document
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let mut table = Table::new(&COLUMNS);
    let services = list("services");
    for service in &services {
        let color = match service["state"].as_str() {
            _ if service["ok"] != true => RED,
            Some("stopped" | "finished") => DIM,
            _ => NONE,
        };
        table.push(color, row(service));
    }
    let mut text = table.text(width(), painter);
    for service in &services {
        let checks = service["checks"].as_array().into_iter().flatten();
        for check in checks.filter(|check| check["bad"] == true) {
            let (name, check_name) = (text_of(service, "name"), text_of(check, "name"));
            let how = if check["ok"] == false { "fails" } else { "cannot judge" };
            let line = format!("{name}: check {check_name} {how}: {}\n", text_of(check, "seen"));
            text.push_str(&painter.paint(RED, &line));
        }
    }
    for need in list("needs") {
        if need["present"] == false {
            let line = format!("{} is not there: {}\n", text_of(&need, "name"), text_of(&need, "seen"));
            text.push_str(&painter.paint(RED, &line));
        }
    }
    for conflict in list("conflicts") {
        if conflict["ok"] == false {
            let (level, seen) = (text_of(&conflict, "level"), text_of(&conflict, "seen"));
            let line = format!("conflict {seen}: {level}; `threadcast services cleanup` lists the strays\n");
            text.push_str(&painter.paint(RED, &line));
        }
    }
    for hung in list("hung") {
        let line = format!("{}\n", visible(hung.as_str().unwrap_or_default()));
        text.push_str(&painter.paint(RED, &line));
    }
    if services.is_empty() {
        text.push_str("no services\n");
    }
    text
}

fn text_of(value: &Value, name: &str) -> String {
    visible(value[name].as_str().unwrap_or_default())
}

fn row(service: &Value) -> Vec<String> {
    let number = |name: &str| service[name].as_f64();
    let adopted = if service["adopted"] == true { "taken over" } else { "" };
    let notes = [text_of(service, "note"), adopted.to_owned()];
    let notes: Vec<String> = notes.into_iter().filter(|note| !note.is_empty()).collect();
    vec![
        text_of(service, "name"),
        text_of(service, "state"),
        service["pid"].as_i64().map_or_else(String::new, |pid| pid.to_string()),
        number("uptime_seconds").map_or_else(String::new, |seconds| time(seconds * 1000.0)),
        number("memory_bytes").map_or_else(String::new, words::size),
        number("cpu_percent").map_or_else(String::new, |percent| format!("{percent:.1}")),
        number("processes")
            .filter(|many| *many > 0.0)
            .map_or_else(String::new, count),
        number("restarts")
            .filter(|many| *many > 0.0)
            .map_or_else(String::new, count),
        text_of(service, "last_exit"),
        notes.join("; "),
    ]
}
