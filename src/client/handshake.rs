//! A connection's first second: its head is read and judged, then it is a page or a WebSocket.
//!
//! Runs on: `client-N`, the connection's own thread.
//! Owns: the socket, until it is joined.
//! Blocks on: the head (5 s in all; not once the server stops), the fan-out's answer (2 s), a report on demand (10 s),
//! sending an answer (20 s; 1 s once the server stops).
//! Can be stalled by: its own peer only, within these bounds.
//! Full queue means: see `fanout` and `inbox`: the client gets 503.
//! Ends when: the page is answered, or the client has ended.
//! Watched as: `client-N`, not a core thread: a stall makes health `degraded`.

use crate::client::inbox::InboxHandle;
use crate::client::last::start_of_last;
use crate::client::writer::{CONTROL_QUEUE_LEN_MAX, Timing, Writer};
use crate::fanout::requests::{FanoutGauges, FanoutHandle, Joined as JoinedBy, Start, Unanswered};
use crate::liveness::beat::Beat;
use crate::liveness::beats::Beats;
use crate::liveness::operation::Operation;
use crate::outbox::gauges::{ClientGauges, ConnectionFault, RefusalStatus};
use crate::outbox::link::{Ended, Link, outbox};
use crate::outbox::registry::Registry;
use crate::process::stop::Stop;
use crate::process::threads::{self, ThreadHandle};
use crate::process::values::show_duration;
use crate::process::words::count;
use crate::stream::conflation::period;
use crate::stream::filter::Filter;
use crate::stream::position::Position;
use crate::stream::protocol::{EndReason, Protocol, v1};
use crate::stream::view::View;
use crate::web::STREAM_PATH;
use crate::web::http::target::READ_METHODS;
use crate::web::http::{self, Answer, AnswerBounds, HEAD_DEADLINE, Head, HeadError};
use crate::web::origin::{OriginRules, with_cors};
use crate::web::{Site, query};
use crossbeam_channel::bounded;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tungstenite::handshake::derive_accept_key;

/// The handshake's answer must be taken within this time; the socket is empty then.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(2);
/// Length of a Sec-WebSocket-Key without its padding: 16 bytes in base64 (RFC 6455 section 4.1).
const KEY_DIGITS: usize = 22;

/// Stack of a connection's thread. Only touched pages count; debug builds touch more.
pub const STACK_BYTES: usize = 256 * 1024;
/// Thread names have room for this many connections before they repeat.
const NAMES: u64 = 100_000_000;

/// Settings of the clients' threads.
#[derive(Clone, Copy, Debug)]
pub struct ClientSettings {
    pub timing: Timing,
    /// The settings that concern clients, as `hello` tells them.
    pub limits: v1::Limits,
    /// A snapshot that takes longer to send is worth a line.
    pub slow_snapshot: Duration,
    /// Plain clients see the server's own events too.
    pub plain_notices: bool,
    pub clients_max: usize,
    /// Clients, pages, and handshakes under way, silent ones included.
    pub connections_max: usize,
}

/// What every connection's thread works with.
#[derive(Debug)]
pub struct Reception {
    pub rules: OriginRules,
    pub fanout: FanoutHandle,
    pub numbers: Arc<FanoutGauges>,
    pub inbox: InboxHandle,
    pub inbox_beat: &'static Beat,
    pub settings: ClientSettings,
    pub gauges: Arc<ClientGauges>,
    pub registry: Arc<Registry>,
    pub site: Arc<Site>,
    pub beats: &'static Beats,
    /// Made when the server stops: nobody waits for a connection that is no client yet.
    pub stop: Stop,
}

/// A connection as `accept` hands it on.
#[derive(Debug)]
pub struct Connection {
    pub id: u64,
    pub peer: SocketAddr,
    pub socket: Arc<TcpStream>,
}

impl Connection {
    /// Starts its thread, `client-N`.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self, reception: Arc<Reception>) -> io::Result<ThreadHandle<()>> {
        let name = format!("client-{}", self.id % NAMES);
        threads::spawn(&name, STACK_BYTES, None, move || serve(self, &reception))
    }
}

/// The thread's body.
fn serve(connection: Connection, reception: &Reception) {
    match reception.beats.clients.take(connection.id) {
        Some(place) => receive(connection, reception, *place),
        // `accept` lets in no more connections than there are places; should it ever, this one gets 503 and may come
        // back.
        None => {
            let answer = Answer::detail(503, "too many connections").with("retry-after", "5".to_owned());
            log::error!("🚨 refused a connection of {}: {}", connection.peer, answer.summary());
            reception.gauges.refused.fetch_add(1, Ordering::Relaxed);
            reception.gauges.faults.add(ConnectionFault::TooMany);
            http::answer(
                &connection.socket,
                "GET",
                &answer,
                AnswerBounds::REMOTE,
                &reception.stop,
            );
        }
    }
}

