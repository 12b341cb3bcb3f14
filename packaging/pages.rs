//! Writes what is made from the tables of the program: the manual (`make man`) and docs/reference.md (`make
//! reference`), and the tables of docs/services.md. A tool of the build; the program itself does not contain it.

use clap_mangen::Man;
use roff::{Roff, bold, italic, roman};
use std::error::Error;
use std::fs;
use std::path::Path;
use threadcast::cli;
use threadcast::config::Config;
use threadcast::config::table::{GROUPS, Setting};
use threadcast::supervise::settings::reference;
use time::OffsetDateTime;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["man", folder] => write_manual(Path::new(folder)),
        ["reference", file] => Ok(fs::write(file, cli::reference::page())?),
        ["services", file] => write_keys(Path::new(file)),
        _ => Err("usage: pages man FOLDER | pages reference FILE | pages services FILE".into()),
    }
}

/// Writes the tables of keys of the file of services into their page.
fn write_keys(page: &Path) -> Result<(), Box<dyn Error>> {
    let text = reference::in_page(&fs::read_to_string(page)?).ok_or("the page has no place for the tables")?;
    Ok(fs::write(page, text)?)
}

/// Writes threadcast(1), a page for each command, and threadcast.toml(5).
fn write_manual(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let mut program = cli::command_line();
    program.build();
    write_command(folder, &program, "threadcast")?;
    fs::write(folder.join("threadcast.toml.5"), settings_page()?)?;
    Ok(())
}

fn write_command(folder: &Path, command: &clap::Command, name: &str) -> Result<(), Box<dyn Error>> {
    // A page is found by its name with dashes; its usage has the words.
    let page_name: &'static str = String::leak(name.replace(' ', "-"));
    let command = command.clone().name(page_name).bin_name(name.to_owned());
    let mut page = Vec::new();
    Man::new(command.clone())
        .section("1")
        .date(date()?)
        .manual("threadcast")
        .source(concat!("threadcast ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    fs::write(folder.join(format!("{page_name}.1")), page)?;
    for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
        write_command(folder, part, &format!("{name} {}", part.get_name()))?;
    }
    Ok(())
}

/// The day on the pages: that of SOURCE_DATE_EPOCH, which packagers set so that a build can be repeated, else today.
fn date() -> Result<String, Box<dyn Error>> {
    let day = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => OffsetDateTime::from_unix_timestamp(seconds.parse()?)?,
        Err(_) => OffsetDateTime::now_utc(),
    };
    let (year, month, day) = day.to_calendar_date();
    Ok(format!("{year}-{:02}-{day:02}", u8::from(month)))
}

/// threadcast.toml(5): the settings file.
fn settings_page() -> Result<String, Box<dyn Error>> {
    let mut page = Roff::new();
    page.control(
        "TH",
        [
            "threadcast.toml",
            "5",
            date()?.as_str(),
            concat!("threadcast ", env!("CARGO_PKG_VERSION")),
            "threadcast",
        ],
    );
    page.control("SH", ["NAME"]);
    page.text([roman("threadcast.toml - the settings of threadcast serve")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("A TOML file with a key for each setting, read by "),
        bold("threadcast serve --config"),
        roman(" "),
        italic("FILE"),
        roman(". A flag wins over the environment, which wins over the file. "),
        bold("threadcast config show"),
        roman(" prints such a file, "),
        bold("threadcast config check"),
        roman(" looks for faults in one. Times and sizes are strings with a unit: "),
        bold("\"500ms\""),
        roman(", "),
        bold("\"10s\""),
        roman(", "),
        bold("\"64KiB\""),
        roman(". SIGHUP makes the server read the file again."),
    ]);
    for group in &GROUPS {
        page.control("SH", [group.name.to_uppercase().as_str()]);
        for setting in group.settings {
            add_setting(&mut page, setting);
        }
    }
    page.control("SH", ["EXAMPLE"]);
    page.control("EX", []);
    page.text([roman(
        "port = 8080\njournal = \"/var/lib/threadcast/journal\"\nallow-origin = [\"https://dash.example.com\"]",
    )]);
    page.control("EE", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("threadcast-serve"),
        roman("(1), "),
        bold("threadcast-config"),
        roman("(1)"),
    ]);
    Ok(page.to_roff())
}

fn add_setting(page: &mut Roff, setting: &Setting) {
    page.control("TP", []);
    page.text([bold(setting.name)]);
    page.text([roman(format!(
        "{} Takes {}. Default: {}. Environment: {}.",
        sentence(setting.help),
        setting.kind.takes(),
        setting.show(&Config::default()),
        setting.environment_name()
    ))]);
}

/// The help with a great letter and an end.
fn sentence(help: &str) -> String {
    let mut letters = help.chars();
    let first: String = letters
        .next()
        .map(|first| first.to_uppercase().collect())
        .unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
