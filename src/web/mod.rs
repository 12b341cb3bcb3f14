//! What a browser, a script or our own commands ask for over plain HTTP, on the same port as the stream.
//!
//! Every request is answered on its connection's own thread.

pub mod health;

pub mod query;

pub mod status;

use crate::client::handshake::STREAM_PATH;
use crate::client::http::head::READ_METHODS;
use crate::client::http::{Answer, Head};
use crate::liveness::beat::Beats;
use crate::liveness::demand::{Demand, NoReport};
use crate::liveness::drill::{self, Kind};
use crate::pipeline::requests::FanoutHandle;
use crate::process::stop::Stop;
use crate::web::health::Vitals;
use crate::web::status::Status;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a report on demand may take; of 1,000 threads it takes a second or two.
const DIAGNOSE_MAX: Duration = Duration::from_secs(10);

/// The pages.
#[derive(Debug)]
pub struct Site {
    pub vitals: Arc<Vitals>,
    pub status: Status,
    pub fanout: FanoutHandle,
    pub beats: &'static Beats,
    pub demand: Demand,
    /// Made when the server stops: who waits for a report is not waited for.
    pub stop: Stop,
    pub allow_drill: bool,
}

impl Site {
    /// Answers a request that is not to become a WebSocket. Blocks at most 4 s, on the fan-out; for a report,
    /// [`DIAGNOSE_MAX`].
    pub fn answer(&self, head: &Head, peer: SocketAddr) -> Answer {
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
            "/health" => self.vitals.answer(),
            "/status" => self.status.answer(),
            "/initial" => self.initial(),
            command => match by_hand(head, peer) {
                Err(refusal) => refusal,
                Ok(()) if command == "/forget" => self.forget(&head.query),
                Ok(()) if command == "/diagnose" => self.diagnose(),
                Ok(()) => self.drill(&head.query),
            },
        }
    }

    /// What a page takes; monitors that ask with OPTIONS mean to ask whether the server is well. Blocks as
    /// [`Vitals::answer`] does.
    fn options(&self, methods: &'static str) -> Answer {
        let health = self.vitals.answer();
        let answer = if health.status == 200 {
            Answer::no_content()
        } else {
            health
        };
        answer.with("allow", methods.to_owned())
    }

    fn initial(&self) -> Answer {
        match self.fanout.snapshot() {
            Ok(snapshot) => Answer::json(200, snapshot.json.clone()),
            Err(why) => Answer::detail(503, &why.to_string()),
        }
    }

    fn forget(&self, query: &str) -> Answer {
        let Some(machine) = query::value(query, "machine") else {
            return Answer::detail(400, "the query must be machine=NAME");
        };
        match self.fanout.forget(machine.clone()) {
            Ok(true) => Answer::json(200, b"{\"forgotten\":true}".to_vec()),
            Ok(false) => Answer::detail(404, &format!("there is no machine {machine:?}")),
            Err(why) => Answer::detail(503, &why.to_string()),
        }
    }

    /// Where every thread is. Blocks until the watchdog has made the report, at most [`DIAGNOSE_MAX`].
    fn diagnose(&self) -> Answer {
        match self.demand.ask(DIAGNOSE_MAX, || self.stop.requested()) {
            Ok(report) => Answer::text(200, report),
            Err(NoReport::Taken) => Answer::detail(503, "another report is being made; ask again"),
            Err(NoReport::Late) => Answer::detail(503, "the watchdog did not make the report in time"),
        }
    }

    fn drill(&self, query: &str) -> Answer {
        if !self.allow_drill {
            return Answer::detail(403, "start the server with --allow-drill to allow this");
        }
        let component = query::value(query, "component");
        let millis = query::value(query, "ms").and_then(|ms| ms.parse().ok());
        let (Some(component), Some(millis)) = (component, millis) else {
            return Answer::detail(400, "the query must be component=NAME&ms=MILLISECONDS");
        };
        let duration = Duration::from_millis(millis).min(drill::DRILL_MAX);
        let kind = query::value(query, "kind").unwrap_or_else(|| Kind::Sleep.name().to_owned());
        let Some(kind) = Kind::from_name(&kind) else {
            let names: Vec<&str> = Kind::names().collect();
            let text = format!("there is no kind {kind:?}; there are {}", names.join(", "));
            return Answer::detail(400, &text);
        };
        if !drill::order(self.beats, &component, duration, kind) {
            let names: Vec<String> = self.beats.permanent().iter().map(|beat| beat.name()).collect();
            let text = format!(
                "there is no component {component:?}; there are {}, and client-N for each client",
                names.join(", ")
            );
            return Answer::detail(404, &text);
        }
        log::warn!("⚠️ drill: {component} stands still for {duration:?} ({})", kind.name());
        let answer = json!({ "component": component, "ms": duration.as_millis() as u64, "kind": kind.name() });
        Answer::json(200, answer.to_string().into_bytes())
    }
}

/// What may be asked of a path; `None` where there is nothing. Nothing is at `/` either, but monitors ask there with
/// OPTIONS whether the server is well.
fn methods(head: &Head) -> Option<&'static str> {
    match &head.path[..] {
        "/health" | "/status" | "/initial" | STREAM_PATH => Some(READ_METHODS),
        "/" | "*" if head.method == "OPTIONS" => Some(READ_METHODS),
        "/forget" | "/drill" | "/diagnose" => Some("POST, OPTIONS"),
        _ => None,
    }
}

/// Commands that change something are taken from this host only, and never from a web page: browsers name the page's
/// origin in every POST.
fn by_hand(head: &Head, peer: SocketAddr) -> Result<(), Answer> {
    if head.forwarded || !peer.ip().to_canonical().is_loopback() {
        return Err(Answer::detail(403, "this is taken from the server's own host only"));
    }
    if head.origin.is_some() {
        return Err(Answer::detail(
            403,
            "this is not taken from web pages; use the threadcast command",
        ));
    }
    Ok(())
}
