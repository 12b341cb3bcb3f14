//! The journal has every event, in order and unchanged, whatever happens to the server: it is stopped, killed, or its
//! disk is full. And a recording can be played again.

use crate::signals::BLOCKING_OPEN;
use crate::support::client::Options;
use crate::support::compile;
use crate::support::server::{in_shell, mounting_shell, run, start_with_descriptors};
use crate::support::{DEADLINE, TestClient, TestServer, eventually, number_of, numbered, pause, state_change};
use crate::tail::Running;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// The segments in `journal`, the oldest first.
fn segments(journal: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(journal) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    segments.sort();
    segments
}

/// Every line of the journal; each must be one JSON document.
#[track_caller]
fn lines(journal: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    for segment in segments(journal) {
        let text = fs::read_to_string(&segment).unwrap();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{}: a torn line",
            segment.display()
        );
        for line in text.lines() {
            lines.push(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
        }
    }
    lines
}

/// Number in the journal and number of the test (see `numbered`) of every event.
fn events(journal: &Path) -> Vec<(u64, usize)> {
    let lines = lines(journal);
    let events = lines.iter().filter(|line| line.get("event").is_some());
    events
        .map(|line| {
            let number = line["event"]["payload"]["n"].as_u64().unwrap() as usize;
            (line["seq"].as_u64().unwrap(), number)
        })
        .collect()
}

#[track_caller]
fn journaled(server: &TestServer, events: u64) {
    eventually("the events are in the journal", || {
        (server.health()["journal"]["events"] == events).then_some(())
    });
}

#[test]
fn every_event_is_kept_with_its_number_and_its_bytes() {
    let mut server = TestServer::start(&["--journal", "journal"]);
    let journal = server.path("journal");
    let sent = [
        "{\"type\": \"a\", \"machine_name\": \"m\", \"n\":1.50, \"n\":1e0}",
        "  {\"type\":\"b\",\"é\":\"\\u00e9\\\"}\"} ",
        "{}",
        "{\"type\":\n\"c\",\r\n\"x\":[1,\n2]}\n",
    ];
    let large = String::from_utf8(numbered(5, 200_000)).unwrap();
    for event in sent.iter().copied().chain([large.as_str()]) {
        server.send(event);
    }
    server.send("not an event");
    server.send("{\"type\":\"last\"}");
    journaled(&server, 6);
    let health = server.health();
    assert_eq!(health["journal"]["state"], "on");
    assert_eq!(health["journal"]["last_seq"], 7);
    assert_eq!(health["journal"]["segment"], "events-00000000000000000001.jsonl");
    assert_eq!(server.stop().code(), Some(0));

    let text = fs::read_to_string(&segments(&journal)[0]).unwrap();
    let kept: Vec<&str> = text.lines().collect();
    assert_eq!(kept.len(), 9);
    for (number, event) in sent.iter().copied().chain([large.as_str()]).enumerate() {
        let event = event.replace(['\r', '\n'], " ");
        let line = kept[number + 1];
        assert!(
            line.starts_with(&format!("{{\"seq\":{},\"time\":1", number + 1)),
            "{line}"
        );
        assert!(
            line.ends_with(&format!(",\"event\":{event}}}")),
            "{}",
            &line[..line.len().min(200)]
        );
    }
    let lines = lines(&journal);
    let loss = &lines[6];
    assert_eq!(
        (&loss["seq"], &loss["to"], &loss["lost"]),
        (&6.into(), &6.into(), &1.into())
    );
    assert_eq!(loss["cause"], "not_json");
    assert_eq!((&lines[8]["seq"], &lines[8]["end"]), (&7.into(), &true.into()));
}

