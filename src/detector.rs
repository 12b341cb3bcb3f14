//! Finds machines that stay in a state for longer than they ever do, tells of them once, and keeps what was learned.
//!
//! Runs on: `detector`, one.
//! Owns: what was found; how the host is starved.
//! Blocks on: the clock (250 ms a turn, ended at once by a request), the fan-out's answers (2 s, in turns of 100 ms),
//! /proc.
//! Can be stalled by: the fan-out; nobody waits for this thread but the stop, and that with a bound.
//! Full queue means: of requests to the fan-out: this thread waits, and looks again later; in the slot of the file the
//! newest content replaces an older one.
//! Ends when: asked to, after it has left what was learned to thread `files`.
//! Watched as: `detector`; not a core thread, a stall makes health `degraded`.

pub mod findings;
pub mod judge;

use crate::detector::findings::{Findings, Shown};
use crate::detector::judge::{Found, Judge, Moment, News};
use crate::fanout::requests::{self, ANSWER_TIMEOUT, FanoutGauges, FanoutHandle, Unanswered};
use crate::liveness::beat::Beat;
use crate::liveness::clock_wait;
use crate::liveness::operation::Operation;
use crate::process::clock::epoch_seconds;
use crate::process::files::Slot;
use crate::process::pressure::{self, Change, Pressure};
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, ThreadHandle};
use crate::process::waits;
use crate::stream::declared::Declared;
use crate::stream::learned::saved;
use crate::stream::learned::state::State;
use crate::stream::machines::survey::{SURVEY_FRESH, Survey};
use crate::stream::notice::Notice;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No machine is judged when the host was starved for this long.
const STARVED_AFTER: Duration = Duration::from_secs(60);
/// While there is no survey, the next look comes after this long.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// While the fan-out does not answer, the thread looks after this long whether it is to end.
const LOOK_FOR_STOP: Duration = Duration::from_millis(100);
/// Machines of a finding that the fan-out notes in one turn.
const MACHINES_PER_TURN: usize = 256;
/// What was learned is written at most this often; a server that is killed forgets as much.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Settings of the detector.
#[derive(Clone, Debug)]
pub struct DetectorSettings {
    /// The limits that people declared.
    pub declared: Declared,
    /// `--stuck-cpu-pressure`, in percent.
    pub cpu_pressure: usize,
}

/// The thread's own things.
#[derive(Debug)]
pub struct Detector {
    settings: DetectorSettings,
    fanout: FanoutHandle,
    gauges: Arc<FanoutGauges>,
    findings: Arc<Findings>,
    judge: Judge,
    pressure: Pressure,
    /// Of the file of what was learned, if there is one.
    slot: Option<Slot>,
    /// The version of what was learned that was saved last, and when.
    saved: (u64, Instant),
    beat: &'static Beat,
    stop: Stop,
}

