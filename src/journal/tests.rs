//! Recovery, and the thread as a whole, over real files.

use super::*;
use crate::journal::segments::{list, segment_name};
use crate::liveness::beats::tests::beats;
use crate::process::threads::ThreadHandle;
use crate::stream::batch::BatchBuilder;
use crate::stream::history::Past;
use serde_json::Value;
use std::ops::Range;

const LIMITS: Limits = Limits {
    segment_bytes: 1024 * 1024,
    segment_age: Duration::from_secs(3600),
    keep_bytes: 1024 * 1024 * 1024,
    keep_age: Duration::from_secs(3600),
};
const HISTORY_BYTES: usize = 1024 * 1024;
/// When the lines of the tests were written.
const TIME: f64 = 1_795_393_480.5;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn epoch() -> Epoch {
    "0123456789abcdef".parse().unwrap()
}

/// Lines of a segment.
#[derive(Default)]
struct Text(Vec<u8>);

impl Text {
    fn head(mut self, first: Seq) -> Text {
        line::put_head(&mut self.0, epoch(), first, TIME);
        self
    }

    fn events(mut self, numbers: Range<Seq>) -> Text {
        for seq in numbers {
            let payload = format!("{{\"type\":\"t\",\"machine_name\":\"m\",\"n\":{seq}}}");
            line::put_event(&mut self.0, seq, &json_seconds(TIME), None, payload.as_bytes());
        }
        self
    }

    fn end(mut self, seq: Seq) -> Text {
        line::put_end(&mut self.0, seq, TIME);
        self
    }

