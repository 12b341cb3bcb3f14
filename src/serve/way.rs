//! The way from the event socket to the fan-out, before the threads on it run.

use crate::fanout::Sources;
use crate::fanout::requests::FanoutHandle;
use crate::intake::IntakeSettings;
use crate::intake::event_socket::EventSocket;
use crate::intake::gauges::IngestGauges;
use crate::intake::queue::{IntakeGauge, intake};
use crate::intake::receiver::{FanoutSleep, Receiver};
use crate::liveness::beats::Beats;
use crate::process::bell::Bell;
use crate::process::stop::Stop;
use crate::serve::start_error::{StartError, new_stop, resource};
use std::sync::{Arc, Mutex};

/// The way from the event socket to the fan-out, before its threads run.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) receiver: Arc<Mutex<Receiver>>,
    pub(super) sources: Sources,
    pub(super) intake: IntakeGauge,
    pub(super) fanout: FanoutHandle,
    pub(super) gauges: Arc<IngestGauges>,
    /// Ends `ingest`, and its wait for room in the queue.
    pub(super) ingest_stop: Stop,
}

impl Way {
    pub(super) fn new(
        settings: IntakeSettings,
        event_socket: EventSocket,
        beats: &'static Beats,
    ) -> Result<Way, StartError> {
        let ingest_stop = new_stop()?;
        let bell = Bell::new().map_err(resource("a descriptor"))?;
        let (tx, rx, gauge) = intake(settings, beats.fanout, bell.clone(), ingest_stop.clone());
        let (fanout, requests) = FanoutHandle::new(bell.clone());
        let mut sleep = FanoutSleep::new(bell).map_err(resource("a descriptor"))?;
        let gauges = Arc::new(IngestGauges::default());
        let receiver =
            Receiver::new(event_socket, settings, tx, Arc::clone(&gauges), &sleep).map_err(resource("a descriptor"))?;
        let receiver = Arc::new(Mutex::new(receiver));
        sleep.receive_with(&receiver);
        Ok(Way {
            receiver,
            sources: Sources {
                intake: rx,
                requests,
                sleep,
            },
            intake: gauge,
            fanout,
            gauges,
            ingest_stop,
        })
    }
}
