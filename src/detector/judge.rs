//! Judges a survey: which machines stay too long, which of them have one cause, and which move again.
//!
//! Knows neither threads nor the fan-out, so that a test can lead it through a day in a second.

use crate::process::clock::rfc3339;
use crate::process::words::count;
use crate::stream::declared::Declared;
use crate::stream::learned::find;
use crate::stream::learned::state::State;
use crate::stream::learned::usual::{STUCK_DWELLS_MIN, Usual};
use crate::stream::machines::dwell::Verdict;
use crate::stream::machines::judgement::{Limit, limit};
use crate::stream::machines::survey::{Survey, Surveyed};
use crate::stream::notice::{Notice, NoticeKind, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Machines of one type that pass their limits within this time may have one cause.
const TOGETHER: Duration = Duration::from_secs(10);
/// Fewer machines are no common cause.
const TOGETHER_MIN: usize = 3;
/// A type is slow as a whole when its last dwells took this many times the usual.
const SLOWER: f64 = 2.0;
/// It is no more when they took less than this many times the usual.
const SLOWER_NO_MORE: f64 = 1.5;
/// And three of four of them at least this many times: in a state with two modes, a run of the longer one is no news.
const MOST_SLOWER: f64 = 1.5;
/// A type counts as slow for this long after its last machine over the limit has moved.
const SLOW_LASTS: Duration = Duration::from_secs(3600);
/// Machines that are found at one look.
const FOUND_PER_LOOK: usize = 256;
/// The words for a sign of life, and for none.
const LIFE: &str = "it is alive";
const NO_LIFE: &str = "there is no sign of life";
/// A machine is alive if an event came from it within this part of its limit.
const ALIVE_WITHIN: u32 = 2;

/// The clocks at the moment that is judged.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    /// Seconds since the epoch.
    pub epoch: f64,
}

/// A machine that was found: its name, the number of its stay, and what is wrong.
pub type Found = (Box<str>, u64, Verdict);

/// A finding that stands.
#[derive(Debug)]
pub struct Finding {
    id: u64,
    pub verdict: Verdict,
    config_type: Option<Box<str>>,
    state: Box<str>,
    /// Its machines that have not moved since, each with its stay. Empty only while a type is slow.
    machines: BTreeMap<Box<str>, (u64, Verdict)>,
    /// How many it has had.
    had: usize,
    /// The first of them.
    first: Box<str>,
    /// When the last of them was seen to have moved.
    emptied: Option<Instant>,
    /// When it was found.
    found: Instant,
    /// The fan-out has taken it in, so that everybody hears of it.
    is_told: bool,
    /// When the stay of its first machine began.
    since: Instant,
    usual: Option<Usual>,
    limit: Limit,
    cause: Cause,
    /// The machine; of several, what they have in common.
    pub subject: String,
    /// What was found, for people.
    text: String,
}

impl Finding {
    /// What was found, for people who look now.
    pub fn shown(&self) -> String {
        if self.machines.is_empty() {
            let (subject, state) = (&self.subject, &self.state);
            return format!("{subject} is slow: its last dwells in {state:?} took far more than the usual");
        }
        self.text.clone()
    }
}

/// Why a finding has its machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// One machine, for itself.
    Own,
    /// Most of its type passed their limits together.
    Together,
    /// All of its type are slow in that state.
    Slow,
}

/// What a look has found.
#[derive(Debug)]
pub enum News {
    /// Machines stay too long. No later look finds them again, unless [`Judge::withdraw`] takes this back.
    Found {
        id: u64,
        machines: Vec<Found>,
        notice: Notice,
        text: String,
    },
    /// These belong to an earlier finding, or show life again: the fan-out notes it and tells nobody.
    Noted { machines: Vec<Found>, texts: Vec<String> },
    /// What was found is over.
    Over { notice: Notice, text: String },
}

/// A machine that has a limit.
struct Judged<'a> {
    machine: Surveyed<'a>,
    /// When its stay began, as far as it may be judged.
    since: Instant,
    stay: Duration,
    limit: Limit,
    usual: Option<Usual>,
    verdict: Verdict,
    slowness: Option<f64>,
}