#[test]
fn who_reads_along_sees_whole_lines_soon() {
    let server = TestServer::start(&["--journal", "journal", "--journal-segment-bytes", "64KiB"]);
    let journal = server.path("journal");
    let sender = server.sender();
    let mut next = 0;
    let mut from = 0;
    let mut read = String::new();
    for number in 0..300 {
        sender.send(&numbered(number, 100)).unwrap();
        if number % 10 != 9 {
            continue;
        }
        eventually("the event can be read", || {
            let mut file = fs::File::open(segments(&journal).first()?).unwrap();
            file.seek(SeekFrom::Start(from)).unwrap();
            read.clear();
            file.read_to_string(&mut read).unwrap();
            let whole = read.rfind('\n').map_or(0, |end| end + 1);
            for line in read[..whole].lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                if let Some(number) = line["event"]["payload"]["n"].as_u64() {
                    assert_eq!(number as usize, next);
                    next += 1;
                }
            }
            from += whole as u64;
            (next == number + 1).then_some(())
        });
    }
}

#[test]
fn numbers_go_on_after_an_ordered_restart() {
    let flags = ["--journal", "journal"];
    let mut server = TestServer::start(&flags);
    for number in 0..10 {
        server.send(numbered(number, 100));
    }
    journaled(&server, 10);
    assert_eq!(server.stop().code(), Some(0));
    let mut again = TestServer::start_in(server.folder(), &flags);
    again.send(numbered(10, 100));
    journaled(&again, 1);
    assert_eq!(again.stop().code(), Some(0));
    let expected: Vec<(u64, usize)> = (0..11).map(|number| (number as u64 + 1, number)).collect();
    assert_eq!(events(&again.path("journal")), expected);
    let lines = lines(&again.path("journal"));
    let epochs: BTreeSet<&str> = lines.iter().filter_map(|line| line["epoch"].as_str()).collect();
    assert_eq!(epochs.len(), 1);
}

#[test]
fn a_client_goes_on_where_it_was_across_restarts() {
    let flags = ["--journal", "journal"];
    let mut server = TestServer::start(&flags);
    for number in 0..10 {
        server.send(numbered(number, 100));
    }
    journaled(&server, 10);
    let epoch = lines(&server.path("journal"))[0]["epoch"].as_str().unwrap().to_owned();
    let come_back = |server: &TestServer, seq: u64| {
        let target = format!("/ws/events?since={epoch}:{seq}");
        TestClient::with(
            server.address,
            &Options {
                target,
                ..Options::default()
            },
        )
    };
    assert_eq!(server.stop().code(), Some(0));
    let mut server = TestServer::start_in(server.folder(), &flags);
    let mut client = come_back(&server, 4);
    client.expect_numbers(4..10);
    server.send(numbered(10, 100));
    client.expect_numbers(10..11);
    journaled(&server, 1);
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let server = TestServer::start_in(server.folder(), &flags);
    let mut client = come_back(&server, 10);
    client.expect_numbers(10..11);
    server.send(numbered(11, 100));
    client.expect_numbers(11..12);
}

