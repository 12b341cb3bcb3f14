//! The tables of docs/services.md, from the table of keys.

use crate::supervise::settings::kinds::{Fallback, Key, Kind};
use crate::supervise::settings::table::SECTIONS;

/// What stands before the tables on the page; they reach to its end.
const MARK: &str = "<!-- keys -->\n";

/// The page with its tables as they should be; `None` if there is no place for them.
pub fn in_page(page: &str) -> Option<String> {
    let (before, _) = page.split_once(MARK)?;
    Some(format!("{before}{MARK}\n{}", keys()))
}

/// Makes the part of the page that lists every key of the file of services.
fn keys() -> String {
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
        section.keys.iter().for_each(|key| text.push_str(&row(key)));
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn row(key: &Key) -> String {
    let without = match key.fallback {
        Fallback::Required => "a fault".to_owned(),
        Fallback::Is("") => "its fallbacks".to_owned(),
        Fallback::Is(text) => format!("`{}`", text.replace(',', "`, `")),
        Fallback::Says(text) => text.to_owned(),
    };
    let beside = match key.beside {
        [] => String::new(),
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