impl Judged<'_> {
    fn is_late(&self) -> bool {
        self.stay >= self.limit.after
    }

    /// What is soon for it: a quarter of a short limit, because everybody who works is always near that.
    fn soon(&self) -> Duration {
        TOGETHER.min(self.limit.after / 4)
    }

    /// Returns whether it passed its limit within [`TOGETHER`], or will do soon if it does not move.
    fn is_near_its_limit(&self) -> bool {
        let near = self.limit.after.saturating_sub(self.soon())..=self.limit.after.saturating_add(TOGETHER);
        near.contains(&self.stay)
    }

    /// Returns whether others may still pass their limits with it.
    fn may_get_company(&self) -> bool {
        self.stay <= self.limit.after.saturating_add(self.soon())
    }

    fn found(&self) -> Found {
        (self.machine.name.into(), self.machine.dwell(), self.verdict)
    }
}

/// What is counted of a type at one look.
#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    machines: usize,
    /// Those that passed their limits just now.
    late: usize,
    /// These, and those that will soon.
    soon: usize,
}

impl Crowd {
    fn has_common_cause(&self, machines: usize) -> bool {
        machines >= TOGETHER_MIN && 2 * machines > self.machines
    }
}

/// What was found so far.
#[derive(Debug)]
pub struct Judge {
    findings: Vec<Finding>,
    numbered: u64,
    /// A machine of which nothing was heard since then is not judged: it may be long gone.
    started: Instant,
    /// No stay counts from before.
    judged_from: Instant,
}

impl Judge {
    /// Judges what happens from `started` on.
    pub fn new(started: Instant) -> Judge {
        Judge {
            findings: Vec::new(),
            numbered: 0,
            started,
            judged_from: started,
        }
    }

