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
use std::collections::BTreeMap;
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
/// A machine is alive if an event came from it within this part of its limit.
const ALIVE_WITHIN: u32 = 2;

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    /// Seconds since the epoch.
    pub epoch: f64,
}

/// A finding that stands.
#[derive(Debug)]
pub struct Finding {
    pub verdict: Verdict,
    pub config_type: Option<Box<str>>,
    pub state: Box<str>,
    /// Its machines that have not moved since, each with its dwell. Empty only while a type is slow.
    machines: BTreeMap<Box<str>, u64>,
    /// How many it has had.
    had: usize,
    /// The first of them.
    first: Box<str>,
    /// When the last of them was seen to have moved.
    emptied: Option<Instant>,
    /// The machine; of several, what they have in common.
    pub subject: String,
    /// When the stay of its first machine began.
    since: Instant,
    usual: Option<Usual>,
    limit: Option<Limit>,
    cause: Cause,
    /// What was found, for people.
    pub text: String,
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
    /// Machines stay too long, each with its dwell. Not to be told again.
    Found {
        machines: Vec<(Box<str>, u64, Verdict)>,
        notice: Notice,
        text: String,
    },
    /// These stay too long too, for a reason that was told already.
    Joined { machines: Vec<(Box<str>, u64, Verdict)> },
    /// What was found is over.
    Over { notice: Notice, text: String },
}

/// A machine over its limit.
struct Late<'a> {
    machine: Surveyed<'a>,
    stay: Duration,
    limit: Limit,
    usual: Option<Usual>,
    verdict: Verdict,
    slowness: Option<f64>,
}

impl Late<'_> {
    /// Returns whether it passed its limit within [`TOGETHER`], or will do if it does not move.
    fn is_near_its_limit(&self) -> bool {
        self.stay.saturating_add(TOGETHER) >= self.limit.after && self.stay <= self.limit.after.saturating_add(TOGETHER)
    }

    fn found(&self) -> (Box<str>, u64, Verdict) {
        (self.machine.name.into(), self.machine.dwell(), self.verdict)
    }
}

/// What is counted of a type at one look.
#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    machines: usize,
    /// Those over their limit, found earlier or now, whose limit passed within [`TOGETHER`].
    late: usize,
    /// These, and those that will be within [`TOGETHER`] if they do not move.
    soon: usize,
}