#[test]
fn after_a_kill_the_state_is_that_of_its_number() {
    let flags = ["--journal", "journal", "--state-file", "none"];
    let mut server = TestServer::start(&flags);
    for (from, to) in [("", "a"), ("a", "b"), ("b", "c")] {
        server.send(state_change("m", from, to, 1.5));
    }
    server.send(state_change("ended", "", "a", 1.5));
    server.send(r#"{"machine_name":"ended","type":"machine_terminated","payload":{}}"#);
    journaled(&server, 5);
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let server = TestServer::start_in(server.folder(), &flags);
    let initial = TestClient::connect(server.address).text();
    let initial: Value = serde_json::from_str(&initial).unwrap();
    let rows: Vec<_> = initial["machines"].as_array().unwrap().iter().collect();
    assert_eq!(rows.len(), 1, "{initial}");
    assert_eq!(
        (&rows[0]["machine_name"], &rows[0]["current_state"]),
        (&"m".into(), &"c".into())
    );
}

/// How often the server is killed, and how old an event may be at the kill and still be missing. A release is tried
/// with `THREADCAST_KILLS=50` on a machine that does nothing else, and then it is the promised time; elsewhere a thread
/// may get no processor for longer than that.
fn kills() -> (usize, Duration) {
    match std::env::var("THREADCAST_KILLS") {
        Ok(count) => (count.parse().unwrap(), Duration::from_millis(50)),
        Err(_) => (5, Duration::from_secs(1)),
    }
}

/// What one run before a kill left behind.
struct Killed {
    /// Events with numbers of the test below this one had been got by a client so long before the kill.
    delivered: usize,
    /// The server's own last word on how many events are in the journal.
    journaled: usize,
    /// How many were sent.
    sent: usize,
}

/// Sends some 20,000 events a second from number `first` on, kills the server in the middle, and sees what a client
/// got. A disk that stands still for a second or two must not fill the journal's queue.
fn kill_under_load(server: &mut TestServer, first: usize, after: Duration) -> Killed {
    let mut client = server.client();
    let sender = server.sender();
    let over = AtomicBool::new(false);
    let sent = AtomicUsize::new(first);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let number = sent.load(Ordering::Relaxed);
                if sender.send(&numbered(number, 60 + number % 400)).is_err() {
                    return;
                }
                sent.store(number + 1, Ordering::Relaxed);
                if number.is_multiple_of(20) {
                    pause(Duration::from_millis(1));
                }
            }
        });
        let reader = scope.spawn(move || {
            let mut got = Vec::new();
            while let Ok(text) = client.try_text() {
                got.push((number_of(text.as_bytes()).unwrap(), Instant::now()));
            }
            got
        });
        eventually("events flow", || {
            (sent.load(Ordering::Relaxed) > first + 100).then_some(())
        });
        pause(after);
        let journaled = server.health()["journal"]["events"].as_u64().unwrap() as usize;
        let killed = Instant::now();
        server.signal(Signal::KILL);
        server.wait_for_end(DEADLINE);
        over.store(true, Ordering::Relaxed);
        let got = reader.join().unwrap();
        let in_order = got
            .iter()
            .enumerate()
            .all(|(index, (number, _))| *number == first + index);
        assert!(in_order, "the client got something else");
        let old = got.iter().filter(|(_, at)| *at + kills().1 <= killed).count();
        Killed {
            delivered: first + old,
            journaled: first + journaled,
            sent: sent.load(Ordering::Relaxed),
        }
    })
}

#[test]
fn a_kill_under_load_loses_nothing_old_and_doubles_nothing() {
    let folder = folder();
    let journal = folder.path().join("journal");
    let flags = [
        "--journal",
        "journal",
        "--history-bytes",
        "4MiB",
        "--journal-segment-bytes",
        "2MiB",
    ];
    let (mut first, mut torn, mut missing, mut events_in_all) = (0, 0, 0, 0);
    let mut begun = 1;
    let mut epoch = None;
    for round in 0..kills().0 {
        let mut server = TestServer::start_in(Arc::clone(&folder), &flags);
        torn += server.lines().with("was torn").len();
        let long = if round % 5 == 4 { 1500 } else { 20 };
        let after = Duration::from_millis(long + (round as u64 * 37) % 400);
        let killed = kill_under_load(&mut server, first, after);
        drop(server);
        if round % 2 == 1 {
            // As when the power fails in the middle of a write.
            let newest = segments(&journal).pop().unwrap();
            let mut file = fs::OpenOptions::new().append(true).open(newest).unwrap();
            file.write_all(b"{\"seq\":17,\"time\":1795").unwrap();
        }

        // The next server repairs the end, whatever it looks like.
        let mut next = TestServer::start_in(Arc::clone(&folder), &flags);
        torn += next.lines().with("was torn").len();
        assert_eq!(next.stop().code(), Some(0));
        let kept = events(&journal);
        assert!(
            kept.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
            "an event twice, or not in order"
        );
        let of_run: Vec<usize> = kept
            .iter()
            .map(|event| event.1)
            .filter(|number| *number >= first)
            .collect();
        let gap = of_run
            .iter()
            .enumerate()
            .find(|(index, number)| **number != first + index);
        assert_eq!(gap, None, "a gap in round {round}, which began with {first}");
        let last = first + of_run.len();
        for least in [killed.delivered, killed.journaled] {
            assert!(last >= least, "round {round}: {last} are kept, {least} must be");
        }
        missing += killed.sent - last;
        events_in_all += of_run.len();

        let lines = lines(&journal);
        let skip = lines.iter().rev().find(|line| line["cause"] == "restart").unwrap();
        assert!(skip["lost"].is_null(), "{skip}");
        let to = skip["to"].as_u64().unwrap();
        assert!(
            to >= begun + (killed.sent - first) as u64,
            "a number could be given twice: {skip}"
        );
        begun = to + 1;
        let head = lines.iter().rev().find(|line| line.get("journal").is_some()).unwrap();
        assert_eq!(epoch.get_or_insert(head["epoch"].clone()), &head["epoch"]);
        first = killed.sent;
    }
    assert!(torn >= kills().0 / 2);
    eprintln!(
        "{} kills: {events_in_all} events journaled, {missing} sent but not journaled, {torn} torn lines repaired",
        kills().0
    );
}