    /// The findings that stand and that the fan-out has taken in.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.is_told)
    }

    /// Machines that are stuck now, and those that are silent.
    pub fn counts(&self) -> (usize, usize) {
        let verdicts = || self.findings().flat_map(|finding| finding.machines.values());
        let count = |verdict| verdicts().filter(|(_, found)| *found == verdict).count();
        (count(Verdict::Stuck), count(Verdict::Silent))
    }

    /// What was before counts for no stay: the host was starved until now.
    pub fn judge_from(&mut self, now: Instant) {
        self.judged_from = now;
    }

    /// The fan-out has taken a finding in.
    pub fn confirm(&mut self, id: u64) {
        if let Some(finding) = self.findings.iter_mut().find(|finding| finding.id == id) {
            finding.is_told = true;
        }
    }

    /// Takes a finding back that reached nobody, or whose machines have all moved meanwhile.
    pub fn withdraw(&mut self, id: u64) {
        self.findings.retain(|finding| finding.id != id);
    }

    /// Judges a survey. With `judges` false nothing new is found; what is over is over.
    pub fn look(&mut self, survey: &Survey, declared: &Declared, moment: Moment, judges: bool) -> Vec<News> {
        let mut news = self.look_what_is_over(survey, moment);
        if !judges {
            return news;
        }
        let usuals = Usuals::of(survey);
        let (mut crowds, mut lates) = (BTreeMap::<&str, Crowd>::new(), Vec::new());
        let mut revived = Vec::new();
        for machine in survey.machines() {
            // Machines without a known type have nothing in common.
            let crowd = machine.config_type.map(|name| crowds.entry(name).or_default());
            let judged = self.judged(machine, &usuals, declared, moment.now);
            if let Some(crowd) = crowd {
                crowd.machines += 1;
                if let Some(judged) = judged.as_ref().filter(|judged| judged.is_near_its_limit()) {
                    crowd.soon += 1;
                    crowd.late += usize::from(judged.is_late());
                }
            }
            match judged {
                Some(judged) if judged.is_late() && machine.verdict().is_none() => lates.push(judged),
                Some(judged) if machine.verdict() == Some(Verdict::Silent) && judged.verdict == Verdict::Stuck => {
                    revived.push(judged.found());
                }
                _ => {}
            }
        }
        self.revive(revived, &mut news);
        // The longest stays first; what is too much for one look is found at the next.
        lates.sort_unstable_by_key(|late| std::cmp::Reverse(late.stay));
        lates.truncate(FOUND_PER_LOOK);
        let standing: BTreeSet<(Box<str>, u64)> = self.standing().collect();
        lates.retain(|late| !standing.contains(&(late.machine.name.into(), late.machine.dwell())));
        let mut joined = (Vec::new(), Vec::new());
        for late in &lates {
            let crowd = late.machine.config_type.and_then(|name| crowds.get(name)).copied();
            self.take(late, &lates, crowd.unwrap_or_default(), moment, &mut news, &mut joined);
        }
        if let (machines @ [_, ..], texts) = (&joined.0[..], joined.1) {
            let machines = machines.to_vec();
            news.push(News::Noted { machines, texts });
        }
        news
    }

    /// Machines of findings, each with its stay.
    fn standing(&self) -> impl Iterator<Item = (Box<str>, u64)> {
        let machines = self.findings.iter().flat_map(|finding| &finding.machines);
        machines.map(|(name, (dwell, _))| (name.clone(), *dwell))
    }

    /// Takes in a machine that is over its limit.
    fn take(
        &mut self,
        late: &Judged<'_>,
        lates: &[Judged<'_>],
        crowd: Crowd,
        moment: Moment,
        news: &mut Vec<News>,
        joined: &mut (Vec<Found>, Vec<String>),
    ) {
        let config_type = late.machine.config_type;
        if self.has(late) {
            // It has come with another one of this look.
            return;
        }
        let common = self.findings.iter_mut().find(|finding| {
            let is_type = config_type.is_some() && finding.config_type.as_deref() == config_type;
            is_type
                && match finding.cause {
                    Cause::Own => false,
                    Cause::Together => moment.now.saturating_duration_since(finding.found) <= TOGETHER,
                    Cause::Slow => Some(&*finding.state) == late.machine.state,
                }
        });
        if let Some(finding) = common {
            let (name, dwell, verdict) = late.found();
            joined.1.push(format!("machine {name} too: {}", finding.text));
            finding.machines.insert(name, (dwell, verdict));
            finding.had += 1;
            finding.emptied = None;
            joined.0.push(late.found());
        } else if crowd.machines >= TOGETHER_MIN && late.slowness.is_some_and(|times| times >= SLOWER) {
            self.find(&[late], Cause::Slow, moment, news);
        } else if crowd.has_common_cause(crowd.late) {
            let same = lates.iter().filter(|other| other.machine.config_type == config_type);
            let same: Vec<_> = same.filter(|other| !self.has(other)).collect();
            let cause = if same.len() < 2 { Cause::Own } else { Cause::Together };
            self.find(&same, cause, moment, news);
        } else if crowd.has_common_cause(crowd.soon) && late.may_get_company() {
            // In some seconds it shows: a finding of its own, or one with the others.
        } else {
            self.find(&[late], Cause::Own, moment, news);
        }
    }

    fn has(&self, late: &Judged<'_>) -> bool {
        let is_it = |finding: &Finding| {
            let found = finding.machines.get(late.machine.name);
            found.is_some_and(|(dwell, _)| *dwell == late.machine.dwell())
        };
        self.findings.iter().any(is_it)
    }

    /// A new finding.
    fn find(&mut self, lates: &[&Judged<'_>], cause: Cause, moment: Moment, news: &mut Vec<News>) {
        let Some(first) = lates.iter().max_by_key(|late| late.stay) else {
            return;
        };
        let is_alive = lates.iter().any(|late| late.verdict == Verdict::Stuck);
        let verdict = if is_alive { Verdict::Stuck } else { Verdict::Silent };
        let names: Vec<Box<str>> = lates.iter().map(|late| late.machine.name.into()).collect();
        let state = first.machine.state.unwrap_or_default();
        let why = why(first, lates.len(), cause);
        let told = Told {
            kind: NoticeKind::Found(verdict),
            machines: &names,
            config_type: first.machine.config_type,
            state,
            stay: first.stay,
            usual: first.usual.as_ref(),
            limit: Some(first.limit),
            why: &why,
        };
        let since = rfc3339(moment.epoch - first.stay.as_secs_f64());
        let config_type = type_text(first.machine.config_type);
        let who = match &names[..] {
            [name] => format!("machine {name} ({config_type}) is"),
            names => format!("{} ({config_type}) are", count(names.len(), "machine")),
        };
        let subject = if cause == Cause::Own {
            first.machine.name.to_owned()
        } else {
            config_type
        };
        let text = format!("{who} {}: in {state:?} since {since}; {why}", verdict.name());
        self.numbered += 1;
        news.push(News::Found {
            id: self.numbered,
            machines: lates.iter().map(|late| late.found()).collect(),
            notice: Notice::new(&told, moment.epoch),
            text: text.clone(),
        });
        let with_stay = |late: &&Judged<'_>| (late.machine.name.into(), (late.machine.dwell(), late.verdict));
        self.findings.push(Finding {
            id: self.numbered,
            verdict,
            config_type: first.machine.config_type.map(Into::into),
            state: state.into(),
            machines: lates.iter().map(with_stay).collect(),
            had: lates.len(),
            first: first.machine.name.into(),
            emptied: None,
            found: moment.now,
            is_told: false,
            since: first.since,
            usual: first.usual,
            limit: first.limit,
            cause,
            subject,
            text,
        });
    }

    /// Machines that were silent show life: they are stuck.
    fn revive(&mut self, revived: Vec<Found>, news: &mut Vec<News>) {
        if revived.is_empty() {
            return;
        }
        for (name, dwell, verdict) in &revived {
            for finding in &mut self.findings {
                if let Some(found) = finding.machines.get_mut(name)
                    && found.0 == *dwell
                {
                    found.1 = *verdict;
                    if finding.verdict == Verdict::Silent {
                        finding.verdict = Verdict::Stuck;
                        finding.text = finding.text.replacen(" silent: ", " stuck: ", 1).replace(NO_LIFE, LIFE);
                    }
                }
            }
        }
        news.push(News::Noted {
            machines: revived,
            texts: Vec::new(),
        });
    }

    /// Lets go of machines that have moved, and of findings that have none left.
    fn look_what_is_over(&mut self, survey: &Survey, moment: Moment) -> Vec<News> {
        if self.findings.is_empty() {
            return Vec::new();
        }
        let now: BTreeMap<&str, Surveyed<'_>> = survey.machines().map(|machine| (machine.name, machine)).collect();
        let (mut news, mut standing) = (Vec::new(), Vec::new());
        for mut finding in self.findings.drain(..) {
            finding
                .machines
                .retain(|name, (dwell, _)| now.get(&**name).is_some_and(|machine| machine.dwell() == *dwell));
            if !finding.machines.is_empty() {
                standing.push(finding);
                continue;
            }
            let emptied = *finding.emptied.get_or_insert(moment.now);
            let lasts = moment.now.saturating_duration_since(emptied) < SLOW_LASTS;
            if finding.cause == Cause::Slow && lasts && is_slow_still(&finding, survey) {
                standing.push(finding);
            } else {
                news.push(over(&finding, now.get(&*finding.first), moment));
            }
        }
        self.findings = standing;
        news
    }

    /// A machine with its limit, if it has one and may be judged.
    fn judged<'a>(
        &self,
        machine: Surveyed<'a>,
        usuals: &Usuals<'_>,
        declared: &Declared,
        now: Instant,
    ) -> Option<Judged<'a>> {
        let is_known = machine.event().is_some_and(|event| event >= self.started);
        if !is_known && !machine.lives() {
            return None;
        }
        let known = usuals.get(&machine);
        let usual = known.map(|(usual, _)| *usual);
        let limit = limit(declared, machine.config_type, machine.state?, usual.as_ref())?;
        let since = machine.since.max(self.judged_from);
        let is_heard = machine.event().is_some_and(|event| {
            let ago = now.saturating_duration_since(event);
            event > since && ago <= limit.after / ALIVE_WITHIN
        });
        Some(Judged {
            since,
            stay: now.saturating_duration_since(since),
            limit,
            usual: usual.filter(|usual| usual.n > 0),
            verdict: if is_heard || machine.lives() {
                Verdict::Stuck
            } else {
                Verdict::Silent
            },
            slowness: known.and_then(|(_, times)| *times),
            machine,
        })
    }
}

