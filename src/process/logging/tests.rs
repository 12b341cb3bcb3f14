//! Unit tests of the log, which drive its front and its thread without files.

use super::line::LINE_BYTES_MAX;
use super::queue::{LINES_QUEUE_BYTES_MAX, LINES_QUEUE_LEN_MAX};
use super::sites::SITE_LINES_MAX;
use super::*;
use crate::process::threads;
use crossbeam_channel::bounded;

fn front() -> Front {
    front_with_room(100)
}

fn front_with_room(lines: usize) -> Front {
    Front {
        shared: Arc::new(Shared::new(LevelFilter::Info, Forms::default(), lines, LINE_BYTES_MAX).unwrap()),
    }
}

impl Front {
    /// Takes what waits, as thread `log` does.
    fn taken(&self) -> Vec<Line> {
        let lines: Vec<Line> = self.shared.queue.lines.take().collect();
        for line in &lines {
            self.shared.queue.count_out(line.text.capacity());
        }
        lines
    }

    fn lost(&self) -> u64 {
        self.shared.queue_full.load(Ordering::Relaxed)
    }
}

/// Where a thread under test writes.
#[derive(Clone, Debug, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    /// The messages, without time, level and thread.
    fn messages(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let message = |line: &str| line.split_once("] ").map_or(line, |(_, message)| message).to_owned();
        text.lines().map(message).collect()
    }
}

/// A thread, where it writes, and what stops it.
fn log_thread(front: &Front) -> (LogThread, Written, Stop) {
    let (written, stop) = (Written::default(), Stop::new().unwrap());
    let thread = LogThread {
        shared: Arc::clone(&front.shared),
        losses: Arc::new(SinkLosses::default()),
        sinks: vec![Sink::new(Form::default(), written.clone(), true)],
        stop: stop.clone(),
        turn: TURN,
        left: Vec::with_capacity(LINE_BYTES_MAX),
    };
    (thread, written, stop)
}

fn record_at(front: &Front, line: u32, text: &str) {
    record_at_level(front, line, Level::Info, text);
}

fn record_at_level(front: &Front, line: u32, level: Level, text: &str) {
    front.log(
        &Record::builder()
            .level(level)
            .file_static(Some("a.rs"))
            .line(Some(line))
            .args(format_args!("{text}"))
            .build(),
    );
}

#[test]
fn a_place_that_writes_too_much_is_limited_and_others_are_not() {
    let front = front();
    for number in 0..SITE_LINES_MAX + 5 {
        record_at(&front, 1, &format!("noise {number}"));
    }
    record_at(&front, 2, "signal");
    assert_eq!(front.taken().len() as u32, SITE_LINES_MAX + 1);
    let sites = front.shared.sites.by_place.lock().unwrap();
    assert_eq!(sites[&("a.rs", 1, Level::Info)].left_out, 5);
    assert_eq!(sites.len(), 2, "texts from outside make no entries");
}

#[test]
fn many_lines_of_a_place_do_not_hide_its_graver_ones() {
    let front = front();
    for _ in 0..SITE_LINES_MAX + 5 {
        record_at(&front, 1, "ended as usual");
    }
    record_at_level(&front, 1, Level::Warn, "ended too slow");
    let written: Vec<Level> = front.taken().iter().map(|line| line.level).collect();
    assert_eq!(written.len() as u32, SITE_LINES_MAX + 1);
    assert_eq!(written.last(), Some(&Level::Warn));
}

#[test]
fn a_full_queue_counts_and_does_not_wait() {
    let front = front();
    for line in 0..103 {
        record_at(&front, line, "x");
    }
    assert_eq!(front.lost(), 3);
    assert_eq!(front.taken().len(), 100);
}

#[test]
fn lines_in_hand_still_take_their_room_and_a_loss_is_said_behind_the_next_line() {
    let front = front_with_room(3);
    let (thread, written, stop) = log_thread(&front);
    for line in 0..3 {
        record_at(&front, line, &format!("line {line}"));
    }
    let mut phases = 0;
    stop.request();
    thread.run(|phase| {
        // Two of the three are still in hand, and there is room for one.
        if phase == Phase::Writing && phases == 1 {
            record_at(&front, 10, "in time");
            record_at(&front, 11, "too late");
        }
        phases += u32::from(phase == Phase::Writing);
    });
    let lost = "⚠️ 1 log line was lost: lines came faster than they could be written";
    assert_eq!(written.messages(), ["line 0", "line 1", lost, "line 2", "in time"]);
}

