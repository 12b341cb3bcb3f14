//! Compares threadcast with its peers; `make bench` and `make bench-quick` call it.

mod bare;
mod case;
mod client;
mod cpu_clock;
mod event;
mod generator;
mod machine;
mod report;
mod sender;
mod servers;
mod suite;

use lexopt::prelude::*;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
threadcast-load: compares threadcast with its peers

  threadcast-load run [--quick] [--case NAME]... [--server NAME]... [--rounds N] [--seconds S] [--results FILE]
                      runs the cases against the servers; one JSON line a run goes to FILE, progress to standard error
  threadcast-load list
                      names the cases and the servers
  threadcast-load report --results FILE --into FOLDER
                      writes README.md and the plots from FILE into FOLDER
  threadcast-load bare --socket PATH
                      a loop of recvmmsg(2): what `ingest` is compared with

  --top FOLDER        the project's folder; default: the current one
";

fn main() -> ExitCode {
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("threadcast-load: {error}");
            match error.downcast_ref::<lexopt::Error>() {
                Some(_) => ExitCode::from(2),
                None => ExitCode::FAILURE,
            }
        }
    }
}

#[derive(Debug, Default)]
struct Arguments {
    command: Option<String>,
    quick: bool,
    cases: Vec<String>,
    servers: Vec<String>,
    rounds: Option<usize>,
    seconds: Option<f64>,
    results: Option<PathBuf>,
    into: Option<PathBuf>,
    socket: Option<PathBuf>,
    top: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, lexopt::Error> {
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => arguments.quick = true,
            Long("case") => arguments.cases.push(parser.value()?.string()?),
            Long("server") => arguments.servers.push(parser.value()?.string()?),
            Long("rounds") => arguments.rounds = Some(parser.value()?.parse()?),
            Long("seconds") => arguments.seconds = Some(parser.value()?.parse()?),
            Long("results") => arguments.results = Some(parser.value()?.into()),
            Long("into") => arguments.into = Some(parser.value()?.into()),
            Long("socket") => arguments.socket = Some(parser.value()?.into()),
            Long("top") => arguments.top = Some(parser.value()?.into()),
            Long("help") | Short('h') => arguments.command = Some("help".to_owned()),
            Value(command) if arguments.command.is_none() => arguments.command = Some(command.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(arguments)
}

fn command() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    match arguments.command.as_deref() {
        Some("run") => run(arguments),
        Some("report") => {
            let results = arguments.results.ok_or("report needs --results FILE")?;
            let into = arguments.into.ok_or("report needs --into FOLDER")?;
            report::write(&results, &into)?;
            eprintln!("page: {}", into.join("README.md").display());
            Ok(())
        }
        Some("bare") => Ok(bare::run(&arguments.socket.ok_or("bare needs --socket PATH")?)?),
        Some("list") => {
            for case in case::all() {
                println!("{:36} {}", case.name, case.shows);
            }
            println!();
            for kind in servers::ALL {
                println!("{:36} {}", kind.name, kind.what);
            }
            Ok(())
        }
        Some("help") => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => Err(lexopt::Error::from(format!("there is no command '{other}'; try --help")).into()),
        None => Err(lexopt::Error::from("a command is missing; try --help").into()),
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    rustix::process::setrlimit(rustix::process::Resource::Nofile, {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        rustix::process::Rlimit {
            current: most,
            maximum: most,
        }
    })?;
    let top = arguments.top.clone().unwrap_or(PathBuf::from(".")).canonicalize()?;
    let places = servers::Places {
        target: top.join("target/bench"),
        top,
    };
    std::fs::create_dir_all(&places.target)?;
    let wanted = |case: &case::Case| match arguments.cases.is_empty() {
        true => !arguments.quick || case.quick,
        false => arguments.cases.contains(&case.name),
    };
    let cases: Vec<case::Case> = case::all().into_iter().filter(wanted).collect();
    for name in &arguments.cases {
        if !cases.iter().any(|case| case.name == *name) {
            return Err(lexopt::Error::from(format!("there is no case '{name}'; `list` names them")).into());
        }
    }
    for name in &arguments.servers {
        if !servers::ALL.iter().any(|kind| kind.name == name) {
            return Err(lexopt::Error::from(format!("there is no server '{name}'; `list` names them")).into());
        }
    }
    let servers = suite::servers_here(&places, &arguments.servers);
    if servers.is_empty() {
        return Err("there is no server to measure".into());
    }
    let results = arguments.results.unwrap_or(places.target.join("results.jsonl"));
    let suite = suite::Suite {
        cases,
        servers,
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 }),
        measure: Duration::from_secs_f64(arguments.seconds.unwrap_or(if arguments.quick { 1.5 } else { 3.0 })),
        places,
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
    };
    suite.run(&results)?;
    if arguments.quick {
        print!("\n{}", report::summary(&results)?);
    }
    eprintln!("results: {}", results.display());
    Ok(())
}