/// What is usual of each state of a survey that some machine is in, found once for all of them.
struct Usuals<'a> {
    states: &'a [Arc<State>],
    usuals: Vec<Option<(Usual, Option<f64>)>>,
}

impl<'a> Usuals<'a> {
    fn of(survey: &'a Survey) -> Usuals<'a> {
        let states = survey.learned();
        let mut usuals = vec![None; states.len()];
        for machine in survey.machines() {
            if let Some(place) = find(states, machine.who(), machine.state.unwrap_or_default()) {
                usuals[place].get_or_insert_with(|| figures(&states[place]));
            }
        }
        Usuals { states, usuals }
    }

    fn get(&self, machine: &Surveyed<'_>) -> Option<&(Usual, Option<f64>)> {
        let place = find(self.states, machine.who(), machine.state?)?;
        self.usuals[place].as_ref()
    }
}

/// What is usual of a state, and how many times the usual its last dwells took, if that is known.
fn figures(state: &State) -> (Usual, Option<f64>) {
    let usual = state.usual();
    let of_usual = |dwell: Duration| dwell.as_secs_f64() / usual.median.as_secs_f64().max(1e-6);
    let recent = state.recent().filter(|_| usual.n >= STUCK_DWELLS_MIN);
    let times = recent.filter(|(quartile, _)| of_usual(*quartile) >= MOST_SLOWER);
    let times = times.map(|(_, median)| of_usual(median));
    (usual, times)
}

/// The state of a slow finding takes longer than usual still.
fn is_slow_still(finding: &Finding, survey: &Survey) -> bool {
    let of_it =
        |state: &&Arc<State>| state.of.config_type() == finding.config_type.as_deref() && state.name == finding.state;
    let has_machines = survey
        .machines()
        .any(|machine| machine.config_type == finding.config_type.as_deref());
    let state = survey.learned().iter().find(of_it);
    has_machines && state.is_some_and(|state| figures(state).1.is_some_and(|times| times >= SLOWER_NO_MORE))
}

fn over(finding: &Finding, machine: Option<&Surveyed<'_>>, moment: Moment) -> News {
    let moved = finding.emptied.unwrap_or(moment.now);
    // The next stay of a machine says when that one ended.
    let moved = machine.map_or(moved, |machine| machine.since.clamp(finding.since, moved));
    let stay = moved.saturating_duration_since(finding.since);
    let (state, took) = (&finding.state, show_seconds(stay));
    let config_type = type_text(finding.config_type.as_deref());
    let (text, why) = match (finding.had, machine.and_then(|machine| machine.state)) {
        (1, Some(now)) => {
            let why = format!("it is in {now:?} now");
            let first = &finding.first;
            (
                format!("machine {first} moves again after {took} in {state:?}; {why}"),
                why,
            )
        }
        (1, None) => {
            let why = "it is gone: it ended, was forgotten, or left the table".to_owned();
            (
                format!("machine {} stayed {took} in {state:?}; {why}", finding.first),
                why,
            )
        }
        (had, _) => {
            let who = format!("{} of {config_type}", count(had, "machine"));
            let why = "all of them have moved or are gone".to_owned();
            (format!("{who} move again after {took} in {state:?}; {why}"), why)
        }
    };
    let names = std::slice::from_ref(&finding.first);
    let told = Told {
        kind: NoticeKind::MovesAgain,
        machines: if finding.had == 1 { names } else { &[] },
        config_type: finding.config_type.as_deref(),
        state: &finding.state,
        stay,
        usual: finding.usual.as_ref(),
        limit: Some(finding.limit),
        why: &why,
    };
    News::Over {
        notice: Notice::new(&told, moment.epoch),
        text,
    }
}

/// Why a machine counts as stuck or silent, for people.
fn why(late: &Judged<'_>, machines: usize, cause: Cause) -> String {
    let usual = late
        .usual
        .map_or("nothing is known of its usual time".to_owned(), |usual| {
            format!(
                "usually {} there (99 of 100 within {}, of {})",
                show_seconds(usual.median),
                show_seconds(usual.p99),
                count(usual.n as usize, "dwell")
            )
        });
    let limit = format!("limit {}: {}", show_seconds(late.limit.after), late.limit.source.text());
    let life = match late.verdict {
        Verdict::Stuck => LIFE,
        Verdict::Silent => NO_LIFE,
    };
    match cause {
        Cause::Own => format!("{usual}; {limit}; {life}"),
        Cause::Together => format!(
            "{machines} machines, over half of their type, passed their limits within {} s: look for a common cause; \
             {usual}; {limit}",
            TOGETHER.as_secs()
        ),
        Cause::Slow => format!(
            "the last dwells in that state took {:.1} times the usual, so all of that type are slow: look for a common \
             cause; {usual}; {limit}",
            late.slowness.unwrap_or_default()
        ),
    }
}

fn type_text(config_type: Option<&str>) -> String {
    config_type.map_or("no known type".to_owned(), |name| format!("type {name}"))
}

/// A time as a person reads it: to the tenth of a second below a minute, else in its two largest units.
fn show_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests;
