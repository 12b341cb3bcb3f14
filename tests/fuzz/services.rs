//! Files of services: whatever is in them, nothing panics, every fault has a place in the text and says something, and
//! what has no fault has an order in which nothing waits for what comes later.

use crate::mutate::mutate;
use crate::{fuzz, seeds};
use fastrand::Rng;
use std::path::Path;
use threadcast::config::file::FileError;
use threadcast::supervise::settings::kinds::{Kind, Section};
use threadcast::supervise::settings::of_text;
use threadcast::supervise::settings::plan::{Plan, SERVER, Wanted};
use threadcast::supervise::settings::table::FILE;

#[test]
fn a_file_of_services_has_faults_with_places_or_an_order() {
    let seeds = seeds("services");
    let (mut sound, mut faulty) = (0_u64, 0_u64);
    fuzz("services", 4_000, |rng| {
        let mut bytes = if rng.bool() {
            seeds[rng.usize(..seeds.len())].clone()
        } else {
            generated(rng).into_bytes()
        };
        if rng.u8(..10) > 3 {
            mutate(rng, &mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        match of_text(Path::new("/project/services.toml"), &text) {
            Ok(plan) => {
                sound += 1;
                judge(&plan, &text);
            }
            Err(faults) => {
                faulty += 1;
                judge_faults(&faults, &text);
            }
        }
    });
    eprintln!("services: {sound} sound, {faulty} faulty");
    assert!(sound > 0 && faulty > 0, "the generator is of no use");
}

fn judge_faults(faults: &[FileError], text: &str) {
    assert!(!faults.is_empty(), "{text}");
    let lines = text.matches('\n').count() + 1;
    let mut before = 0;
    for fault in faults {
        let place = fault.place.unwrap_or_else(|| panic!("{fault} has no place\n{text}"));
        assert!(
            (before.max(1)..=lines).contains(&place.line) && place.column > 0,
            "{fault}\n{text}"
        );
        assert!(fault.message.len() > 5, "{fault}");
        before = place.line;
    }
}

fn judge(plan: &Plan, text: &str) {
    let mut stopped: Vec<usize> = plan.order.stop.concat();
    stopped.sort_unstable();
    assert_eq!(stopped, (0..plan.services.len()).collect::<Vec<_>>(), "{text}");
    let phase_of = |phases: &[Vec<usize>], at: usize| phases.iter().position(|phase| phase.contains(&at));
    for (at, service) in plan.services.iter().enumerate() {
        assert!(!service.command.words.is_empty(), "{text}");
        let start = phase_of(&plan.order.start, at);
        assert_eq!(start.is_some(), service.enabled, "{text}");
        for dependency in &service.depends_on {
            if dependency.wanted == Wanted::Present {
                assert!(plan.needs.iter().any(|need| need.name == dependency.name), "{text}");
                continue;
            }
            if dependency.name == SERVER && plan.server.is_some() {
                continue;
            }
            let other = plan.services.iter().position(|other| other.name == dependency.name);
            let other = other.unwrap_or_else(|| panic!("{} leads nowhere\n{text}", dependency.name));
            assert!(start.is_none() || phase_of(&plan.order.start, other) < start, "{text}");
            assert!(
                phase_of(&plan.order.stop, at) < phase_of(&plan.order.stop, other),
                "{text}"
            );
        }
    }
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

/// A file that has keys of the table, mostly with values that they take.
fn generated(rng: &mut Rng) -> String {
    let mut text = String::new();
    for name in ["a", "b", "c"] {
        text.push_str(&format!("[service.{name}]\ncommand = \"true\"\n"));
        if rng.bool() {
            text.push_str(&format!("depends_on = {}\n", dependencies(rng)));
        }
        if rng.u8(..4) == 0 {
            text.push_str("ready.log = \"up\"\n");
        }
        if rng.bool() {
            let inner = FILE.key("service").map(|key| key.kind);
            if let Some(Kind::Named(section)) = inner {
                keys(rng, section, &mut text);
            }
        }
    }
    for key in FILE.keys {
        match key.kind {
            Kind::Table(section) if rng.u8(..3) == 0 => {
                text.push_str(&format!("[{}]\n", key.name));
                keys(rng, section, &mut text);
            }
            Kind::Tables(section) if rng.u8(..3) == 0 => {
                text.push_str(&format!("[[{}]]\n", key.name));
                keys(rng, section, &mut text);
            }
            Kind::Named(section) if rng.u8(..3) == 0 => {
                text.push_str(&format!("[{}.n]\n", key.name));
                keys(rng, section, &mut text);
            }
            _ => {}
        }
    }
    text
}

/// Some keys of a table, with the values of their kinds.
fn keys(rng: &mut Rng, section: &Section, text: &mut String) {
    let is_small = section.keys.len() < 4;
    for key in section.keys {
        let is_needed = section.one_of.first() == Some(&key.name) || ["name", "match", "path"].contains(&key.name);
        if key.name != "command" && key.name != "depends_on" && (is_needed || rng.u8(..8) == 0 || is_small) {
            let value = value(rng, &key.kind);
            text.push_str(&format!("{} = {value}\n", key.name));
        }
    }
}

fn value(rng: &mut Rng, kind: &Kind) -> String {
    match kind {
        Kind::Switch => one(rng, &["true", "false"]).to_owned(),
        Kind::Time(..) => one(rng, &["\"1s\"", "\"2m\"", "\"0.5s\"", "5"]).to_owned(),
        Kind::Size(..) => one(rng, &["\"1MiB\"", "65536", "\"2GiB\""]).to_owned(),
        Kind::Count(..) => rng.u64(0..9).to_string(),
        Kind::Counts(..) => "[200, 404]".to_owned(),
        Kind::Texts | Kind::Paths | Kind::Patterns => one(rng, &["\"a\"", "[\"a\", \"b*\"]", "'a|b'"]).to_owned(),
        Kind::Command => one(rng, &["\"true\"", "[\"sh\", \"-c\", \"exit 1\"]"]).to_owned(),
        Kind::Signal => one(rng, &["\"TERM\"", "\"SIGUSR1\"", "\"usr2\""]).to_owned(),
        Kind::Address => "\"localhost:6379\"".to_owned(),
        Kind::Url => "\"http://[::1]:80/x?y\"".to_owned(),
        Kind::Word(words) => format!("{:?}", one(rng, words)),
        Kind::Words(words) => format!("[{:?}]", one(rng, words)),
        Kind::Variables => "{ A = 1, B = \"b\" }".to_owned(),
        Kind::Dependencies => dependencies(rng),
        Kind::Server => "{ port = 0 }".to_owned(),
        Kind::Table(_) => "{}".to_owned(),
        Kind::Named(_) | Kind::Tables(_) => "[]".to_owned(),
        Kind::Text | Kind::Name | Kind::Path | Kind::SocketPath => {
            one(rng, &["\"a\"", "\"b/c\"", "\"none\"", "\"ä\""]).to_owned()
        }
    }
}

fn dependencies(rng: &mut Rng) -> String {
    let name = one(rng, &["a", "b", "c", "n", "server"]);
    match rng.u8(..3) {
        0 => format!("[{name:?}]"),
        1 => format!("{{ {name} = \"started\" }}"),
        _ => format!("{{ {name} = {:?} }}", one(rng, &["ready", "present"])),
    }
}