#[test]
fn a_full_disk_stops_the_journal_and_never_the_stream() {
    let Some(shell) = mounting_shell() else { return };
    let folder = folder();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let mut server = TestServer::start_command(Arc::clone(&folder), &["--journal", "disk/journal"], |command| {
        in_shell(
            command,
            shell,
            "mount -t tmpfs -o size=256k tmpfs disk && head -c 65536 /dev/zero > disk/filler",
        );
    });
    // The server's own view of its disk.
    let disk = PathBuf::from(format!(
        "/proc/{}/root{}",
        server.pid(),
        folder.path().join("disk").display()
    ));
    let mut client = server.client();
    let sender = server.sender();
    for number in 0..1000 {
        sender.send(&numbered(number, 1000)).unwrap();
        client.expect_numbers(number..number + 1);
    }
    let said = server.wait_for_line("🚨 the journal cannot be written: No space left on device");
    assert!(said.contains("Make room"), "{said}");
    let health = eventually("all is counted", || {
        Some(server.health()).filter(|health| {
            let count = |key: &str| health["journal"][key].as_u64().unwrap();
            count("events") + count("dropped") == 1000
        })
    });
    assert_eq!(
        (&health["status"], &health["journal"]["state"]),
        (&"degraded".into(), &"failed".into())
    );
    assert!(
        health["reasons"][0].as_str().unwrap().contains("No space left"),
        "{health}"
    );
    let kept = events(&disk.join("journal")).len();
    assert_eq!(health["journal"]["events"], kept as u64);
    assert!(kept > 0);

    fs::remove_file(disk.join("filler")).unwrap();
    server.wait_for_line("✅ the journal can be written again");
    for number in 1000..1010 {
        sender.send(&numbered(number, 1000)).unwrap();
        client.expect_numbers(number..number + 1);
    }
    journaled(&server, kept as u64 + 10);
    assert_eq!(server.health()["status"], "ok");
    let lines = lines(&disk.join("journal"));
    let loss = lines.iter().find(|line| line["cause"] == "journal_failed").unwrap();
    assert_eq!((&loss["seq"], &loss["to"]), (&(kept as u64 + 1).into(), &1000.into()));
    assert_eq!(loss["lost"], 1000 - kept as u64);
    let numbers: Vec<usize> = events(&disk.join("journal")).iter().map(|event| event.1).collect();
    assert_eq!(numbers, (0..kept).chain(1000..1010).collect::<Vec<_>>());
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_folder_that_cannot_be_written_is_a_failure_that_says_what_to_do() {
    let folder = folder();
    fs::write(folder.path().join("file"), "x").unwrap();
    let serve = |journal: &str| {
        let socket = folder.path().join("events.sock");
        let socket = socket.to_str().unwrap().to_owned();
        run(
            folder.path(),
            &[
                "serve",
                "--port",
                "0",
                "--event-socket-path",
                &socket,
                "--journal",
                journal,
            ],
        )
    };
    let (status, _, said) = serve("file/journal");
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("file/journal") && said.contains("hint: give --journal a folder"),
        "{said}"
    );
    assert!(!folder.path().join("events.sock").exists());

    if let Some(shell) = mounting_shell() {
        fs::create_dir(folder.path().join("disk")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_threadcast"));
        command.args([
            "serve",
            "--port",
            "0",
            "--event-socket-path",
            "events.sock",
            "--journal",
            "disk",
        ]);
        command.current_dir(folder.path());
        in_shell(&mut command, shell, "mount -t tmpfs -o ro tmpfs disk");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("Read-only file system") && said.contains("hint: give --journal"),
            "{said}"
        );
    }
}

