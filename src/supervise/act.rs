//! Starts services, takes notice of their ends, starts them again, and stops them.
//!
//! Runs on: `act`, one, in `threadcast up`.
//! Owns: every service with its first process; the list of all processes; the run folder.
//! Blocks on: the ends of processes, orders and findings (250 ms a turn); the disks of programs, folders and logs while
//! a service starts; the kernel's answer to a read of /proc.
//! Can be stalled by: these disks; a process that hangs in the kernel while it executes another program.
//! Full queue means: of orders, the sender gets an error; of findings, nothing: there is room for one of each thread.
//! Ends when: asked to, and all services are stopped.
//! Watched as: `act`, by thread `main`, which names it in the log and in `services status`.

mod adopting;
mod checks;
mod ends;
mod readiness;
mod starts;
mod stops;

use crate::liveness::beat::Beat;
use crate::liveness::operation::Operation;
use crate::process::clock::{epoch_seconds, timespec};
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::process::wake::Wake;
use crate::process::words::count;
use crate::supervise::board::{Board, State};
use crate::supervise::census::Census;
use crate::supervise::checks::Memo;
use crate::supervise::checks::sight::Sight;
use crate::supervise::children::Children;
use crate::supervise::events::Events;
use crate::supervise::orphans;
use crate::supervise::record::{Record, RecordFile};
use crate::supervise::run_folder::RunFolder;
use crate::supervise::settings::plan::{Need, Plan, SERVER};
use crate::supervise::starving::Starving;
use crate::supervise::stop::Stopping;
use crate::supervise::unit::Unit;
use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest single wait.
const TURN: Duration = Duration::from_millis(250);
/// Time between two looks at all processes while nothing happens. A look sees a descent only while both live.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Orders that wait.
pub const ORDERS_MAX: usize = 64;

/// What a person wants of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Start(Arc<str>),
    Stop(Arc<str>),
    Restart(Arc<str>),
    /// What is being stopped gets no more time.
    Hasten,
}

/// What a thread that looks has found.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    /// Start number `n` of a service is ready, or why not.
    Ready {
        unit: usize,
        n: u64,
        seen: Result<(), String>,
    },
    /// What a look of start number `n` has seen, for the check at place `at` of a service.
    Check {
        unit: usize,
        at: usize,
        n: u64,
        sight: Sight,
        memo: Box<Memo>,
    },
    /// A need is there, or why not.
    Need { need: usize, seen: Result<(), String> },
}

/// A need, and what is known of it.
#[derive(Debug)]
pub(super) struct Needed {
    pub(super) need: Need,
    pub(super) name: Arc<str>,
    /// `None`: not known yet.
    pub(super) seen: Option<Result<(), String>>,
    pub(super) is_on: bool,
    pub(super) due: Instant,
}

/// How everything has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Services that are not stopped, in words.
    pub left: Vec<String>,
}

/// What other threads have of this one.
#[derive(Clone, Debug)]
pub struct Handle {
    orders: Sender<Order>,
    wake: Arc<Wake>,
    is_settled: Arc<AtomicBool>,
    /// Everything is to be stopped. Beside the orders, because it must come through whatever waits there.
    ends: Arc<AtomicBool>,
}

impl Handle {
    /// Asks for the stop of everything. Never blocks, and always comes through.
    pub fn end(&self) {
        self.ends.store(true, Ordering::Release);
        self.wake.wake();
    }

    /// Leaves an order. Never blocks.
    ///
    /// # Errors
    /// Too many orders wait: the thread does not move.
    pub fn give(&self, order: Order) -> Result<(), Order> {
        let given = self
            .orders
            .try_send(order)
            .map_err(crossbeam_channel::TrySendError::into_inner);
        self.wake.wake();
        given
    }

    /// Returns whether nothing is going to happen until a process ends or somebody asks for something.
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Acquire)
    }
}