fn receive(connection: Connection, reception: &Reception, beat: &'static Beat) {
    let head = {
        let _doing = beat.begin(Operation::WaitingForRequest);
        http::read_head(connection.socket.as_fd(), &reception.stop)
    };
    let head = match head {
        Ok(head) => head,
        Err(HeadError::Refused(refusal)) => {
            log::warn!("⚠️ refused a request of {}: {}", connection.peer, refusal.summary());
            return reply(&connection, "GET", &refusal, reception);
        }
        Err(error) => return without_request(&connection, &error, reception),
    };
    let origin = match reception.rules.judge(&head) {
        Ok(origin) => origin,
        Err(refusal) => {
            log::warn!("⚠️ refused a request of {}: {}", connection.peer, refusal.summary());
            return reply(&connection, &head.method, &refusal, reception);
        }
    };
    let (method, preflight) = (head.method.clone(), head.preflight.clone());
    // HEAD and OPTIONS become no WebSocket, whatever else they ask for.
    let answer = if head.upgrade() && !matches!(&head.method[..], "HEAD" | "OPTIONS") {
        match upgrade(&connection, head, reception, beat) {
            Ok((key, joined)) => return welcome(connection, &key, joined, reception),
            Err(refusal) => {
                log::warn!("⚠️ refused a client from {}: {}", connection.peer, refusal.summary());
                refusal
            }
        }
    } else if head.path == STREAM_PATH && head.method != "OPTIONS" {
        let refusal = without_upgrade(&head);
        log::warn!("⚠️ refused a client from {}: {}", connection.peer, refusal.summary());
        refusal
    } else {
        let _doing = beat.begin(Operation::AnsweringPage);
        let answer = reception.site.answer(&head);
        if answer.is_refusal() {
            log::info!(
                "📋 answered {:.20} {:.200} of {} with {}",
                head.method,
                head.path,
                connection.peer,
                answer.summary()
            );
        }
        answer
    };
    let _doing = beat.begin(Operation::AnsweringPage);
    let answer = with_cors(answer, origin.as_deref(), preflight.as_deref());
    reply(&connection, &method, &answer, reception);
}

/// The one way out for answers, so that no refusal goes uncounted. Blocks as [`http::answer()`] does.
fn reply(connection: &Connection, method: &str, answer: &Answer, reception: &Reception) {
    if answer.is_refusal() {
        let status = RefusalStatus::of(answer.status);
        debug_assert!(status.is_some(), "status {} has no counter", answer.status);
        if let Some(status) = status {
            reception.gauges.requests.add(status);
        }
    }
    if !http::answer(
        &connection.socket,
        method,
        answer,
        AnswerBounds::REMOTE,
        &reception.stop,
    ) {
        reception.gauges.faults.add(ConnectionFault::AnswerNotTaken);
        log::info!(
            "📋 {} did not take its answer ({}, {}); its connection is ended",
            connection.peer,
            answer.status,
            count(answer.body.len(), "byte")
        );
    }
}

/// Counts and tells of a connection that ended before there was anything to answer.
fn without_request(connection: &Connection, error: &HeadError, reception: &Reception) {
    let peer = connection.peer;
    match error {
        HeadError::Silent => {
            reception.gauges.faults.add(ConnectionFault::Silent);
            log::info!("📋 {peer} sent nothing for {HEAD_DEADLINE:?}; its connection is ended");
        }
        // A check whether the port is open, which may come every second.
        HeadError::Gone { received: 0 } => {
            reception.gauges.faults.add(ConnectionFault::Gone);
            log::debug!("📋 {peer} connected and left without a word");
        }
        HeadError::Gone { received } => {
            reception.gauges.faults.add(ConnectionFault::Gone);
            log::info!(
                "📋 {peer} left in the middle of its request, after {}",
                count(*received, "byte")
            );
        }
        // Nobody's fault, and the caller answers refusals.
        HeadError::Stopping | HeadError::Refused(_) => {}
    }
}

/// One of the places for clients; given back when dropped.
struct Place(Arc<ClientGauges>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes everybody let go of a client when its thread is done with it, also by a panic.
struct Over<'a> {
    link: Arc<Link>,
    reception: &'a Reception,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        // Only a panic gets here without a reason.
        if self.link.end(EndReason::Internal) == Ended::Now {
            self.reception.gauges.ends.add(EndReason::Internal);
            self.link.cut();
        }
        self.link.set_over();
        self.reception.fanout.nudge();
        self.reception.inbox.look_for_ends();
    }
}

/// A client that the fan-out has joined.
struct Joined {
    _place: Place,
    writer: Writer,
    control: crossbeam_channel::Sender<crate::client::writer::Control>,
    leftover: Vec<u8>,
    by: JoinedBy,
    at: Instant,
}