#[test]
fn a_second_server_on_a_journal_is_refused() {
    let first = TestServer::start(&["--journal", "journal"]);
    let journal = first.path("journal");
    let other = folder();
    let socket = other.path().join("events.sock");
    let arguments = [
        "serve",
        "--port",
        "0",
        "--event-socket-path",
        socket.to_str().unwrap(),
        "--journal",
    ];
    let (status, _, said) = run(other.path(), &[&arguments[..], &[journal.to_str().unwrap()]].concat());
    assert_eq!(status, 1, "{said}");
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(said.contains("hint: give --journal a folder of its own"), "{said}");
    assert!(!socket.exists());
    first.send(numbered(0, 100));
    journaled(&first, 1);
}

#[test]
fn an_engine_finds_no_socket_while_the_journal_is_recovered() {
    let folder = folder();
    let (journal, socket) = (folder.path().join("journal"), folder.path().join("events.sock"));
    let Some(library) = compile(folder.path(), "blocking-open", BLOCKING_OPEN) else {
        return;
    };
    fs::create_dir(&journal).unwrap();
    // One that the disk is long about.
    fs::write(journal.join("events-00000000000000000001.jsonl"), "").unwrap();
    let answers = folder.path().join("answers");
    let arguments = [
        "serve",
        "--port",
        "0",
        "--event-socket-path",
        "events.sock",
        "--journal",
        "journal",
    ];
    let mut server = Running::with(&arguments, |command| {
        command
            .current_dir(folder.path())
            .env("LD_PRELOAD", library)
            .env("BLOCKED_END", "events-00000000000000000001.jsonl")
            .env("BLOCKED_UNTIL", &answers);
    });
    eventually("the journal is read", || {
        journal.join("journal.lock").exists().then_some(())
    });
    let was_there = socket.exists();
    fs::write(answers, "").unwrap();
    eventually("the server serves", || socket.exists().then_some(()));
    server.signal(Signal::TERM);
    assert_eq!(server.status(Duration::from_secs(30)), 0, "{}", server.said());
    assert!(!was_there, "an engine could have sent, and waited");
}

/// The next start then skips no number. A limit of descriptors has the start fail at each of its steps.
#[test]
fn a_start_that_fails_after_it_began_the_journal_ends_it() {
    let (mut ended, mut served) = (0, 0);
    for descriptors in 4.. {
        let folder = folder();
        let flags = ["--journal", "journal"];
        let (announced, status) = start_with_descriptors(descriptors, folder.path(), &flags);
        let lines = lines(&folder.path().join("journal"));
        if let Some(last) = lines.last() {
            assert!(last.get("end").is_some(), "{descriptors}: {status}: {lines:?}");
        }
        if announced && status.success() {
            // Threads open things at the same time, so with one more it may fail again.
            served += 1;
            if served == 4 {
                break;
            }
            continue;
        }
        ended += usize::from(!lines.is_empty());
    }
    assert!(ended > 0, "else this test shows nothing");
}

#[test]
fn a_taken_event_socket_makes_no_journal() {
    let first = TestServer::start(&[]);
    let other = folder();
    let socket = first.socket_path();
    let socket = socket.to_str().unwrap();
    let arguments = [
        "serve",
        "--port",
        "0",
        "--event-socket-path",
        socket,
        "--journal",
        "journal",
    ];
    for lock_is_there in [true, false] {
        if !lock_is_there {
            fs::remove_file(format!("{socket}.lock")).unwrap();
        }
        let (status, _, said) = run(other.path(), &arguments);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("belongs to a running server"), "{said}");
        assert!(!other.path().join("journal").exists(), "{said}");
    }
    first.send(numbered(0, 100));
    eventually("the first one serves", || {
        (first.health()["events_received"] == 1).then_some(())
    });
}

