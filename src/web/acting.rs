//! Requests that act on a running server. They come through the admin socket only (room `admin`).

use crate::fanout::requests::FanoutHandle;
use crate::liveness::beats::Beats;
use crate::liveness::demand::{Demand, NoReport};
use crate::liveness::drill::{self, Kind};
use crate::outbox::link::Ended;
use crate::outbox::registry::Registry;
use crate::process::stop::Stop;
use crate::stream::protocol::EndReason;
use crate::web::http::{Answer, Head};
use crate::web::query;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a report on demand may take; of 1,000 threads it takes a second or two.
const DIAGNOSE_MAX: Duration = Duration::from_secs(10);

/// The paths that act, each with the command that asks for it.
pub const ACTING: [(&str, &str); 4] = [
    ("/forget", "threadcast forget NAME"),
    ("/end", "threadcast clients --end ID"),
    ("/diagnose", "threadcast diagnose"),
    ("/drill", "threadcast drill COMPONENT DURATION"),
];

/// What acting works with.
#[derive(Debug)]
pub struct Acting {
    pub fanout: FanoutHandle,
    pub clients: Arc<Registry>,
    pub beats: &'static Beats,
    pub demand: Demand,
    /// Requested when the server stops, so that a request that waits for a report ends.
    pub stop: Stop,
    pub allow_drill: bool,
    /// Where the server listens, so that a command knows whether this is the one it means.
    pub address: SocketAddr,
}

impl Acting {
    /// Answers a request that acts; returns `None` for any other. Blocks at most 4 s, on the fan-out; for a report,
    /// [`DIAGNOSE_MAX`].
    pub fn answer(&self, head: &Head) -> Option<Answer> {
        let method = match head.path.as_str() {
            "/admin" => "GET",
            path if ACTING.iter().any(|(acting, _)| *acting == path) => "POST",
            _ => return None,
        };
        if head.method != method {
            return Some(Answer::detail(405, "Method Not Allowed").with("allow", method.to_owned()));
        }
        Some(match head.path.as_str() {
            "/forget" => self.forget(&head.query),
            "/end" => self.end(&head.query),
            "/diagnose" => self.diagnose(),
            "/drill" => self.drill(&head.query),
            _ => Answer::json(
                200,
                json!({ "address": self.address.to_string() }).to_string().into_bytes(),
            ),
        })
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

    /// Ends a client. Its thread sees that when the fan-out lets go of it, or, while that stands still, when its next
    /// ping is due.
    fn end(&self, query: &str) -> Answer {
        let Some(id) = query::value(query, "client").and_then(|id| id.parse().ok()) else {
            return Answer::detail(400, "the query must be client=ID, the number of a client");
        };
        let Some(client) = self.clients.find(id) else {
            let text = format!("there is no client {id}; `threadcast clients` shows those that are there");
            return Answer::detail(404, &text);
        };
        let address = client.peer().to_string();
        if client.end(EndReason::ByHand) == Ended::Now {
            log::info!("✂️ client {id} from {address} is ended by hand");
            self.fanout.nudge();
        }
        Answer::json(200, json!({ "ended": id, "address": address }).to_string().into_bytes())
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
