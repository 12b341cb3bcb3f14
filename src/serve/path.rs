//! The threads on the path of an event, `ingest`, `fanout`, `inbox` and `accept`, and what each is given.

use crate::client::accept::Accept;
use crate::client::handshake::Reception;
use crate::client::inbox::{Inbox, InboxHandle};
use crate::fanout::{Beginning, Fanout, FanoutSettings, Sources};
use crate::intake::IntakeSettings;
use crate::intake::event_socket::PathLock;
use crate::intake::ingest::Ingest;
use crate::intake::receiver::Receiver;
use crate::process::stop::Stop;
use crate::serve::ground::Ground;
use crate::serve::parts::{Part, Turn};
use crate::serve::settings::Settings;
use crate::serve::start_error::{StartError, new_stop, resource};
use crate::web::Site;
use crate::web::origin::OriginRules;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

pub(super) fn start_fanout(
    ground: &Ground,
    settings: FanoutSettings,
    sources: Sources,
    beginning: Beginning,
) -> Result<Part, StartError> {
    let stop = new_stop()?;
    let fanout = Fanout::new(
        settings,
        sources,
        beginning,
        Arc::clone(&ground.fanout_gauges),
        Arc::clone(&ground.ingest_gauges),
        ground.beats.fanout,
        stop.clone(),
    );
    let thread = fanout
        .start(ground.obituaries.clone())
        .map_err(resource("thread fanout"))?;
    Ok(Part::new(Turn::Fanout, stop, thread))
}

/// Returns the way to the inbox, too.
pub(super) fn start_inbox(ground: &Ground) -> Result<(Part, InboxHandle), StartError> {
    let stop = new_stop()?;
    let gauges = Arc::clone(&ground.client_gauges);
    let (inbox, handle) =
        Inbox::new(ground.fanout.clone(), gauges, ground.beats.inbox, stop.clone()).map_err(resource("the inbox"))?;
    let thread = inbox
        .start(ground.obituaries.clone())
        .map_err(resource("thread inbox"))?;
    Ok((Part::new(Turn::Inbox, stop, thread), handle))
}

/// Starts `accept`, which starts a thread for each connection; see [`Part::clients`].
pub(super) fn start_accept(
    ground: &Ground,
    settings: &Settings,
    listener: TcpListener,
    rules: OriginRules,
    inbox: InboxHandle,
    site: Arc<Site>,
) -> Result<Part, StartError> {
    let stop = ground.stopping.clone();
    let reception = Reception {
        rules,
        fanout: ground.fanout.clone(),
        numbers: Arc::clone(&ground.fanout_gauges),
        inbox,
        inbox_beat: ground.beats.inbox,
        settings: settings.clients,
        gauges: Arc::clone(&ground.client_gauges),
        registry: Arc::clone(&ground.registry),
        site,
        beats: ground.beats,
        stop: stop.clone(),
    };
    let accept = Accept::new(listener, Arc::new(reception), ground.beats.accept, stop.clone());
    let thread = accept
        .start(ground.obituaries.clone())
        .map_err(resource("thread accept"))?;
    Ok(Part::parent(Turn::Accept, stop, thread, Turn::Clients))
}

/// Starts `ingest`: from here on events are received.
pub(super) fn start_ingest(
    ground: &Ground,
    settings: IntakeSettings,
    receiver: Arc<Mutex<Receiver>>,
    lock: PathLock,
    stop: Stop,
) -> Result<Part, StartError> {
    let gauges = Arc::clone(&ground.ingest_gauges);
    let ingest = Ingest::new(receiver, lock, settings, gauges, ground.beats.ingest, stop.clone())
        .map_err(resource("a descriptor"))?;
    let thread = ingest
        .start(ground.obituaries.clone())
        .map_err(resource("thread ingest"))?;
    Ok(Part::new(Turn::Ingest, stop, thread))
}