impl Crowd {
    fn has_common_cause(&self, machines: usize) -> bool {
        machines >= TOGETHER_MIN && 2 * machines > self.machines
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Judge {
    findings: Vec<Finding>,
}

impl Judge {
    /// The findings that stand.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Machines that are stuck now, and those that are silent.
    pub fn counts(&self) -> (usize, usize) {
        let count = |verdict| -> usize {
            let of_it = self.findings.iter().filter(|finding| finding.verdict == verdict);
            of_it.map(|finding| finding.machines.len()).sum()
        };
        (count(Verdict::Stuck), count(Verdict::Silent))
    }

    /// Judges a survey. With `judges` false nothing new is found; what is over is over.
    pub fn look(&mut self, survey: &Survey, declared: &Declared, moment: Moment, judges: bool) -> Vec<News> {
        let mut news = self.look_what_is_over(survey, moment);
        if !judges {
            return news;
        }
        let usuals = Usuals::of(survey);
        let (mut crowds, mut lates) = (BTreeMap::<Option<&str>, Crowd>::new(), Vec::new());
        for machine in survey.machines() {
            let crowd = crowds.entry(machine.config_type).or_default();
            crowd.machines += 1;
            let Some(late) = judged(machine, &usuals, declared, moment.now) else {
                continue;
            };
            let is_late = late.stay >= late.limit.after;
            if late.is_near_its_limit() {
                crowd.soon += 1;
                crowd.late += usize::from(is_late);
            }
            if is_late && machine.verdict().is_none() {
                lates.push(late);
            }
        }
        for late in &lates {
            let crowd = crowds.get(&late.machine.config_type).copied().unwrap_or_default();
            self.take(late, &lates, crowd, moment, &mut news);
        }
        news
    }

    /// Takes in a machine that is over its limit.
    fn take(&mut self, late: &Late<'_>, lates: &[Late<'_>], crowd: Crowd, moment: Moment, news: &mut Vec<News>) {
        let config_type = late.machine.config_type;
        let is_taken = |finding: &Finding| finding.machines.get(late.machine.name) == Some(&late.machine.dwell());
        if self.findings.iter().any(is_taken) {
            return;
        }
        let common = self.findings.iter_mut().find(|finding| {
            finding.cause != Cause::Own
                && finding.config_type.as_deref() == config_type
                && (finding.cause == Cause::Together || Some(&*finding.state) == late.machine.state)
        });
        if let Some(finding) = common {
            finding.machines.insert(late.machine.name.into(), late.machine.dwell());
            finding.had += 1;
            finding.emptied = None;
            news.push(News::Joined {
                machines: vec![late.found()],
            });
        } else if crowd.machines >= TOGETHER_MIN && late.slowness.is_some_and(|times| times >= SLOWER) {
            self.find(&[late], Cause::Slow, moment, news);
        } else if crowd.has_common_cause(crowd.late) {
            let same = lates.iter().filter(|other| other.machine.config_type == config_type);
            self.find(&same.collect::<Vec<_>>(), Cause::Together, moment, news);
        } else if crowd.has_common_cause(crowd.soon) && late.is_near_its_limit() {
            // In some seconds it shows: a finding of its own, or one with the others.
        } else {
            self.find(&[late], Cause::Own, moment, news);
        }
    }

    /// A new finding.
    fn find(&mut self, lates: &[&Late<'_>], cause: Cause, moment: Moment, news: &mut Vec<News>) {
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
        let (subject, who) = match &names[..] {
            [name] if cause == Cause::Own => (name.to_string(), format!("machine {name} ({config_type}) is")),
            [name] => (config_type.clone(), format!("machine {name} ({config_type}) is")),
            names => {
                let who = format!("{} ({config_type}) are", count(names.len(), "machine"));
                (config_type, who)
            }
        };
        let text = format!("{who} {}: in {state:?} since {since}; {why}", verdict.name());
        news.push(News::Found {
            machines: lates.iter().map(|late| late.found()).collect(),
            notice: Notice::new(&told, moment.epoch),
            text: text.clone(),
        });
        self.findings.push(Finding {
            verdict,
            config_type: first.machine.config_type.map(Into::into),
            state: state.into(),
            machines: lates
                .iter()
                .map(|late| (late.machine.name.into(), late.machine.dwell()))
                .collect(),
            had: lates.len(),
            first: first.machine.name.into(),
            emptied: None,
            subject,
            since: first.machine.since,
            usual: first.usual,
            limit: Some(first.limit),
            cause,
            text,
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
                .retain(|name, dwell| now.get(&**name).is_some_and(|machine| machine.dwell() == *dwell));
            let is_slow = finding.cause == Cause::Slow && is_slow_still(&finding, survey);
            if finding.machines.is_empty() {
                finding.emptied.get_or_insert(moment.now);
            }
            if finding.machines.is_empty() && !is_slow {
                news.push(over(&finding, now.get(&*finding.first), moment));
            } else {
                standing.push(finding);
            }
        }
        self.findings = standing;
        news
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
    let slowness = state.recent_median().filter(|_| usual.n >= STUCK_DWELLS_MIN);
    let times = slowness.map(|recent| recent.as_secs_f64() / usual.median.as_secs_f64().max(1e-6));
    (usual, times)
}

/// A machine with its limit, if it has one: over it, or not.
fn judged<'a>(machine: Surveyed<'a>, usuals: &Usuals<'_>, declared: &Declared, now: Instant) -> Option<Late<'a>> {
    let known = usuals.get(&machine);
    let usual = known.map(|(usual, _)| *usual);
    let limit = limit(declared, machine.config_type, machine.state?, usual.as_ref())?;
    let is_heard = machine.event().is_some_and(|event| {
        let ago = now.saturating_duration_since(event);
        event > machine.since && ago <= limit.after / ALIVE_WITHIN
    });
    Some(Late {
        stay: now.saturating_duration_since(machine.since),
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

/// The state of a slow finding takes longer than usual still.
fn is_slow_still(finding: &Finding, survey: &Survey) -> bool {
    let of_it =
        |state: &&Arc<State>| state.of.config_type() == finding.config_type.as_deref() && state.name == finding.state;
    let state = survey.learned().iter().find(of_it);
    state.is_some_and(|state| figures(state).1.is_some_and(|times| times >= SLOWER_NO_MORE))
}

fn over(finding: &Finding, machine: Option<&Surveyed<'_>>, moment: Moment) -> News {
    let moved = finding.emptied.unwrap_or(moment.now);
    let stay = moved.saturating_duration_since(finding.since);
    let why = match (finding.had, machine.and_then(|machine| machine.state)) {
        (1, Some(state)) => format!("it is in {state:?} now"),
        (1, None) => "it ended or was forgotten".to_owned(),
        (_, _) => "all of them have moved".to_owned(),
    };
    let names = std::slice::from_ref(&finding.first);
    let names = if finding.had == 1 { names } else { &[] };
    let told = Told {
        kind: NoticeKind::MovesAgain,
        machines: names,
        config_type: finding.config_type.as_deref(),
        state: &finding.state,
        stay,
        usual: finding.usual.as_ref(),
        limit: finding.limit,
        why: &why,
    };
    let subject = if finding.had == 1 {
        format!("machine {} moves", finding.first)
    } else {
        let of = type_text(finding.config_type.as_deref());
        format!("{} of {of} move", count(finding.had, "machine"))
    };
    let text = format!(
        "{subject} again after {} in {:?}; {why}",
        show_seconds(stay),
        finding.state
    );
    News::Over {
        notice: Notice::new(&told, moment.epoch),
        text,
    }
}

/// Why a machine counts as stuck or silent, for people.
fn why(late: &Late<'_>, machines: usize, cause: Cause) -> String {
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
        Verdict::Stuck => "it is alive",
        Verdict::Silent => "there is no sign of life",
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
