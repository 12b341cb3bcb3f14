//! `threadcast services status|start|stop|restart|logs`: what a person asks of a running `threadcast up`.

pub mod logs;
mod status;

use crate::commands::watch::{self, Showing};
use crate::commands::{check_services, complain, print};
use crate::config::file;
use crate::process::exit::ExitStatus;
use crate::process::visible::visible;
use crate::supervise::ask::{Unanswered, ask};
use crate::supervise::settings;
use crate::supervise::settings::plan::Plan;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which run is meant.
#[derive(Clone, Debug)]
pub enum Run {
    /// That of this file of services.
    Of(PathBuf),
    /// That with this run folder.
    In(PathBuf),
}

/// What is asked.
#[derive(Debug)]
pub enum Wish {
    Status { watch: Option<Duration>, json: bool },
    Start(String),
    Stop(String),
    Restart(String),
    Logs(logs::Logs),
}

/// The command. Blocks for 2 s at most on a supervisor that does not answer; with `--watch` and `-f`, until a signal.
pub fn run(run: &Run, wish: &Wish) -> ExitStatus {
    let (run_dir, plan) = match run {
        Run::In(folder) => (folder.clone(), None),
        Run::Of(path) => match read(path) {
            Ok(plan) => (plan.supervise.run_dir.clone(), Some(plan)),
            Err(status) => return status,
        },
    };
    match wish {
        Wish::Status { watch, json } => status(&run_dir, *watch, *json),
        Wish::Start(name) => order(&run_dir, "start", name),
        Wish::Stop(name) => order(&run_dir, "stop", name),
        Wish::Restart(name) => order(&run_dir, "restart", name),
        Wish::Logs(wanted) => match (ask(&run_dir, &json!({"do": "status"})), plan) {
            (Ok(document), _) => logs::run(&document, wanted),
            // What they wrote before they ended is what a person wants to read then.
            (Err(Unanswered::Nobody), Some(plan)) => logs::run(&logs_of(&plan), wanted),
            (Err(why), _) => tell(&run_dir, why),
        },
    }
}

fn read(path: &Path) -> Result<Plan, ExitStatus> {
    let plan = file::text_of(path)
        .map_err(|fault| vec![fault])
        .and_then(|text| settings::of_text(path, &text));
    plan.map_err(|faults| check_services::tell(&faults))
}

/// The part of a status that tells where the logs are, made of the file of services.
fn logs_of(plan: &Plan) -> Value {
    let services = plan.services.iter().map(|service| {
        let log = plan.supervise.log_dir.join(format!("{}.log", service.name));
        json!({"name": service.name, "log": log.display().to_string()})
    });
    json!({"services": services.collect::<Vec<Value>>()})
}

fn tell(run_dir: &Path, why: Unanswered) -> ExitStatus {
    let folder = visible(&run_dir.display().to_string());
    match why {
        Unanswered::Nobody => {
            complain(&format!("threadcast: no services run in {folder}\n"));
            complain(
                "hint: `threadcast up` starts them; --run-dir or --config say where they run, and `logs --config FILE` reads the logs of \
             services that do not run\n",
            );
        }
        Unanswered::Other(why) => complain(&format!("threadcast: {}\n", visible(&why))),
    }
    ExitStatus::Failed
}

fn document(run_dir: &Path) -> Result<Value, ExitStatus> {
    ask(run_dir, &json!({"do": "status"})).map_err(|why| tell(run_dir, why))
}

fn order(run_dir: &Path, what: &str, name: &str) -> ExitStatus {
    match ask(run_dir, &json!({"do": what, "service": name})) {
        Ok(answer) => {
            let text = answer.get("text").and_then(Value::as_str).unwrap_or("ordered");
            print(&format!("{}\n", visible(text)))
        }
        Err(why) => tell(run_dir, why),
    }
}

/// Shows the services. Fails if one of them is not as it should be.
fn status(run_dir: &Path, watch: Option<Duration>, json: bool) -> ExitStatus {
    let mut is_well = true;
    let shown = watch::show(Showing { every: watch, json }, || {
        let document = document(run_dir)?;
        is_well = status::is_well(&document);
        Ok(if json {
            format!("{document}\n")
        } else {
            status::table(&document)
        })
    });
    match shown {
        ExitStatus::Fine if !is_well && watch.is_none() => ExitStatus::Failed,
        shown => shown,
    }
}