    fn raw(mut self, text: &str) -> Text {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn save(self, folder: &tempfile::TempDir, first: Seq) -> Vec<u8> {
        fs::write(folder.path().join(segment_name(first)), &self.0).unwrap();
        self.0
    }
}

fn recovered(folder: &tempfile::TempDir, after_seconds: f64) -> Recovered {
    recover(folder.path(), HISTORY_BYTES, TIME + after_seconds).unwrap()
}

/// What is in the history: numbers of events, and losses with their causes.
fn content(history: &History) -> Vec<String> {
    let Past::Batches { batches, .. } = history.after(history.reaches(), usize::MAX) else {
        panic!("everything is there");
    };
    let items = batches.iter().flat_map(|batch| batch.items());
    let shown = items.map(|item| match item {
        Item::Event(event) => {
            assert_eq!((event.machine, event.kind), (Some("m"), Some("t")));
            assert!(String::from_utf8_lossy(event.payload).ends_with(&format!("\"n\":{}}}", event.seq)));
            event.seq.to_string()
        }
        Item::Loss(loss) => format!("{}-{} {}", loss.from, loss.to, loss.cause),
    });
    shown.collect()
}

#[test]
fn an_empty_folder_begins_a_new_epoch_at_1() {
    let recovered = recovered(&folder(), 0.0);
    assert_eq!((recovered.history.newest(), recovered.history.reaches()), (0, 0));
    assert!(recovered.restart.is_none() && recovered.resumes.is_none());
    assert_ne!(recovered.epoch, epoch());
}

#[test]
fn after_an_ordered_end_numbers_go_on() {
    let folder = folder();
    Text::default().head(1).events(1..4).end(3).save(&folder, 1);
    // Whatever the clock says.
    for seconds in [1e6, -1e6] {
        let recovered = recovered(&folder, seconds);
        assert_eq!(recovered.epoch, epoch());
        assert!(recovered.restart.is_none());
        assert_eq!(recovered.resumes, Some(TIME));
        assert_eq!(content(&recovered.history), ["1", "2", "3"]);
    }
    // Losses at the end of a run have no line of their own.
    Text::default().head(1).events(1..4).end(9).save(&folder, 1);
    assert_eq!(
        content(&recovered(&folder, 0.0).history),
        ["1", "2", "3", "4-9 journal_damaged"]
    );
}

#[test]
fn after_any_other_end_numbers_skip_what_may_have_been_given() {
    let folder = folder();
    for text in [
        Text::default().head(1).events(1..4),
        // The next run began, and gave numbers perhaps.
        Text::default().head(1).events(1..4).end(3).head(4),
    ] {
        text.save(&folder, 1);
        let recovered = recovered(&folder, 2.0);
        let to = 3 + (1 << 32) + 2_000_000;
        let (loss, time) = recovered.restart.unwrap();
        assert_eq!((loss.from, loss.to, loss.count, time), (4, to, None, TIME + 2.0));
        assert_eq!(recovered.history.newest(), to);
        assert_eq!(recovered.epoch, epoch());
        assert_eq!(content(&recovered.history), ["1", "2", "3", &format!("4-{to} restart")]);
    }
}

#[test]
fn a_clock_that_was_wrong_begins_a_new_epoch_above_the_old_numbers() {
    let folder = folder();
    Text::default().head(1).events(1..4).save(&folder, 1);
    // Set back; and at 1970 when the last line was written.
    for seconds in [-1.0, TIME] {
        let recovered = recovered(&folder, seconds);
        assert_ne!(recovered.epoch, epoch());
        assert!(recovered.restart.is_none() && recovered.resumes.is_none());
        assert_eq!((recovered.history.reaches(), recovered.history.newest()), (3, 3));
    }
    // A server that was off for three months is no such case.
    assert_eq!(recovered(&folder, 90.0 * 86_400.0).epoch, epoch());
}

#[test]
fn a_torn_last_line_is_cut_off() {
    for torn in [
        "{\"seq\":4,\"time\":17",
        "{\"seq\":4,\"time\":1.5,\"event\":{}}",
        "\0\0\0\0\0\0",
        "\0\0\0\n",
        "x",
    ] {
        let folder = folder();
        let whole = Text::default().head(1).events(1..4).save(&folder, 1);
        Text(whole.clone()).raw(torn).save(&folder, 1);
        let recovered = recovered(&folder, 0.0);
        assert_eq!(content(&recovered.history)[..3], ["1", "2", "3"]);
        assert!(recovered.restart.is_some(), "{torn:?}");
        assert_eq!(fs::read(folder.path().join(segment_name(1))).unwrap(), whole);
    }
    // The end itself.
    let folder = folder();
    Text::default()
        .head(1)
        .events(1..3)
        .raw("{\"seq\":2,\"time\":1.5,\"end\":t")
        .save(&folder, 1);
    assert!(recovered(&folder, 0.0).restart.is_some());
}

#[test]
fn damage_in_the_middle_is_a_loss_and_stays_where_it_is() {
    let folder = folder();
    let text = Text::default()
        .head(1)
        .events(1..3)
        .raw("{\"seq\":3,\"ti#\n\n")
        .events(5..7);
    // Numbers that were there already, too.
    let text = text.events(5..6).end(6).save(&folder, 1);
    let recovered = recovered(&folder, 0.0);
    assert_eq!(content(&recovered.history), ["1", "2", "3-4 journal_damaged", "5", "6"]);
    assert!(recovered.restart.is_none());
    assert_eq!(fs::read(folder.path().join(segment_name(1))).unwrap(), text);
}

#[test]
fn numbers_and_times_that_nobody_gives_are_damage() {
    for line in [
        "{\"seq\":18446744073709551615,\"time\":1795393480.5,\"event\":{}}",
        "{\"seq\":3,\"to\":18446744073709551615,\"time\":1795393480.5,\"lost\":null,\"cause\":\"restart\"}",
        "{\"seq\":3,\"time\":-1e300,\"event\":{}}",
        "{\"journal\":1,\"epoch\":\"0123456789abcdef\",\"first\":18446744073709551615,\"time\":1.5}",
    ] {
        for is_clean in [true, false] {
            let folder = folder();
            let text = Text::default().head(1).events(1..3).raw(line).raw("\n").events(4..5);
            let text = if is_clean { text.end(4) } else { text };
            text.save(&folder, 1);
            fs::write(folder.path().join(segment_name(Seq::MAX)), "rubbish\n").unwrap();
            let recovered = recovered(&folder, 1.0);
            assert_eq!(recovered.epoch, epoch(), "{line}");
            assert_eq!(
                content(&recovered.history)[..4],
                ["1", "2", "3-3 journal_damaged", "4"],
                "{line}"
            );
        }
    }
    // As the last line, of which only the time counts.
    let folder = folder();
    Text::default()
        .head(1)
        .events(1..3)
        .raw("{\"seq\":2,\"time\":-1e300,\"end\":true}\n")
        .save(&folder, 1);
    assert!(recovered(&folder, 1.0).restart.is_some());
}

#[test]
fn files_without_a_line_are_no_obstacle() {
    let folder = folder();
    Text::default().head(1).events(1..4).end(3).save(&folder, 1);
    Text::default().save(&folder, 4);
    let recovered = recovered(&folder, 0.0);
    assert_eq!(content(&recovered.history), ["1", "2", "3"]);
    assert_eq!(list(folder.path()).unwrap().len(), 1);
    // Only rubbish: nobody knows what was given, so nothing is promised.
    let rubbish = tempfile::tempdir().unwrap();
    Text::default().raw("rubbish\nrubbish\n").save(&rubbish, 70);
    let recovered = super::recover(rubbish.path(), HISTORY_BYTES, TIME).unwrap();
    assert_ne!(recovered.epoch, epoch());
    assert_eq!(recovered.history.newest(), 69);
    assert!(recovered.resumes.is_none());
}

#[test]
fn several_segments_are_one_journal() {
    let folder = folder();
    Text::default().head(1).events(1..4).save(&folder, 1);
    Text::default().head(4).events(4..6).save(&folder, 4);
    // Somebody has removed the one between.
    Text::default().head(8).events(8..10).end(9).save(&folder, 8);
    let recovered = recovered(&folder, 0.0);
    assert_eq!(
        content(&recovered.history),
        ["1", "2", "3", "4", "5", "6-7 journal_damaged", "8", "9"]
    );
    assert_eq!(recovered.segments.len(), 3);
}

#[test]
fn only_as_much_is_read_as_the_history_holds() {
    let folder = folder();
    Text::default().head(1).events(1..60_000).save(&folder, 1);
    Text::default()
        .head(60_000)
        .events(60_000..60_002)
        .end(60_001)
        .save(&folder, 60_000);
    let recovered = recover(folder.path(), 10_000, TIME).unwrap();
    assert_eq!((recovered.epoch, recovered.history.newest()), (epoch(), 60_001));
    assert!(recovered.history.bytes() <= 10_000);
    let nothing = recover(folder.path(), 0, TIME).unwrap();
    assert_eq!((nothing.history.newest(), nothing.history.reaches()), (60_001, 60_001));
    // Of the first segment only the end fits; what is left out is no loss.
    let all = recover(folder.path(), 64 * HISTORY_BYTES, TIME).unwrap();
    assert_eq!(all.history.reaches(), 0);
    let part = recover(folder.path(), 3 * HISTORY_BYTES, TIME).unwrap();
    assert!(part.history.reaches() > 10_000, "{}", part.history.reaches());
    assert!(content(&part.history).iter().all(|item| !item.contains(' ')));
}

/// A journal with its thread.
struct Running {
    record: Record,
    gauges: Arc<JournalGauges>,
    stop: Stop,
    threads: [ThreadHandle<()>; 2],
}

fn opened(folder: &tempfile::TempDir, limits: Limits, stop: &Stop) -> Result<Opened, JournalError> {
    let beats = beats();
    let settings = JournalSettings {
        folder: folder.path().to_owned(),
        limits,
        history_bytes: HISTORY_BYTES,
    };
    Journal::open(&settings, beats.journal, beats.journal_sync, stop.clone())
}

fn run(journal: Journal, flusher: Flusher) -> [ThreadHandle<()>; 2] {
    [journal.start().unwrap(), flusher.start().unwrap()]
}

fn join(threads: [ThreadHandle<()>; 2]) {
    for thread in threads {
        thread.join_within(Duration::from_secs(30)).unwrap();
    }
}

impl Running {
    fn start(folder: &tempfile::TempDir, limits: Limits) -> Running {
        let stop = Stop::new().unwrap();
        let opened = opened(folder, limits, &stop).unwrap();
        let (record, gauges) = (opened.record, opened.gauges);
        let threads = run(opened.journal, opened.flusher);
        Running {
            record,
            gauges,
            stop,
            threads,
        }
    }