#[test]
fn only_the_oldest_whole_segments_go() {
    let flags = ["--journal-segment-bytes", "64KiB", "--journal-keep-bytes", "256KiB"];
    let mut server = TestServer::start(&[&["--journal", "journal"], &flags[..]].concat());
    let journal = server.path("journal");
    fs::write(journal.join("notes"), "of somebody").unwrap();
    let sender = server.sender();
    for number in 0..1000 {
        sender.send(&numbered(number, 1000)).unwrap();
    }
    journaled(&server, 1000);
    let left = segments(&journal);
    let sizes: Vec<u64> = left.iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert!(sizes.iter().all(|bytes| *bytes <= 64 * 1024), "{sizes:?}");
    let bytes: u64 = sizes.iter().sum();
    assert!(bytes <= 256 * 1024 && left.len() > 3, "{bytes} in {left:?}");
    assert_eq!(server.health()["journal"]["bytes"], bytes);
    let kept = events(&journal);
    assert!(kept[0].0 > 1);
    let expected: Vec<(u64, usize)> = (kept[0].1..1000).map(|number| (number as u64 + 1, number)).collect();
    assert_eq!(kept, expected);
    assert!(journal.join("notes").exists());
    assert_eq!(server.stop().code(), Some(0));
}

/// `threadcast replay` of `journal` into `server`.
fn replay(server: &TestServer, journal: &Path, flags: &[&str]) -> (i32, String) {
    let socket = server.socket_path();
    let arguments = [
        "replay",
        "--journal",
        journal.to_str().unwrap(),
        "--event-socket-path",
        socket.to_str().unwrap(),
    ];
    let (status, output, said) = run(&server.path(""), &[&arguments[..], flags].concat());
    assert_eq!(output, "");
    (status, said)
}

#[test]
fn a_recording_is_sent_again_in_order_and_in_parts() {
    let flags = ["--journal", "journal", "--journal-segment-bytes", "64KiB"];
    let mut recorded = TestServer::start(&flags);
    let sender = recorded.sender();
    for number in 0..500 {
        sender.send(&numbered(number, 400)).unwrap();
    }
    sender.send(b"not an event").unwrap();
    journaled(&recorded, 500);
    assert_eq!(recorded.stop().code(), Some(0));
    let journal = recorded.path("journal");
    assert!(segments(&journal).len() > 2);
    // Digits as they stand there, because they are compared as they stand there.
    let texts: String = segments(&journal)
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let times: Vec<&str> = texts
        .lines()
        .filter_map(|line| line.split_once(",\"event\":"))
        .map(|(head, _)| head.split_once("\"time\":").unwrap().1)
        .collect();

    let server = TestServer::start(&["--journal", "journal"]);
    let mut client = server.client();
    let (status, said) = replay(&server, &journal, &["--fast"]);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("500 events of ") && said.contains("(numbers 1 to 500)"),
        "{said}"
    );
    assert!(said.contains("1 loss is recorded"), "{said}");
    client.expect_numbers(0..500);
    // A recording of the recording is the same.
    journaled(&server, 500);
    assert_eq!(events(&server.path("journal")), events(&journal));

    let (status, said) = replay(&server, &journal, &["--fast", "--from", "101", "--to", "110"]);
    assert_eq!(status, 0, "{said}");
    client.expect_numbers(100..110);
    // Events of one turn have one time.
    let (from, to) = (times[200], times[300]);
    let first = times.iter().position(|time| *time == from).unwrap();
    let last = times.iter().rposition(|time| *time == to).unwrap();
    let (status, said) = replay(
        &server,
        &journal,
        &["--fast", "--from", &format!("@{from}"), "--to", to],
    );
    assert_eq!(status, 0, "{said}");
    client.expect_numbers(first..last + 1);
    // What is replayed into the server that writes the journal does not go round in circles.
    let (status, said) = replay(&server, &server.path("journal"), &["--fast"]);
    assert_eq!(status, 0, "{said}");
    client.expect_numbers(0..500);
    client.expect_numbers(100..110);
}