impl Detector {
    /// Ready to run.
    pub fn new(
        settings: DetectorSettings,
        fanout: FanoutHandle,
        gauges: Arc<FanoutGauges>,
        findings: Arc<Findings>,
        slot: Option<Slot>,
        beat: &'static Beat,
        stop: Stop,
    ) -> Detector {
        Detector {
            pressure: Pressure::new(settings.cpu_pressure, STARVED_AFTER),
            settings,
            fanout,
            gauges,
            findings,
            judge: Judge::new(Instant::now()),
            slot,
            saved: (0, Instant::now()),
            beat,
            stop,
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self) -> io::Result<ThreadHandle<()>> {
        threads::spawn("detector", CORE_STACK_BYTES, None, move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        let mut due = Instant::now() + LOOK_EVERY;
        loop {
            self.wait_until(due);
            if self.stop.requested() {
                break;
            }
            due = self.look();
        }
        self.save_at_last();
        self.beat.turn_to(Operation::Ended);
    }

    /// Blocks until `due`, at most; a request to end comes through at once. A drill lengthens it.
    fn wait_until(&self, due: Instant) {
        clock_wait::wait_until(due, self.beat, &self.stop, &waits::DETECTOR);
    }

    /// One look at all machines. Returns when the next one is due: as soon as there can be another survey, so that a
    /// machine is found within a second of its limit.
    fn look(&mut self) -> Instant {
        self.look_at_the_host();
        let Some(survey) = self.survey() else {
            return Instant::now() + LOOK_EVERY;
        };
        let due = survey.made() + SURVEY_FRESH;
        // The survey may be a second old: machines are judged as of then, or one that has moved since would be late.
        let moment = Moment {
            now: survey.made(),
            epoch: epoch_seconds() - survey.made().elapsed().as_secs_f64(),
        };
        let news = {
            let _doing = self.beat.begin_about(Operation::Judging, (survey.len() as u64, 0));
            let judges = !self.pressure.is_starved();
            self.judge.look(&survey, &self.settings.declared, moment, judges)
        };
        if self.saved.1.elapsed() >= SAVE_EVERY {
            self.save(survey.learned_version(), survey.learned());
        }
        drop(survey);
        if news.is_empty() && self.judge.findings().next().is_none() {
            return due;
        }
        // What is over leaves the pages before everybody hears of it; what is new comes there after that.
        self.show();
        if !news.is_empty() {
            news.into_iter().for_each(|news| self.tell(news));
            self.show();
        }
        due
    }

    /// The machines as of now. `None` of a fan-out that does not answer: others tell of that, and no machine is judged.
    fn survey(&self) -> Option<Arc<Survey>> {
        self.answer(self.fanout.ask_survey())
    }

    /// Waits for the fan-out's answer, 2 s at most, or until the stop.
    fn answer<T>(&self, asked: Result<Receiver<T>, Unanswered>) -> Option<T> {
        let _doing = self.beat.begin(Operation::HandingOver);
        let (answer, deadline) = (asked.ok()?, Instant::now() + ANSWER_TIMEOUT);
        loop {
            match answer.recv_timeout(LOOK_FOR_STOP) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.stop.requested() || Instant::now() >= deadline => return None,
                Err(RecvTimeoutError::Timeout) => self.beat.step(),
            }
        }
    }

    fn look_at_the_host(&mut self) {
        match self.pressure.take(pressure::of_cpu().unwrap_or(0.0), Instant::now()) {
            Change::None => return,
            Change::Starved => log::warn!(
                "⚠️ the host has too little CPU for its work (some avg10 in /proc/pressure/cpu was over \
                 --stuck-cpu-pressure {} for 60 s): no machine is judged until that is over",
                self.settings.cpu_pressure
            ),
            Change::Recovered => {
                log::info!("✅ the host has enough CPU again: machines are judged by what happens from now on");
                self.judge.judge_from(Instant::now());
            }
        }
        self.findings.show_starved(self.pressure.is_starved());
    }

    fn tell(&mut self, news: News) {
        match news {
            News::Found {
                id,
                machines,
                notice,
                text,
            } => match self.leave(machines, Some(notice)) {
                Some(true) => {
                    log::warn!("🧊 {text}");
                    self.judge.confirm(id);
                }
                // All of them have moved since the survey.
                Some(false) => self.judge.withdraw(id),
                // The next look finds it again; a late fan-out may have told it by then.
                None => self.judge.withdraw(id),
            },
            News::Noted { machines, texts } => {
                texts.iter().for_each(|text| log::warn!("🧊 {text}"));
                self.leave(machines, None);
            }
            News::Over { notice, text } => {
                log::info!("✅ {text}");
                self.leave(Vec::new(), Some(notice));
            }
        }
    }

    /// Leaves what was found with the fan-out, as much at a time as a turn should take. Returns whether the notice was
    /// told; `None` if the fan-out does not answer.
    fn leave(&self, mut machines: Vec<Found>, mut told: Option<Notice>) -> Option<bool> {
        let mut was_told = None;
        loop {
            let rest = machines.split_off(machines.len().min(MACHINES_PER_TURN));
            let part = requests::Findings {
                machines,
                told: told.take(),
            };
            let answer = self.answer(self.fanout.tell(part))?;
            was_told = was_told.or(Some(answer));
            if rest.is_empty() {
                return was_told;
            }
            machines = rest;
        }
    }

    fn show(&self) {
        let shown = self.judge.findings().map(|finding| Shown {
            verdict: finding.verdict,
            subject: finding.subject.clone(),
            text: finding.shown(),
        });
        self.findings.show(shown, self.judge.counts());
    }

    /// Leaves what was learned to thread `files`, if it has changed.
    fn save(&mut self, version: u64, states: &[Arc<State>]) {
        if let Some(slot) = &self.slot
            && version != self.saved.0
        {
            let _doing = self.beat.begin(Operation::Composing);
            slot.put(Arc::new(saved::saved(states, epoch_seconds())));
        }
        self.saved = (version, Instant::now());
    }

    /// When the server stops: the fan-out has left it when it ended, unless it hangs.
    fn save_at_last(&mut self) {
        let fanout = Arc::clone(&self.gauges);
        if let Some((version, states)) = fanout.learned_at_last.get() {
            self.save(*version, states);
        }
    }
}
