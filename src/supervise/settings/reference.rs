//! The tables of docs/services.md, from the table of keys.

use crate::supervise::settings::kinds::{Fallback, Key, Kind, Section};
use crate::supervise::settings::table::SECTIONS;

/// Makes the part of the page that lists every key of the file of services.
pub fn keys() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let header = match section.header {
            "" => "The file".to_owned(),
            header => format!("`{header}`"),
        };
        text.push_str(&format!("### {header}\n\n{}.", section.about));
        if !section.one_of.is_empty() {
            let names: Vec<String> = section.one_of.iter().map(|name| format!("`{name}`")).collect();
            text.push_str(&format!(" It has exactly one of {}.", names.join(", ")));
        }
        text.push_str("\n\n| key | takes | without it | what it does |\n|---|---|---|---|\n");
        section.keys.iter().for_each(|key| text.push_str(&row(section, key)));
        text.push('\n');
    }
    text
}

fn row(section: &Section, key: &Key) -> String {
    let without = match key.fallback {
        Fallback::Required => "a fault".to_owned(),
        Fallback::Is("") => "its fallbacks".to_owned(),
        Fallback::Is(text) => format!("`{}`", text.replace(',', "`, `")),
        Fallback::Says(text) => text.to_owned(),
    };
    let beside = match key.beside {
        [] => String::new(),
        names if names == section.one_of => String::new(),
        names => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("beside {}: ", names.join(", "))
        }
    };
    let takes = match key.kind {
        Kind::Patterns => "globs with * and ?, in a list, or with `\\|` between them".to_owned(),
        _ => key.kind.takes(),
    };
    format!("| `{}` | {takes} | {without} | {beside}{} |\n", key.name, key.help)
}
