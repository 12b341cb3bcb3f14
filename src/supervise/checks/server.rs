//! What the server says of machines: which are stuck or silent, and when their newest events came.

use crate::process::address::ServerAddress;
use crate::supervise::checks::sight::{Figure, Kind, Sight, in_words};
use crate::supervise::probe;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Asks for the machines that match `globs`. Blocks for `timeout`, and on a name server.
///
/// # Errors
/// There is no answer, or it has no list of machines.
pub(super) fn machines(url: &ServerAddress, globs: &str, timeout: Duration) -> Result<Vec<Value>, String> {
    let mut target = String::from("/api/machines?machine=");
    for byte in globs.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~*?,".contains(&byte) && byte != b'?' {
            target.push(byte.into());
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    let body = probe::get(&url.authority, &target, timeout)?;
    let mut document: Value =
        serde_json::from_slice(&body).map_err(|_| format!("{} gave no list of machines", url.authority))?;
    match document["machines"].take() {
        Value::Array(machines) => Ok(machines),
        _ => Err(format!("{} gave no list of machines", url.authority)),
    }
}

fn seconds(machine: &Value, key: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(machine[key].as_f64()?).ok()
}

/// Judges machines by the server's verdicts. A stay that began before `since` counts from then on.
pub(super) fn judge_verdicts(
    machines: &[Value],
    (name, stuck, silent): (&str, bool, bool),
    (since, now): (Instant, Instant),
) -> Sight {
    let waited = now.saturating_duration_since(since);
    for machine in machines {
        let verdict = machine["verdict"].as_str().unwrap_or_default();
        if !(stuck && verdict == "stuck" || silent && verdict == "silent") {
            continue;
        }
        let stay = seconds(machine, "state_seconds").unwrap_or(waited);
        let limit = seconds(machine, "limit_seconds").unwrap_or_default();
        if stay.min(waited) > limit {
            let text = format!(
                "{} is {verdict} in {} for {}; usual is at most {}",
                machine["machine_name"].as_str().unwrap_or(name),
                machine["current_state"].as_str().unwrap_or("its state"),
                in_words(stay),
                in_words(limit)
            );
            return Sight::new(Kind::Failing, text);
        }
        return Sight::new(Kind::Open, format!("{name} has not moved since the start"));
    }
    match machines {
        [] => Sight::new(Kind::Open, format!("the server knows no machine {name}")),
        _ => Sight::new(Kind::Well, "not in trouble"),
    }
}

/// What is known of events from the looks before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EventMemo {
    newest: Option<Instant>,
    /// The server does not answer since the last look: what it did not hear does not count.
    was_away: bool,
    answers_since: Option<Instant>,
}

impl EventMemo {
    /// The server has not answered.
    pub(super) fn miss(&mut self) {
        self.was_away = true;
    }

    /// Judges the newest event of these machines.
    pub(super) fn judge(
        &mut self,
        machines: &[Value],
        (name, max_age): (&str, Duration),
        (since, now): (Instant, Instant),
    ) -> Sight {
        if std::mem::take(&mut self.was_away) {
            self.answers_since = Some(now);
        }
        let ages = machines
            .iter()
            .filter_map(|machine| seconds(machine, "last_event_seconds"));
        let newest = ages.min().and_then(|age| now.checked_sub(age));
        self.newest = self.newest.max(newest);
        let from = since.max(self.answers_since.unwrap_or(since));
        let waited = now.saturating_duration_since(from);
        let real = self.newest.map(|newest| now.saturating_duration_since(newest));
        let kind = match self.newest {
            _ if real.unwrap_or(waited).min(waited) > max_age => Kind::Failing,
            Some(newest) if newest >= since => Kind::Well,
            _ => Kind::Open,
        };
        let text = match real {
            Some(real) => format!("the newest event of {name} is {} old", in_words(real)),
            None => format!("the server has no event of {name} in {}", in_words(waited)),
        };
        let figure = Figure {
            age: real,
            ..Figure::default()
        };
        Sight::new(kind, text).with(figure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(begun: Instant, second: u64) -> (Instant, Instant) {
        (begun, begun + Duration::from_secs(second))
    }

    #[test]
    fn a_stay_of_before_the_start_is_not_the_new_processs_fault() {
        let begun = Instant::now();
        let stuck = [
            json!({"machine_name": "w", "current_state": "working", "verdict": "stuck",
                            "state_seconds": 500.0, "limit_seconds": 30.0}),
        ];
        let judge = |machines: &[Value], second, wants: (bool, bool)| {
            judge_verdicts(machines, ("w", wants.0, wants.1), at(begun, second)).kind
        };
        assert_eq!(judge(&stuck, 10, (true, true)), Kind::Open);
        assert_eq!(judge(&stuck, 31, (true, true)), Kind::Failing);
        assert_eq!(judge(&stuck, 31, (false, true)), Kind::Well);
        assert_eq!(judge(&[json!({"verdict": "ok"})], 31, (true, true)), Kind::Well);
        assert_eq!(judge(&[], 31, (true, true)), Kind::Open);
        let text = judge_verdicts(&stuck, ("w", true, false), at(begun, 600)).text;
        assert_eq!(text, "w is stuck in working for 8 min; usual is at most 30 s");
    }

    #[test]
    fn a_heartbeat_counts_only_while_the_server_answers() {
        let (begun, mut memo) = (Instant::now(), EventMemo::default());
        let heard = |age: f64| [json!({"last_event_seconds": age})];
        let judge = |memo: &mut EventMemo, machines: &[Value], second| {
            memo.judge(machines, ("w", Duration::from_secs(10)), at(begun, second))
                .kind
        };
        assert_eq!(judge(&mut memo, &heard(500.0), 5), Kind::Open, "an event of before");
        assert_eq!(judge(&mut memo, &heard(506.0), 11), Kind::Failing);
        assert_eq!(judge(&mut memo, &heard(1.0), 12), Kind::Well);
        memo.miss();
        assert_eq!(judge(&mut memo, &[], 30), Kind::Well, "nobody knows what was missed");
        assert_eq!(judge(&mut memo, &[], 41), Kind::Failing);
    }
}