/// What a client asks for with its handshake.
struct Wish {
    view: View,
    begin: Begin,
}

/// Where it wants its stream to begin.
enum Begin {
    /// With the state as of now.
    State,
    After(Position),
    /// With this many events of the history, at least 1.
    Last(u64),
}

impl Wish {
    /// Reads the query of a handshake.
    ///
    /// # Errors
    /// The refusal to answer with: 400, which names the key of the query and what is wrong with its value.
    fn of(head: &Head, plain_notices: bool) -> Result<Wish, Answer> {
        let refused = |text: &str| Answer::detail(400, text);
        let value = |key: &str| query::text(&head.query, key).map_err(|why| refused(&why));
        let (machines, kinds) = (value("machine")?, value("type")?);
        let filter = Filter::from_lists(machines.as_deref(), kinds.as_deref());
        let begin = match (value("since")?, value("last")?) {
            (None, None) => Ok(Begin::State),
            (Some(since), None) => since
                .parse()
                .map(Begin::After)
                .map_err(|error| format!("since in the query: {error}")),
            (None, Some(last)) => match last.parse() {
                Ok(wanted @ 1..) if last.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Begin::Last(wanted)),
                _ => Err("last in the query: it is a whole number of events, at least 1".to_owned()),
            },
            (Some(_), Some(_)) => Err("since and last in the query exclude each other".to_owned()),
        };
        let conflate = match value("conflate")? {
            Some(text) => Some(period(&text).map_err(|why| refused(&format!("conflate in the query: {why}")))?),
            None => None,
        };
        let v1 = head.websocket_protocols.iter().any(|name| name == v1::NAME);
        Ok(Wish {
            view: View {
                protocol: if v1 { Protocol::V1 } else { Protocol::Plain },
                filter: filter.map_err(|error| refused(&error.to_string()))?,
                conflate,
                plain_notices,
            },
            begin: begin.map_err(|error| refused(&error))?,
        })
    }
}

/// Judges the request to become a WebSocket, and joins the client. Returns the accept key.
fn upgrade(
    connection: &Connection,
    head: Head,
    reception: &Reception,
    beat: &'static Beat,
) -> Result<(String, Joined), Answer> {
    if head.path != STREAM_PATH {
        return Err(Answer::detail(403, &format!("WebSockets are at {STREAM_PATH} only")));
    }
    if head.method != "GET" {
        return Err(without_upgrade(&head));
    }
    if head.websocket_version.as_deref() != Some("13") {
        return Err(upgrade_required(
            "this server speaks version 13 of the WebSocket protocol",
        ));
    }
    if head.body {
        return Err(Answer::detail(400, "a request to become a WebSocket has no body"));
    }
    let key = match &head.websocket_key {
        Some(key) if is_key(key) => derive_accept_key(key.as_bytes()),
        _ => return Err(Answer::detail(400, "Sec-WebSocket-Key must be 16 bytes in base64")),
    };
    let wish = Wish::of(&head, reception.settings.plain_notices)?;
    join(connection, wish, head.rest, reception, beat).map(|joined| (key, joined))
}

/// The refusal of a request to the stream that does not ask to become a WebSocket, or may not by its method: what is
/// missing, and how a proxy passes it on.
fn without_upgrade(head: &Head) -> Answer {
    if !matches!(&head.method[..], "GET" | "HEAD") {
        return Answer::detail(405, "Method Not Allowed").with("allow", READ_METHODS.to_owned());
    }
    let parts = [
        (head.method == "HEAD", "the method GET"),
        (head.old, "HTTP/1.1"),
        (!head.asks_websocket, "Upgrade: websocket"),
        (!head.asks_upgrade, "Connection: Upgrade"),
    ];
    let missing: Vec<&str> = parts
        .iter()
        .filter(|(missing, _)| *missing)
        .map(|(_, part)| *part)
        .collect();
    upgrade_required(&format!(
        "{STREAM_PATH} is a WebSocket, and the request lacks {}. A proxy must pass it on (nginx: proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;). A person can look at /health and \
         /initial",
        missing.join(" and ")
    ))
}

/// A 426 with what RFC 9110 section 15.5.22 and RFC 6455 section 4.4 want beside it.
fn upgrade_required(text: &str) -> Answer {
    let answer = Answer::detail(426, text).with("upgrade", "websocket".to_owned());
    answer.with("sec-websocket-version", "13".to_owned())
}

fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == KEY_DIGITS && digits.bytes().all(is_digit)
}