    /// Publishes so many events as one batch.
    fn publish(&mut self, events: usize) {
        let first = self.record.history.newest() + 1;
        let mut builder = BatchBuilder::new(first, events, 10 * events);
        for seq in first..first + events as u64 {
            builder.push(
                format!("{{\"type\":\"t\",\"machine_name\":\"m\",\"n\":{seq}}}").as_bytes(),
                Some("m"),
                Some("t"),
            );
        }
        let batch = Arc::new(builder.finish(0, TIME).unwrap());
        self.record.history.push(Arc::clone(&batch));
        self.record.journal.as_ref().unwrap().offer(&batch);
    }

    /// The fan-out ends.
    fn end(self) {
        drop(self.record);
        join(self.threads);
    }
}

/// Every line of the journal.
fn lines(folder: &tempfile::TempDir) -> Vec<Value> {
    let segments = list(folder.path()).unwrap();
    let texts: Vec<String> = segments
        .iter()
        .map(|segment| fs::read_to_string(&segment.path).unwrap())
        .collect();
    texts
        .iter()
        .flat_map(|text| text.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn what_is_published_is_there_after_a_restart() {
    let folder = folder();
    let mut running = Running::start(&folder, LIMITS);
    let first_epoch = running.record.epoch;
    for _ in 0..50 {
        running.publish(20);
    }
    running.end();
    let lines = lines(&folder);
    assert_eq!(lines.len(), 1002);
    assert_eq!(
        (&lines[0]["first"], &lines[1]["seq"], &lines[1000]["seq"]),
        (&1.into(), &1.into(), &1000.into())
    );
    assert_eq!((&lines[1001]["end"], &lines[1001]["seq"]), (&true.into(), &1000.into()));
    let mut again = Running::start(&folder, LIMITS);
    assert_eq!((again.record.epoch, again.record.history.newest()), (first_epoch, 1000));
    again.publish(1);
    let gauges = Arc::clone(&again.gauges);
    again.end();
    let health = gauges.json();
    assert_eq!(
        (&health["last_seq"], &health["events"], &health["dropped"]),
        (&1001.into(), &1.into(), &0.into())
    );
    assert_eq!(
        (&health["state"], &health["segment"]),
        (&"on".into(), &segment_name(1).into())
    );
    assert_eq!(health["bytes"], list(folder.path()).unwrap()[0].bytes);
}

#[test]
fn a_server_that_gave_no_number_leaves_no_trouble() {
    let folder = folder();
    let limits = Limits {
        segment_age: Duration::ZERO,
        ..LIMITS
    };
    for round in 0..4 {
        let running = Running::start(&folder, limits);
        assert_eq!(running.record.history.newest(), 0, "round {round}");
        running.end();
    }
    let mut running = Running::start(&folder, limits);
    running.publish(1);
    running.end();
    let names = fs::read_dir(folder.path()).unwrap();
    assert!(
        names
            .map(|entry| entry.unwrap().file_name())
            .all(|name| !name.to_string_lossy().contains("damaged"))
    );
    assert_eq!(Running::start(&folder, limits).record.history.newest(), 1);
}

#[test]
fn a_request_to_end_writes_what_waits_but_no_end() {
    let folder = folder();
    let mut running = Running::start(&folder, LIMITS);
    running.publish(3);
    running.stop.request();
    join(running.threads);
    let lines = lines(&folder);
    assert_eq!(lines.last().unwrap()["seq"], 3);
    assert!(lines.last().unwrap()["event"].is_object());
    drop(running.record);
    assert!(Running::start(&folder, LIMITS).record.history.newest() > 1 << 32);
}

#[test]
fn an_end_that_comes_with_the_request_is_in_order() {
    let folder = folder();
    let mut running = Running::start(&folder, LIMITS);
    running.publish(1);
    running.end();
    let stop = Stop::new().unwrap();
    let opened = opened(&folder, LIMITS, &stop).unwrap();
    let mut builder = BatchBuilder::new(2, 1, 2);
    builder.push(b"{}", None, None);
    let batch = Arc::new(builder.finish(0, TIME).unwrap());
    opened.record.journal.as_ref().unwrap().offer(&batch);
    // The disk was slow: the fan-out has ended before its last batch was taken.
    drop(opened.record);
    stop.request();
    join(run(opened.journal, opened.flusher));
    let lines = lines(&folder);
    let last = lines.last().unwrap();
    assert_eq!((&last["seq"], &last["end"]), (&2.into(), &true.into()));
}

#[test]
fn what_found_the_queue_full_has_a_line() {
    let folder = folder();
    let stop = Stop::new().unwrap();
    let Opened {
        record,
        journal,
        flusher,
        gauges,
    } = opened(&folder, LIMITS, &stop).unwrap();
    // Nobody takes anything yet.
    let batch = |seq: Seq| {
        let mut builder = BatchBuilder::new(seq, 1, 2);
        builder.push(b"{}", None, None);
        Arc::new(builder.finish(0, TIME).unwrap())
    };
    let tx = record.journal.unwrap();
    for seq in 1..=150_000 {
        tx.offer(&batch(seq));
    }
    let dropped = gauges.dropped();
    assert!(dropped > 0 && dropped < 150_000);
    drop(tx);
    join(run(journal, flusher));
    let lines = lines(&folder);
    let loss = &lines[lines.len() - 2];
    assert_eq!(
        (&loss["cause"], &loss["to"], &loss["lost"]),
        (&QUEUE_FULL.into(), &150_000.into(), &dropped.into())
    );
    assert_eq!(lines[lines.len() - 1]["seq"], 150_000);
}

#[test]
fn a_folder_has_one_writer() {
    let folder = folder();
    let first = Running::start(&folder, LIMITS);
    let second = opened(&folder, LIMITS, &Stop::new().unwrap()).unwrap_err();
    assert!(matches!(second, JournalError::Lock(LockError::Held { .. })), "{second}");
    assert!(second.hint().contains("--journal"));
    first.end();
}
