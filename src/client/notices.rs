//! The messages to one client about components that hang.
//!
//! The watchdog writes its verdicts into the beats; each client's own thread reads them there. So a component that
//! hangs cannot keep it from being told, and the watchdog does nothing for it that could take time.

use crate::liveness::beat::{Beat, Verdict};
use crate::liveness::beats::Beats;
use crate::stream::protocol::v1;

/// What a client knows of hangs. It hears nothing of other clients' threads: they are no part of the server to it.
#[derive(Debug)]
pub struct Notices {
    beats: &'static Beats,
    /// [`Beats::changes`] when it was last looked.
    seen: u64,
    /// Each component of which it knows a hang, and which one.
    told: Vec<(&'static Beat, u32)>,
}

impl Notices {
    /// It knows of none yet.
    pub fn new(beats: &'static Beats) -> Notices {
        Notices {
            beats,
            seen: 0,
            told: Vec::new(),
        }
    }

    /// The messages of `threadcast.v1` for what has changed since the last call; one load when nothing has. A hang that
    /// began and ended meanwhile is not told. Waits for nobody.
    pub fn news(&mut self) -> Vec<String> {
        let changes = self.beats.changes();
        if changes == std::mem::replace(&mut self.seen, changes) {
            return Vec::new();
        }
        let mut news = Vec::new();
        self.told.retain(|(beat, number)| {
            let lasts = beat.hang().is_some_and(|(now, _)| now == *number);
            if !lasts {
                news.push(v1::recovered(&beat.name(), beat.last_hang()));
            }
            lasts
        });
        for beat in self.beats.permanent() {
            let Some((number, still)) = beat.hang() else {
                continue;
            };
            if !self.told.iter().any(|(told, _)| std::ptr::eq(*told, beat)) {
                self.told.push((beat, number));
                let operation = beat.sight().text();
                news.push(v1::stall(&beat.name(), Verdict::Hung.name(), &operation, still));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::beats::tests::{beats, judge};

    fn kinds(news: &[String]) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let read = |news: &String| serde_json::from_str::<serde_json::Value>(news).unwrap();
        let kinds = news.iter().map(read);
        kinds
            .map(|news| (text(&news["type"]), text(&news["component"])))
            .collect()
    }

    #[test]
    fn a_hang_is_told_once_and_so_is_its_end() {
        let beats = beats();
        let (mut early, fanout) = (Notices::new(beats), beats.fanout);
        assert!(early.news().is_empty());
        judge(beats, fanout, Verdict::Late, 5);
        assert!(early.news().is_empty(), "late is no hang");
        judge(beats, fanout, Verdict::Hung, 15);
        let stall = [("stall".to_owned(), "fanout".to_owned())];
        assert_eq!(kinds(&early.news()), stall);
        judge(beats, fanout, Verdict::Hung, 16);
        assert!(early.news().is_empty());
        let mut late = Notices::new(beats);
        assert_eq!(kinds(&late.news()), stall, "who comes later is told as well");
        judge(beats, fanout, Verdict::Alive, 0);
        let end = r#"{"type":"recovered","component":"fanout","seconds":16.0}"#;
        for notices in [&mut early, &mut late] {
            assert_eq!(notices.news(), [end]);
            assert!(notices.news().is_empty());
        }
    }

    #[test]
    fn a_second_hang_that_follows_unseen_is_another_one() {
        let beats = beats();
        let (mut notices, files) = (Notices::new(beats), beats.files);
        judge(beats, files, Verdict::Hung, 15);
        assert_eq!(notices.news().len(), 1);
        judge(beats, files, Verdict::Alive, 0);
        judge(beats, files, Verdict::Hung, 15);
        let both = ["recovered", "stall"].map(|kind| (kind.to_owned(), "files".to_owned()));
        assert_eq!(kinds(&notices.news()), both);
        judge(beats, files, Verdict::Alive, 0);
        judge(beats, files, Verdict::Hung, 15);
        judge(beats, files, Verdict::Alive, 0);
        assert_eq!(kinds(&notices.news()), both[..1]);
    }
}