#[test]
fn long_lines_fill_the_queue_by_their_bytes_and_make_room_again() {
    let front = front_with_room(LINES_QUEUE_LEN_MAX);
    let long = "x".repeat(LINE_BYTES_MAX);
    for line in 0..LINES_QUEUE_LEN_MAX as u32 {
        record_at(&front, line, &long);
    }
    let lost = front.lost() as usize;
    let (thread, written, stop) = log_thread(&front);
    let bytes = front.shared.queue.bytes.load(Ordering::Relaxed);
    assert!(
        (LINES_QUEUE_BYTES_MAX / 2..=LINES_QUEUE_BYTES_MAX).contains(&bytes),
        "{bytes}"
    );
    record_at(&front, u32::MAX, &long);
    assert_eq!(front.lost() as usize, lost + 1);

    stop.request();
    thread.run(|_| ());
    assert_eq!(front.shared.queue.bytes.load(Ordering::Relaxed), 0);
    assert_eq!(front.shared.queue.count.load(Ordering::Relaxed), 0);
    // And one that tells of the loss.
    assert_eq!(written.messages().len(), LINES_QUEUE_LEN_MAX - lost + 1);
    record_at(&front, u32::MAX, &long);
    assert_eq!(front.taken().len(), 1);
}

#[test]
fn every_line_is_written_or_counted_and_each_threads_lines_keep_their_order() {
    const THREADS: usize = 4;
    const EACH: usize = 2000;
    let front = front_with_room(500);
    let (thread, written, stop) = log_thread(&front);
    let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(|_| ())).unwrap();
    std::thread::scope(|scope| {
        for of in 0..THREADS {
            let front = &front;
            // Each line of a place of its own, which has no limit then.
            let line = move |number: usize| record_at(front, (of * EACH + number) as u32, &format!("{of} {number}"));
            scope.spawn(move || (0..EACH).for_each(line));
        }
    });
    stop.request();
    handle.join_within(Duration::from_secs(20)).unwrap();
    let mut next = [0; THREADS];
    let mut seen = 0;
    for message in written.messages() {
        let Some((of, number)) = message.split_once(' ').filter(|_| !message.starts_with('⚠')) else {
            continue;
        };
        let (of, number): (usize, usize) = (of.parse().unwrap(), number.parse().unwrap());
        assert!(number >= next[of], "{number} of thread {of} after {}", next[of]);
        next[of] = number + 1;
        seen += 1;
    }
    let lost = front.shared.lost_total.load(Ordering::Relaxed) as usize;
    assert_eq!(seen + lost, THREADS * EACH, "{lost} were lost");
    assert_eq!(front.shared.queue.count.load(Ordering::Relaxed), 0);
}

#[test]
fn a_thread_that_stops_with_the_locks_holds_up_nobody() {
    let front = front();
    let (thread, written, stop) = log_thread(&front);
    let control = LogControl {
        stop: stop.clone(),
        shared: Arc::clone(&front.shared),
        losses: Arc::new(SinkLosses::default()),
    };
    control.leave("[watchdog] said before\n");
    let held = (
        front.shared.sites.by_place.lock().unwrap(),
        front.shared.left.lock().unwrap(),
    );
    record_at(&front, 1, "said meanwhile");
    control.leave("[watchdog] lost\n");
    let (waits_tx, waits_rx) = bounded(2);
    let show = move |phase| {
        if phase == Phase::Waiting {
            let _ = waits_tx.try_send(());
        }
    };
    let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(show)).unwrap();
    // The second wait comes after a turn of everything that it does.
    for _ in 0..2 {
        assert_eq!(waits_rx.recv_timeout(Duration::from_secs(20)), Ok(()));
    }
    let lost = "⚠️ 1 log line was lost: lines came faster than they could be written";
    assert_eq!(written.messages(), ["said meanwhile", lost]);
    drop(held);
    stop.request();
    handle.join_within(Duration::from_secs(20)).unwrap();
    assert_eq!(written.messages(), ["said meanwhile", lost, "said before"]);
}

#[test]
fn a_stop_ends_the_wait_for_a_line() {
    let front = front();
    let (mut thread, _, stop) = log_thread(&front);
    // Only the stop can end it.
    thread.turn = Duration::from_secs(3600);
    let (waits_tx, waits_rx) = bounded(1);
    let show = move |phase| {
        let _ = waits_tx.try_send(phase);
    };
    let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(show)).unwrap();
    assert_eq!(waits_rx.recv_timeout(Duration::from_secs(10)), Ok(Phase::Waiting));
    stop.request();
    handle.join_within(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_line_ends_the_wait_for_one() {
    let front = front();
    let (mut thread, written, stop) = log_thread(&front);
    thread.turn = Duration::from_secs(3600);
    let (writes_tx, writes_rx) = bounded(1);
    let show = move |phase| {
        if phase == Phase::Waiting {
            let _ = writes_tx.try_send(());
        }
    };
    let handle = threads::spawn("log", threads::CORE_STACK_BYTES, None, || thread.run(show)).unwrap();
    for number in 0..100 {
        assert_eq!(writes_rx.recv_timeout(Duration::from_secs(20)), Ok(()));
        record_at(&front, number, "x");
    }
    stop.request();
    handle.join_within(Duration::from_secs(20)).unwrap();
    assert_eq!(written.messages().len(), 100);
}
