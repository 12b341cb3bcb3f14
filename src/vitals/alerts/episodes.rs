//! Which reasons last: what is new begins an alert, what is gone ends one.

use super::alert::Alert;
use crate::vitals::reason::{Kind, Reason};
use std::collections::BTreeMap;
use std::time::Instant;

/// Reasons that are followed at a time; those beyond raise no alert until others are over. `/health` has far fewer.
const EPISODES_MAX: usize = 1024;

/// The reasons that last.
#[derive(Debug, Default)]
pub(super) struct Episodes(BTreeMap<(Kind, String), Episode>);

#[derive(Debug)]
struct Episode {
    begun: Instant,
    /// The newest text of the reason.
    text: String,
    is_there: bool,
}

impl Episodes {
    /// Compares the reasons of now with those before. Returns the alerts that begin, in their order, behind those that
    /// end. `time` is `now` by the wall clock, in seconds since the epoch.
    pub(super) fn turn(&mut self, reasons: &[Reason], now: Instant, time: f64) -> Vec<Alert> {
        self.0.values_mut().for_each(|episode| episode.is_there = false);
        let mut begin = Vec::new();
        for reason in reasons {
            let Some(kind) = reason.kind.alert() else { continue };
            let key = (reason.kind, reason.subject.clone());
            if let Some(episode) = self.0.get_mut(&key) {
                episode.is_there = true;
                episode.text.clone_from(&reason.text);
            } else if self.0.len() < EPISODES_MAX {
                let episode = Episode {
                    begun: now,
                    text: reason.text.clone(),
                    is_there: true,
                };
                self.0.insert(key, episode);
                begin.push(Alert {
                    kind,
                    subject: reason.subject.clone(),
                    text: reason.text.clone(),
                    lasted: None,
                    time,
                });
            }
        }
        let gone = self.0.extract_if(.., |_, episode| !episode.is_there);
        let ended = gone.filter_map(|((kind, subject), episode)| {
            Some(Alert {
                kind: kind.alert()?,
                text: format!("it is over; it was: {}", episode.text),
                subject,
                lasted: Some(now.saturating_duration_since(episode.begun)),
                time,
            })
        });
        ended.chain(begin).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn reason(kind: Kind, subject: &str, text: &str) -> Reason {
        Reason {
            kind,
            subject: subject.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_reason_begins_and_ends_one_alert_however_its_text_changes() {
        let (mut episodes, begun) = (Episodes::default(), Instant::now());
        let mut turn = |seconds: u64, reasons: &[Reason]| -> Vec<String> {
            let alerts = episodes.turn(reasons, begun + Duration::from_secs(seconds), 0.0);
            let said = |alert: &Alert| format!("{alert}: {} {:?}", alert.text, alert.lasted.map(|time| time.as_secs()));
            alerts.iter().map(said).collect()
        };
        let late = reason(Kind::Other, "fanout", "fanout is late");
        assert_eq!(turn(0, std::slice::from_ref(&late)), [""; 0]);
        let hung = |text| reason(Kind::Hung, "fanout", text);
        assert_eq!(turn(1, &[hung("for 3 s")]), ["hung of fanout begins: for 3 s None"]);
        assert_eq!(turn(2, &[hung("for 4 s"), late]), [""; 0]);
        let journal = reason(Kind::JournalFailed, "journal", "full");
        assert_eq!(
            turn(6, std::slice::from_ref(&journal)),
            [
                "hung of fanout ends: it is over; it was: for 4 s Some(5)",
                "journal_failed of journal begins: full None"
            ]
        );
        assert_eq!(
            turn(7, &[journal, hung("for 3 s")]),
            ["hung of fanout begins: for 3 s None"]
        );
        assert_eq!(turn(8, &[]).len(), 2);
        assert_eq!(turn(9, &[]), [""; 0]);
    }

    #[test]
    fn a_flood_of_reasons_is_followed_as_far_as_there_is_room() {
        let (mut episodes, now) = (Episodes::default(), Instant::now());
        let reasons: Vec<Reason> = (0..2000).map(|n| reason(Kind::Stuck, &n.to_string(), "")).collect();
        assert_eq!(episodes.turn(&reasons, now, 0.0).len(), EPISODES_MAX);
        assert_eq!(episodes.turn(&reasons, now, 0.0).len(), 0);
        assert_eq!(episodes.turn(&[], now, 0.0).len(), EPISODES_MAX);
    }
}