#[test]
fn the_original_timing_is_kept() {
    let folder = folder();
    let journal = folder.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let mut text = "{\"journal\":1,\"epoch\":\"0123456789abcdef\",\"first\":1,\"time\":1795393480.0}\n".to_owned();
    // The clock of the recording server was set back once; that is no pause.
    for (number, time) in [
        (0, 1_795_393_480.0),
        (1, 1_795_393_480.5),
        (2, 1_795_393_400.5),
        (3, 1_795_393_401.25),
    ] {
        let event = String::from_utf8(numbered(number, 100)).unwrap();
        text.push_str(&format!(
            "{{\"seq\":{},\"time\":{time:?},\"event\":{event}}}\n",
            number + 1
        ));
    }
    text.push_str("{\"seq\":5,\"ti");
    fs::write(journal.join("events-00000000000000000001.jsonl"), text).unwrap();
    let server = TestServer::start(&[]);
    let mut client = server.client();
    for (flags, least) in [(&[][..], 1250), (&["--speed", "10"], 125)] {
        let begun = Instant::now();
        let (status, said) = replay(&server, &journal, flags);
        assert_eq!(status, 0, "{said}");
        assert!(
            said.contains("4 events of ") && said.contains("1 line cannot be read"),
            "{said}"
        );
        assert!(begun.elapsed() >= Duration::from_millis(least), "{:?}", begun.elapsed());
        client.expect_numbers(0..4);
    }
}

#[test]
fn a_replay_that_nobody_takes_ends_and_says_where() {
    let folder = folder();
    let journal = folder.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let missing = folder.path().join("missing.sock");
    let replay = |flags: &[&str]| {
        let arguments = ["replay", "--journal", "journal", "--event-socket-path"];
        run(folder.path(), &[&arguments[..], flags].concat())
    };
    let (status, _, said) = replay(&[missing.to_str().unwrap()]);
    assert_eq!(status, 1);
    assert!(said.contains("cannot replay journal: there is no journal"), "{said}");

    let event = "{\"seq\":7,\"time\":1.5,\"event\":{\"type\":\"x\"}}\n";
    fs::write(journal.join("events-00000000000000000007.jsonl"), event.repeat(1000)).unwrap();
    let (status, _, said) = replay(&[missing.to_str().unwrap()]);
    assert_eq!(status, 1);
    assert!(
        said.contains("event 7 was not taken") && said.contains("no server receives there"),
        "{said}"
    );
    assert!(said.contains("--from 7 goes on there"), "{said}");

    let full = folder.path().join("full.sock");
    let _socket = std::os::unix::net::UnixDatagram::bind(&full).unwrap();
    let (status, _, said) = replay(&[full.to_str().unwrap(), "--timeout", "100ms"]);
    assert_eq!(status, 1);
    assert!(said.contains("queue was full"), "{said}");
}

#[test]
fn ctrl_c_ends_a_replay_well() {
    let folder = folder();
    let journal = folder.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let mut text = String::new();
    for (seq, time) in [(1, 1_000_000.5), (2, 9_000_000.5)] {
        text.push_str(&format!(
            "{{\"seq\":{seq},\"time\":{time:?},\"event\":{{\"type\":\"x\"}}}}\n"
        ));
    }
    fs::write(journal.join("events-00000000000000000001.jsonl"), text).unwrap();
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let socket = server.socket_path();
    let (journal, socket) = (journal.to_str().unwrap(), socket.to_str().unwrap());
    let mut replay = Running::start(&["replay", "--journal", journal, "--event-socket-path", socket]);
    assert_eq!(client.text(), "{\"type\":\"x\"}");
    replay.ends_on_interrupt();
    let said = replay.said();
    assert!(
        said.contains("1 event of ") && said.contains("ended before event 2"),
        "{said}"
    );
}
