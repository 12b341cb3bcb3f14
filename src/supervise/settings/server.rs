//! The server of a file of services, as a service like any other.

use crate::config::Config;
use crate::config::file::Place;
use crate::process::address::ServerAddress;
use crate::supervise::settings::plan::{
    CommandLine, Evidence, Plan, Probe, Ready, ReadySign, Restart, SERVER, Server, Service, Stop,
};
use rustix::process::Signal;
use std::time::Duration;

/// The server stops in 4.4 s at most.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// It serves within a second, unless its journal is long.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_INTERVAL: Duration = Duration::from_millis(100);
/// Its own health, also while it is degraded: it serves then.
const HEALTH: &str = "/health";

/// Puts the server among the services: started before all of them, stopped after them. With `serve` there is one also
/// if the file has none.
///
/// # Errors
/// The file of this program cannot be found; the text says so.
pub fn among_services(mut plan: Plan, serve: bool) -> Result<Plan, String> {
    if plan.server.is_none() && serve {
        if plan.services.iter().any(|service| service.name == SERVER) {
            return Err(format!(
                "--serve needs the name {SERVER:?}, and the file has a service of that name; rename it"
            ));
        }
        let log_dir = plan.supervise.log_dir.display();
        let mut arguments = vec![format!("--log-dir={log_dir}")];
        let mut config = Config::default();
        match &plan.supervise.events {
            Some(path) => {
                arguments.push(format!("--event-socket-path={}", path.display()));
                config.event_socket_path.clone_from(path);
            }
            // Also if the file says none: that is about the services, and here they have a server.
            None => plan.supervise.events = Some(config.event_socket_path.clone()),
        }
        plan.server = Some(Server {
            config: Box::new(config),
            arguments,
            place: Place { line: 1, column: 1 },
        });
    }
    let Some(server) = &plan.server else {
        return Ok(plan);
    };
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program's own file: {error}"))?;
    let words = [program.display().to_string(), "serve".to_owned()];
    let words = words.into_iter().chain(server.arguments.iter().cloned()).collect();
    let service = service(&plan, server.place, words);
    let index = plan.services.len();
    plan.services.push(service);
    plan.order.start.insert(0, vec![index]);
    plan.order.stop.push(vec![index]);
    Ok(plan)
}

fn service(plan: &Plan, place: Place, words: Vec<String>) -> Service {
    let health = ServerAddress {
        path: HEALTH.to_owned(),
        ..plan.supervise.url.clone()
    };
    Service {
        name: SERVER.to_owned(),
        place,
        command: CommandLine { words, place },
        cwd: plan.folder.clone(),
        cwd_place: place,
        env: Vec::new(),
        env_below: Vec::new(),
        env_files: Vec::new(),
        unbuffered: false,
        enabled: true,
        oneshot: false,
        depends_on: Vec::new(),
        start_wait: Duration::ZERO,
        stop: Stop {
            signal: Signal::TERM,
            wait: STOP_WAIT,
        },
        ready: Some(Ready {
            sign: ReadySign::Probe(Probe::Http {
                address: health,
                status: vec![200, 503],
            }),
            timeout: READY_TIMEOUT,
            interval: READY_INTERVAL,
        }),
        memory_warn: None,
        restart: Restart {
            on_exit: true,
            on_check: false,
            delay_first: Duration::from_secs(1),
            delay_most: Duration::from_secs(60),
            calm: Duration::from_secs(600),
            most_times: 5,
            most_within: Duration::from_secs(600),
            pressure_cpu: 100,
            pressure_wait: Duration::ZERO,
        },
        checks: Vec::new(),
        evidence: Evidence {
            signal: None,
            signal_wait: Duration::ZERO,
            signal_file: None,
            command: None,
            command_timeout: Duration::ZERO,
        },
    }
}
