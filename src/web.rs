//! What a browser, a script or our own commands ask for over plain HTTP, on the same port as the stream.
//!
//! Every request is answered on its connection's own thread.

pub mod acting;

pub mod http;

pub mod origin;

pub mod query;

use crate::fanout::requests::FanoutHandle;
use crate::process::clock::epoch_seconds;
use crate::stream::declared::Declared;
use crate::stream::filter::Filter;
use crate::stream::machines::survey::Survey;
use crate::vitals::health::{self, Vitals};
use crate::vitals::status::Status;
use crate::web::acting::ACTING;
use crate::web::http::target::READ_METHODS;
use crate::web::http::{Answer, Head};
use std::sync::Arc;
use std::time::Instant;

/// The path of the stream.
pub const STREAM_PATH: &str = "/ws/events";
/// The path of what is known of all machines.
pub const MACHINES_PATH: &str = "/api/machines";
/// The path of what machines usually do.
pub const GRAPH_PATH: &str = "/api/graph";

/// The pages.
#[derive(Debug)]
pub struct Site {
    pub vitals: Arc<Vitals>,
    pub status: Status,
    pub fanout: FanoutHandle,
    /// The limits that people declared.
    pub declared: Declared,
}

impl Site {
    /// Answers a request that is not to become a WebSocket. Blocks at most 4 s, on the fan-out.
    pub fn answer(&self, head: &Head) -> Answer {
        let Some(methods) = methods(head) else {
            return Answer::detail(404, "Not Found");
        };
        if head.method == "OPTIONS" {
            return self.options(methods);
        }
        if !methods.split(", ").any(|method| method == head.method) {
            return Answer::detail(405, "Method Not Allowed").with("allow", methods.to_owned());
        }
        match head.path.as_str() {
            "/health" => self.health(),
            "/status" => Answer::json(200, self.status.page().into_bytes()),
            "/initial" => self.initial(),
            MACHINES_PATH => self.machines(&head.query),
            GRAPH_PATH => self.graph(&head.query),
            path => acting_refused(path),
        }
    }

    /// What a page takes; monitors that ask with OPTIONS mean to ask whether the server is well. Blocks as
    /// [`Vitals::page`] does.
    fn options(&self, methods: &'static str) -> Answer {
        let health = self.health();
        let answer = if health.status == 200 {
            Answer::no_content()
        } else {
            health
        };
        answer.with("allow", methods.to_owned())
    }

    /// 503 while the data path or the watchdog hangs, because monitors look at nothing else. Blocks as [`Vitals::page`]
    /// does.
    fn health(&self) -> Answer {
        let (status, page) = self.vitals.page();
        let code = if status == health::Status::Hung { 503 } else { 200 };
        Answer::json(code, page.into_bytes())
    }

    fn initial(&self) -> Answer {
        match self.fanout.snapshot() {
            Ok(snapshot) => {
                let json = snapshot.plain().chunk.payload(0).to_vec();
                self.vitals.fanout.show_left_out(&snapshot);
                Answer::json(200, json)
            }
            Err(why) => Answer::detail(503, &why.to_string()),
        }
    }

    /// What is known of the machines that the query wants. Blocks on the fan-out, at most 4 s.
    fn machines(&self, query: &str) -> Answer {
        let wanted = query::text(query, "machine")
            .and_then(|machines| Filter::from_lists(machines.as_deref(), None).map_err(|error| error.to_string()));
        self.survey(wanted, |survey, wanted| {
            survey.machines_json(wanted, &self.declared, Instant::now(), epoch_seconds())
        })
    }

    /// What machines of the types that the query wants usually do. Blocks on the fan-out, at most 4 s.
    fn graph(&self, query: &str) -> Answer {
        let wanted = query::text(query, "type")
            .and_then(|types| Filter::from_lists(None, types.as_deref()).map_err(|error| error.to_string()));
        self.survey(wanted, |survey, wanted| {
            survey.graph_json(wanted, &self.declared, epoch_seconds())
        })
    }

    fn survey(&self, wanted: Result<Filter, String>, make: impl FnOnce(&Survey, &Filter) -> Vec<u8>) -> Answer {
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(why) => return Answer::detail(400, &why),
        };
        match self.fanout.survey() {
            Ok(survey) => Answer::json(200, make(&survey, &wanted)),
            Err(why) => Answer::detail(503, &why.to_string()),
        }
    }
}

/// What may be asked of a path; `None` where there is nothing. Nothing is at `/` either, but monitors ask there with
/// OPTIONS whether the server is well.
fn methods(head: &Head) -> Option<&'static str> {
    match &head.path[..] {
        "/health" | "/status" | "/initial" | MACHINES_PATH | GRAPH_PATH | STREAM_PATH => Some(READ_METHODS),
        "/" | "*" if head.method == "OPTIONS" => Some(READ_METHODS),
        path if ACTING.iter().any(|(acting, _)| *acting == path) => Some("POST, OPTIONS"),
        _ => None,
    }
}

/// Acting takes credentials, which no TCP connection has.
fn acting_refused(path: &str) -> Answer {
    let command = ACTING
        .iter()
        .find(|(acting, _)| *acting == path)
        .map_or("threadcast", |(_, command)| *command);
    let text = format!(
        "this is taken at the server's admin socket only (`admin_socket` in /status): run `{command}` on the server's host, as \
         the server's user or root"
    );
    Answer::detail(403, &text)
}