/// Where the client's stream begins. Blocks as [`start_of_last`] does.
fn start_of(begin: &Begin, view: &View, reception: &Reception, beat: &'static Beat) -> Result<Start, Unanswered> {
    match *begin {
        Begin::State => Ok(Start::State),
        Begin::After(position) => Ok(Start::After(position)),
        Begin::Last(wanted) => start_of_last(&reception.fanout, view, wanted, beat).map(Start::Past),
    }
}

/// The refusal of a client for which the fan-out has no answer.
fn come_again(why: Unanswered) -> Answer {
    Answer::detail(503, &why.to_string()).with("retry-after", "5".to_owned())
}

/// Joins the client: with what it wishes to see and to begin with, the fan-out has it from here on.
///
/// # Errors
/// The refusal to answer with: 503, if there is no place for it or the fan-out does not answer.
fn join(
    connection: &Connection,
    wish: Wish,
    leftover: Vec<u8>,
    reception: &Reception,
    beat: &'static Beat,
) -> Result<Joined, Answer> {
    let _doing = beat.begin(Operation::Joining);
    let place = Place(Arc::clone(&reception.gauges));
    if reception.gauges.open.fetch_add(1, Ordering::Relaxed) >= reception.settings.clients_max {
        reception.gauges.refused.fetch_add(1, Ordering::Relaxed);
        let text = match reception.settings.clients_max {
            1 => "the only place for a client is taken (--max-clients)".to_owned(),
            places => format!("all {places} places for clients are taken (--max-clients)"),
        };
        return Err(Answer::detail(503, &text).with("retry-after", "5".to_owned()));
    }
    let at = Instant::now();
    let view = Arc::new(wish.view);
    let start = start_of(&wish.begin, &view, reception, beat).map_err(come_again)?;
    let link = Arc::new(Link::new(
        connection.id,
        connection.peer,
        Arc::clone(&view),
        Arc::clone(&connection.socket),
    ));
    let (subscriber, queue) = outbox(Arc::clone(&link), Arc::clone(&view));
    let by = reception.fanout.catch_up(subscriber, start).map_err(|why| {
        // It may still join us although we have stopped waiting.
        link.set_over();
        reception.fanout.nudge();
        come_again(why)
    })?;
    log::info!(
        "📋 client {} from {} joined after event {}{}",
        connection.id,
        connection.peer,
        by.after.unwrap_or(by.newest),
        about(&view)
    );
    let (control, control_rx) = bounded(CONTROL_QUEUE_LEN_MAX);
    let writer = Writer {
        link,
        view,
        queue,
        control: control_rx,
        beat,
        inbox_beat: reception.inbox_beat,
        fanout: reception.fanout.clone(),
        numbers: Arc::clone(&reception.numbers),
        beats: reception.beats,
        timing: reception.settings.timing,
        limits: reception.settings.limits,
    };
    Ok(Joined {
        _place: place,
        writer,
        control,
        leftover,
        by,
        at,
    })
}

/// What is special about a client, for its line in the log.
fn about(view: &View) -> String {
    let protocol = match view.protocol {
        Protocol::Plain => String::new(),
        Protocol::V1 => format!(" ({})", v1::NAME),
    };
    let mut about = protocol;
    if !view.filter.is_everything() {
        about.push_str(&format!(", wants {:.200}", view.filter.to_string()));
    }
    if let Some(period) = view.conflate {
        about.push_str(&format!(", one state per machine in {}", show_duration(period)));
    }
    about
}

/// Finishes the handshake and serves the client to its end.
fn welcome(connection: Connection, accept_key: &str, joined: Joined, reception: &Reception) {
    let protocol = match joined.writer.view.protocol {
        Protocol::Plain => String::new(),
        Protocol::V1 => format!("sec-websocket-protocol: {}\r\n", v1::NAME),
    };
    let accepted = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept_key}\r\n{protocol}\r\n"
    );
    let link = Arc::clone(&joined.writer.link);
    let id = link.id();
    let _registered = reception.registry.enter(&link);
    let _over = Over {
        link: Arc::clone(&link),
        reception,
    };
    let doing = joined.writer.beat.begin(Operation::Joining);
    if !http::send_all(link.as_fd(), accepted.as_bytes(), Instant::now() + ACCEPT_DEADLINE) {
        link.end(EndReason::PeerGone);
    } else if reception
        .inbox
        .join(Arc::clone(&link), joined.control, joined.leftover)
        .is_err()
    {
        link.end(EndReason::Internal);
    }
    drop(doing);
    drop(connection);
    let reason = joined
        .writer
        .run(joined.at, &joined.by, reception.settings.slow_snapshot);
    let facts = reason.facts();
    reception.gauges.ends.add(reason);
    log::log!(
        facts.level,
        "👋 client {id} from {} ended after {:.1} s: {}",
        link.peer(),
        joined.at.elapsed().as_secs_f64(),
        facts.text
    );
}