/// The thread's own things.
#[derive(Debug)]
pub struct Act {
    plan: Arc<Plan>,
    folder: RunFolder,
    record: RecordFile,
    /// What the earlier supervisor has left, until it is taken over.
    left: Option<Record>,
    census: Census,
    children: Children,
    units: Vec<Unit>,
    needs: Vec<Needed>,
    orders: Receiver<Order>,
    findings: Receiver<Finding>,
    found: Sender<Finding>,
    wake: Arc<Wake>,
    board: Board,
    events: Events,
    is_settled: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    /// When the host has too little CPU for checks to count.
    starving: Starving,
    /// When all processes were looked at last.
    looked: Instant,
    /// The phase of the stop that is on, and those that did not stop before.
    ending: Option<(usize, Outcome)>,
    /// Since when all processes could not be listed.
    unlisted: Option<Instant>,
    /// What is being stopped gets no more time.
    is_hasty: bool,
    /// The log knows that the run folder is gone.
    is_folder_lost: bool,
    /// The stop of what services have started and nobody knows from which, and when its next step is due.
    unclaimed: Option<(Stopping, Instant)>,
    beat: &'static Beat,
}

impl Act {
    /// Ready to run, with the services of `plan`. `left` is what an earlier supervisor has recorded.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new(
        plan: Arc<Plan>,
        (folder, record, left): (RunFolder, RecordFile, Option<Record>),
        (census, children): (Census, Children),
        board: Board,
        events: Events,
        beat: &'static Beat,
    ) -> io::Result<(Act, Handle)> {
        let wake = Arc::new(Wake::new()?);
        let (orders_in, orders) = crossbeam_channel::bounded(ORDERS_MAX);
        let checks = plan.services.iter().map(|service| 1 + service.checks.len());
        // One for each thread that looks.
        let (found, findings) = crossbeam_channel::bounded(plan.needs.len() + checks.sum::<usize>() + 1);
        let is_settled = Arc::new(AtomicBool::new(false));
        let ends = Arc::new(AtomicBool::new(false));
        let now = Instant::now();
        let units = plan.services.iter().map(|service| {
            let log = plan.supervise.log_dir.join(format!("{}.log", service.name));
            Unit::new(service.clone(), log)
        });
        let needs = plan.needs.iter().map(|need| Needed {
            need: need.clone(),
            name: need.name.as_str().into(),
            seen: None,
            is_on: false,
            due: now,
        });
        let handle = Handle {
            orders: orders_in,
            wake: Arc::clone(&wake),
            is_settled: Arc::clone(&is_settled),
            ends: Arc::clone(&ends),
        };
        let act = Act {
            units: units.collect(),
            needs: needs.collect(),
            starving: Starving::new(&plan.services),
            plan,
            folder,
            record,
            left,
            census,
            children,
            orders,
            findings,
            found,
            wake,
            board,
            events,
            is_settled,
            ends,
            looked: now,
            ending: None,
            unlisted: None,
            is_hasty: false,
            is_folder_lost: false,
            unclaimed: None,
            beat,
        };
        Ok((act, handle))
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; `Refusal` says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<Outcome>> {
        threads::spawn("act", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) -> Outcome {
        self.beat.adopt();
        for unit in &self.units {
            self.events.register(&unit.name, unit.state, epoch_seconds());
        }
        self.adopt();
        loop {
            self.wake.quieten();
            self.take_orders();
            if self.ends.load(Ordering::Acquire) {
                self.begin_ending();
            }
            self.take_findings();
            self.look_at_processes();
            for index in 0..self.units.len() {
                self.turn_of(index);
            }
            self.look_at_needs();
            self.look_at_the_host();
            self.show();
            if let Some(outcome) = self.go_on_ending() {
                self.show();
                for unit in &self.units {
                    self.events.end(&unit.name, epoch_seconds());
                }
                if self.events.lost() > 0 {
                    log::info!(
                        "📭 {} of services were not told, because no server took them at the event socket",
                        count(self.events.lost(), "change")
                    );
                }
                self.beat.turn_to(Operation::Ended);
                return outcome;
            }
            let begun = Instant::now();
            self.wait();
            self.forgive_if_overslept(begun);
        }
    }

    /// One turn of a service.
    fn turn_of(&mut self, index: usize) {
        self.notice_end(index);
        self.go_on_stopping(index);
        self.start_if_due(index);
        self.look_for_readiness(index);
        self.look_at_checks(index);
    }

    /// Looks at all processes, if it is time to.
    fn look_at_processes(&mut self) {
        let now = Instant::now();
        let is_stopping = self
            .units
            .iter()
            .any(|unit| unit.stopping.is_some() && unit.step_due.is_none_or(|due| due <= now));
        let is_stopping = is_stopping || self.unclaimed.as_ref().is_some_and(|(_, due)| *due <= now);
        if !is_stopping && now.saturating_duration_since(self.looked) < LOOK_EVERY {
            return;
        }
        let _doing = self.beat.begin(Operation::LookingAtProcesses);
        self.looked = Instant::now();
        self.unlisted = match (self.census.look(), self.unlisted) {
            (Ok(()), _) => None,
            (Err(_), Some(since)) => Some(since),
            (Err(error), None) => {
                log::error!("❌ the processes of this host cannot be listed: {error}; looking again");
                Some(now)
            }
        };
        let is_ours = self.folder.is_still_ours().unwrap_or(true);
        if !is_ours && !std::mem::replace(&mut self.is_folder_lost, true) {
            log::error!(
                "❌ the run folder {} was removed or replaced: another `threadcast up` would start everything twice, and \
                 `threadcast services` does not reach this one. Stop this one (process {}) before you start another",
                self.folder.path().display(),
                std::process::id()
            );
        }
        orphans::reap(&self.census, &self.children);
    }

    /// Shows what has changed.
    fn show(&mut self) {
        for unit in &mut self.units {
            if std::mem::take(&mut unit.is_changed) {
                self.board.show(&unit.name, unit.row());
            }
        }
        self.events.tell_if_untaken();
        let is_settled = self.ending.is_none()
            && self.units.iter().all(Unit::is_settled)
            && self.needs.iter().all(|need| need.seen.is_some());
        self.is_settled.store(is_settled, Ordering::Release);
    }

    /// Tells the server of all services, if it is the server that has become ready: what was sent before it served is
    /// lost.
    pub(super) fn tell_all_to_the_server(&mut self, index: usize) {
        if *self.units[index].name == *SERVER {
            for unit in &self.units {
                self.events.register(&unit.name, unit.state, epoch_seconds());
            }
        }
    }

    /// Blocks until a first process ends, an order or a finding comes, or something is due.
    fn wait(&self) {
        let now = Instant::now();
        let due = self.units.iter().flat_map(|unit| {
            let step = unit.stopping.as_ref().and(unit.step_due);
            let look = unit
                .looking
                .due
                .filter(|_| unit.state == State::Starting && !unit.looking.is_on);
            let again = unit.again.filter(|_| unit.is_wanted && !unit.is_up());
            let check = unit.checks.due();
            [step, look, again, check].into_iter().flatten()
        });
        let looks = self.needs.iter().filter(|need| !need.is_on && self.ending.is_none());
        let needs = looks.map(|need| need.due);
        let unclaimed = self.unclaimed.as_ref().map(|(_, due)| *due);
        let next = due.chain(needs).chain(unclaimed).min().unwrap_or(now + TURN);
        let left = next.saturating_duration_since(now).min(TURN);
        let leaders = self.units.iter();
        // Their ends are taken notice of elsewhere, and a descriptor that stays readable would let nobody rest.
        let leaders = leaders.filter(|unit| unit.stopping.is_none() && unit.state != State::Failed);
        let leaders = leaders.filter_map(|unit| unit.leader.as_ref());
        let mut fds = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        fds.extend(leaders.map(|leader| PollFd::from_borrowed_fd(leader.as_fd(), PollFlags::IN)));
        let _doing = self.beat.begin(Operation::Waiting);
        // Interrupted or not, the next turn looks at everything.
        let _ = waits::ACT.judge(poll(&mut fds, Some(&timespec(left))));
    }
}
