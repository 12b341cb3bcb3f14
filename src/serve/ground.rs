//! What the steps of a start share: what the threads show, and the ways by which they ask each other.

use crate::engine_db::EngineDbGauges;
use crate::fanout::requests::{FanoutGauges, FanoutHandle};
use crate::intake::gauges::IngestGauges;
use crate::journal::queue::JournalGauges;
use crate::liveness::beats::Beats;
use crate::liveness::demand::Demand;
use crate::liveness::operation::Operation;
use crate::outbox::gauges::ClientGauges;
use crate::outbox::registry::Registry;
use crate::process::clock::{epoch_seconds, monotonic_ms};
use crate::process::logging::LogControl;
use crate::process::stop::Stop;
use crate::process::threads::Obituaries;
use crate::serve::settings::Settings;
use crate::serve::start_error::{StartError, new_stop, resource};
use crate::serve::way::Way;
use crate::vitals::admin_gauges::AdminGauges;
use crate::vitals::health::Vitals;
use crate::vitals::status::Status;
use crate::web::Site;
use crate::web::acting::Acting;
use std::path::PathBuf;
use std::sync::Arc;

/// What the steps of a start share.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) beats: &'static Beats,
    /// Gets the name of a core thread that ends.
    pub(super) obituaries: Obituaries,
    /// Requested when the server begins to stop: it ends `accept`, and tells others that threads end now.
    pub(super) stopping: Stop,
    pub(super) fanout: FanoutHandle,
    pub(super) fanout_gauges: Arc<FanoutGauges>,
    pub(super) ingest_gauges: Arc<IngestGauges>,
    pub(super) client_gauges: Arc<ClientGauges>,
    pub(super) admin_gauges: Arc<AdminGauges>,
    pub(super) registry: Arc<Registry>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) demand: Demand,
}

impl Ground {
    pub(super) fn new(
        settings: &Settings,
        beats: &'static Beats,
        log: Option<LogControl>,
        way: &Way,
        journal: Option<Arc<JournalGauges>>,
        obituaries: Obituaries,
    ) -> Result<Ground, StartError> {
        let (fanout_gauges, client_gauges) = (Arc::<FanoutGauges>::default(), Arc::<ClientGauges>::default());
        if log.is_none() {
            beats.log.turn_to(Operation::Ended);
        }
        let vitals = Vitals {
            beats,
            ingest: Arc::clone(&way.gauges),
            intake: way.intake.clone(),
            fanout: Arc::clone(&fanout_gauges),
            clients: Arc::clone(&client_gauges),
            journal,
            engine_db: settings
                .engine_db
                .as_ref()
                .map(|db| Arc::new(EngineDbGauges::new(&db.path))),
            alerts: settings.alerts.as_ref().map(|_| Arc::default()),
            log,
            findings: Arc::default(),
            event_socket_path: settings.event_socket_path.clone(),
            started: epoch_seconds(),
            started_ms: monotonic_ms(),
        };
        Ok(Ground {
            beats,
            obituaries,
            stopping: new_stop()?,
            fanout: way.fanout.clone(),
            fanout_gauges,
            ingest_gauges: Arc::clone(&way.gauges),
            client_gauges,
            admin_gauges: Arc::default(),
            registry: Arc::default(),
            vitals: Arc::new(vitals),
            demand: Demand::new().map_err(resource("a descriptor"))?,
        })
    }

    /// The pages; `admin_socket` is where acting is taken.
    pub(super) fn site(&self, settings: &Settings, admin_socket: Option<PathBuf>) -> Site {
        Site {
            status: Status {
                clients: Arc::clone(&self.registry),
                fanout: Arc::clone(&self.fanout_gauges),
                history_bytes_max: settings.history_bytes,
                engine_db: self.vitals.engine_db.clone(),
                admin_socket,
                admin: Arc::clone(&self.admin_gauges),
            },
            vitals: Arc::clone(&self.vitals),
            fanout: self.fanout.clone(),
            declared: settings.detector.declared.clone(),
        }
    }

    /// What requests that act work with.
    pub(super) fn acting(&self, settings: &Settings) -> Acting {
        Acting {
            fanout: self.fanout.clone(),
            clients: Arc::clone(&self.registry),
            beats: self.beats,
            demand: self.demand.clone(),
            stop: self.stopping.clone(),
            allow_drill: settings.allow_drill,
            address: settings.heartbeat.address,
        }
    }
}
