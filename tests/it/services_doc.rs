//! docs/services.md says what the program does: its tables are the program's, its examples are sound, and what it shows
//! is what the program prints.

use crate::support::server::run;
use std::fs;
use std::path::Path;
use threadcast::supervise::settings::reference;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/services.md")).unwrap()
}

/// The blocks of the page whose first line begins so, each without its fences.
fn blocks<'a>(page: &'a str, kind: &str) -> Vec<&'a str> {
    let fence = format!("```{kind}");
    page.match_indices(&fence)
        .map(|(at, _)| {
            let text = page[at..].split_once('\n').unwrap().1;
            text.split_once("```").unwrap().0
        })
        .collect()
}

#[test]
fn the_tables_of_keys_are_those_of_the_program() {
    let page = page();
    let made = reference::in_page(&page).unwrap();
    assert!(
        page == made,
        "docs/services.md is not what the table of keys says; `make reference` writes it anew"
    );
}

#[test]
fn every_example_is_a_sound_file() {
    use threadcast::supervise::settings::of_text;
    let page = page();
    let examples = blocks(&page, "toml services");
    assert!(examples.len() > 4, "{}", examples.len());
    for example in examples {
        if let Err(faults) = of_text(Path::new("/project/services.toml"), example) {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            panic!("{}\n{example}", faults.join("\n"));
        }
    }
}

#[test]
fn what_the_page_shows_is_what_the_program_prints() {
    let page = page();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.toml");
    let shown = blocks(&page, "text");
    let first = blocks(&page, "toml services first")[0];
    assert_eq!(
        first.lines().filter(|line| !line.is_empty()).count(),
        10,
        "a first example of ten lines"
    );
    fs::write(&path, first).unwrap();
    let (status, output, said) = run(folder.path(), &["services", "check"]);
    assert_eq!((status, said.as_str()), (0, ""));
    assert_eq!(format!("$ threadcast services check\n{output}"), shown[0]);
    // The mistakes of the page.
    let faulty = "[service.api]\ncommand = \"true\"\ncomand = \"x\"\n\n\n\n[service.page]\ncommand = \"true\"\n\
                  depends_on = { api = \"ready\" }\n";
    fs::write(&path, faulty).unwrap();
    let (status, _, said) = run(folder.path(), &["services", "check"]);
    assert_eq!(status, 1);
    let faults: String = said
        .lines()
        .filter(|line| !line.starts_with("hint: "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(format!("$ threadcast services check\n{faults}"), shown[2]);
}
