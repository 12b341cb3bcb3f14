//! What each part of the server is given of the settings. It is made here and nowhere else, so that a setting's way
//! from its flag to its use has three stations: its row in `config`, its field here, its use.

use crate::client::handshake::ClientSettings;
use crate::client::writer::Timing;
use crate::config::Config;
use crate::detector::DetectorSettings;
use crate::engine_db::EngineDbSettings;
use crate::fanout::FanoutSettings;
use crate::intake::IntakeSettings;
use crate::journal::JournalSettings;
use crate::journal::segments;
use crate::liveness::operation::SlowLimits;
use crate::liveness::watchdog::WatchdogSettings;
use crate::outbox::link::OfferLimits;
use crate::process::limits;
use crate::serve::room::Room;
use crate::serve::sockets::Sockets;
use crate::stream::learned::LearnedLimits;
use crate::stream::machines::bounds::TableLimits;
use crate::stream::protocol::v1::Limits;
use crate::vitals::alerts::AlertSettings;
use crate::vitals::alerts::alert::Origin;
use crate::vitals::heartbeat::HeartbeatSettings;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The settings by the part that uses them.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) intake: IntakeSettings,
    pub(super) fanout: FanoutSettings,
    pub(super) clients: ClientSettings,
    /// `None`: events are not journaled.
    pub(super) journal: Option<JournalSettings>,
    /// `None`: no database is read.
    pub(super) engine_db: Option<EngineDbSettings>,
    pub(super) heartbeat: HeartbeatSettings,
    /// `None`: no command is run for alerts.
    pub(super) alerts: Option<AlertSettings>,
    pub(super) watchdog: WatchdogSettings,
    pub(super) detector: DetectorSettings,
    pub(super) learned: LearnedLimits,
    /// The emergency file.
    pub(super) report_path: PathBuf,
    pub(super) history_bytes: usize,
    pub(super) table: TableLimits,
    /// For messages about the event socket.
    pub(super) event_socket_path: PathBuf,
    /// The group whose members may act, by its number.
    pub(super) admin_group: Option<u32>,
    pub(super) allow_drill: bool,
}

impl Settings {
    pub(super) fn new(config: &Config, room: Room, sockets: &Sockets) -> Settings {
        Settings {
            intake: IntakeSettings {
                queue_bytes_max: room.intake_bytes,
                patience: config.ingest_patience,
                event_bytes_max: config.max_event_bytes,
                socket_mode: config.socket_mode,
            },
            fanout: FanoutSettings {
                limits: OfferLimits {
                    delivery: config.delivery,
                    queue_bytes_max: config.client_queue_bytes,
                },
                chunk_bytes_max: sockets.send_buffer_bytes / 2,
                max_behind: config.max_behind,
                machine_ttl: config.machine_ttl,
                addresses_are_limited: limits::address_space().is_some(),
            },
            clients: clients(config, room),
            journal: journal(config),
            engine_db: config.db.clone().map(|path| EngineDbSettings {
                path,
                is_given: config.db_is_given,
                interval: config.db_interval,
                event_bytes_max: config.max_event_bytes,
            }),
            heartbeat: HeartbeatSettings {
                interval: config.heartbeat_interval,
                address: sockets.address,
            },
            alerts: alerts(config, sockets.address),
            watchdog: WatchdogSettings {
                hang_timeout: config.hang_timeout,
                on_hang: config.on_hang,
                ping_interval: config.ping_interval,
            },
            detector: DetectorSettings {
                declared: config.stuck.clone(),
                cpu_pressure: config.stuck_cpu_pressure,
            },
            learned: learned_limits(config),
            report_path: config.hang_report_path(),
            history_bytes: config.history_bytes,
            table: TableLimits {
                machines_max: config.max_machines,
                bytes_max: config.machine_bytes,
            },
            event_socket_path: config.event_socket_path.clone(),
            admin_group: config.admin_group,
            allow_drill: config.allow_drill,
        }
    }
}

fn clients(config: &Config, room: Room) -> ClientSettings {
    ClientSettings {
        timing: Timing {
            ping_interval: config.ping_interval,
            pong_timeout: config.pong_timeout,
            send_timeout: config.send_timeout,
            dead_path_timeout: config.dead_path_timeout,
            allow_drill: config.allow_drill,
        },
        limits: Limits {
            queue_bytes: config.client_queue_bytes,
            history_bytes: config.history_bytes,
            max_behind_s: config.max_behind.as_secs_f64(),
            send_timeout_s: config.send_timeout.as_secs_f64(),
            ping_interval_s: config.ping_interval.as_secs_f64(),
            pong_timeout_s: config.pong_timeout.as_secs_f64(),
        },
        slow_snapshot: config.slow_snapshot,
        plain_notices: config.plain_notices,
        clients_max: clients_max(config, room),
        connections_max: connections_max(config, room),
    }
}

fn journal(config: &Config) -> Option<JournalSettings> {
    config.journal.clone().map(|folder| JournalSettings {
        folder,
        limits: segments::Limits {
            segment_bytes: config.journal_segment_bytes as u64,
            segment_age: config.journal_segment_age,
            keep_bytes: config.journal_keep_bytes as u64,
            keep_age: config.journal_keep_age,
        },
        history_bytes: config.history_bytes,
    })
}

fn alerts(config: &Config, address: SocketAddr) -> Option<AlertSettings> {
    let command = config.on_alert.clone();
    (!command.is_empty()).then(|| AlertSettings {
        command,
        time_max: config.on_alert_timeout,
        origin: Origin {
            address,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        },
    })
}

/// How much may be learned.
fn learned_limits(config: &Config) -> LearnedLimits {
    LearnedLimits {
        states_max: config.learned_states,
        transitions_max: config.learned_transitions,
        bytes_max: config.learned_bytes,
    }
}

/// From which time on an operation is slow.
pub(super) fn slow_limits(config: &Config) -> SlowLimits {
    SlowLimits {
        broadcast: config.slow_broadcast,
        snapshot: config.slow_snapshot,
    }
}

fn clients_max(config: &Config, room: Room) -> usize {
    config.max_clients.unwrap_or(usize::MAX).min(room.clients.clients())
}

/// Clients, and room besides for pages and for handshakes under way.
pub(super) fn connections_max(config: &Config, room: Room) -> usize {
    clients_max(config, room).saturating_add(room.clients.spare())
}
