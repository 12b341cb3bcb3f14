//! docs/reference.md: every setting and every command, from the tables that the program uses.

use crate::cli::spec::Spec;
use crate::cli::table::SPECS;
use crate::cli::usage;
use crate::config::Config;
use crate::config::table::{GROUPS, Setting};

/// Columns of the help in it.
const COLUMNS: usize = 100;

/// Makes the page.
pub fn page() -> String {
    let mut text = "\
# Reference

Every setting and every command. `make reference` writes this page from the tables that the program itself uses; a test compares them.

## Settings

A setting comes from its flag of `threadcast serve`; else from the environment; else from the settings file (`--config FILE` or `THREADCAST_SET_CONFIG`), where its key is the name of the flag without the dashes; else it has its default. A list from one of these takes the place of the list from the next. In the environment the values of a list have commas between them. A name that begins with `THREADCAST_SET_` and is no setting is an error; the server ignores other names that begin with `THREADCAST_`. `threadcast config show` prints the settings in force and where each comes from. `threadcast config check FILE` looks for faults in a file.

Times: `500ms`, `10s`, `2m`, `1h`, `7d`. Sizes: `64KiB`, `1MiB`, `1GiB`, or bytes.
"
    .to_owned();
    for group in &GROUPS {
        text.push_str(&format!(
            "\n### {}\n\n| flag, environment | default | takes | what it does |\n|---|---|---|---|\n",
            group.name
        ));
        group.settings.iter().for_each(|setting| text.push_str(&row(setting)));
    }
    text.push_str(
        "\n## Commands\n\nCommands that ask a server take its address from `--url`, else from `THREADCAST_URL`, else from \
         `THREADCAST_SET_HOST` and `THREADCAST_SET_PORT`. Commands that send events take the socket's path from `--event-socket-path`, else from `THREADCAST_SET_EVENT_SOCKET_PATH`. \
         Exit status: 0 fine, 1 failed, 2 wrong usage.\n",
    );
    for spec in SPECS {
        text.push_str(&section(spec));
    }
    text
}

fn row(setting: &Setting) -> String {
    let kind = &setting.kind;
    let value = if kind.value().is_empty() {
        String::new()
    } else {
        format!(" {}", kind.value())
    };
    format!(
        "| `--{}{}`<br>`{}` | `{}` | {} | {} |\n",
        setting.name,
        value.replace('|', "\\|"),
        setting.environment_name(),
        setting.show(&Config::default()),
        kind.takes(),
        setting.help.replace('|', "\\|"),
    )
}

fn section(spec: &Spec) -> String {
    let command = spec.command();
    let mut text = format!(
        "\n### threadcast {}\n\n```text\n{}```\n",
        spec.name,
        help(&command, spec.name)
    );
    for part in command.get_subcommands() {
        let name = format!("{} {}", spec.name, part.get_name());
        text.push_str(&format!(
            "\n### threadcast {name}\n\n```text\n{}```\n",
            help(part, &name)
        ));
    }
    text
}

/// The long help of a command. That of a command that takes the settings refers to them.
fn help(command: &clap::Command, name: &str) -> String {
    let mut command = command
        .clone()
        .term_width(COLUMNS)
        .bin_name(format!("threadcast {name}"));
    if command
        .get_arguments()
        .any(|flag| flag.get_id() == "port" && !flag.is_hide_set())
    {
        let is_setting = |flag: &clap::Arg| Setting::find(flag.get_id().as_str()).is_some();
        command = command.mut_args(|flag| {
            let hide = is_setting(&flag);
            flag.hide(hide)
        });
    }
    usage::tidy_help(&command.render_long_help().to_string())
}
