//! The heartbeat says in the log what was measured, and the status file shows to anybody who looks whether the server
//! lives.

use crate::support::client::Options;
use crate::support::server::{in_shell, mounting_shell, run};
use crate::support::{
    DEADLINE, TestClient, TestServer, eventually, in_both_shapes, in_both_shapes_at_once, numbered, pause, skipped,
    state_change,
};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const STATUS: &str = "status.json";
/// Frequent heartbeats, and the status file.
const FLAGS: [&str; 4] = ["--heartbeat-interval", "200ms", "--status-file", STATUS];
/// Under these a frozen component is noticed soon.
const DRILL: [&str; 3] = ["--allow-drill", "--hang-timeout", "1s"];

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

/// The status file; it must parse whenever it is looked at.
#[track_caller]
fn status_at(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn status(server: &TestServer) -> Value {
    status_at(&server.path(STATUS))
}

/// Waits until the status file satisfies `condition`.
#[track_caller]
fn status_with(server: &TestServer, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        // It is there soon after the server listens, and from then on always.
        server
            .path(STATUS)
            .exists()
            .then(|| status(server))
            .filter(|status| condition(status))
    })
}

/// A heartbeat line by its keys; the number under `#`.
fn parsed(line: &str) -> BTreeMap<String, String> {
    let (_, text) = line.split_once("💓 Server heartbeat #").expect(line);
    let mut parts = text.split(" | ");
    let number = parts.next().unwrap().to_owned();
    let pairs = parts.map(|part| part.split_once('=').expect(line));
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    std::iter::once(("#".to_owned(), number)).chain(pairs).collect()
}

fn heartbeats(server: &TestServer) -> Vec<BTreeMap<String, String>> {
    server
        .lines()
        .with("💓 Server heartbeat #")
        .iter()
        .map(|line| parsed(line))
        .collect()
}

/// The whole number that a value begins with.
fn count(value: &str) -> u64 {
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{value}"))
}

/// The sum over all lines of what `key` counts by name, such as `2 not_json, 1 empty`.
fn summed(lines: &[BTreeMap<String, String>], key: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for value in lines.iter().filter_map(|line| line.get(key)) {
        for part in value.split(", ") {
            let (count, name) = part.split_once(' ').expect(value);
            *sums.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
    }
    sums
}

fn freeze(server: &TestServer, component: &str, duration: Duration) {
    let target = format!("/drill?component={component}&ms={}", duration.as_millis());
    let answer = server.act(&target);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[track_caller]
fn stream_goes_on(server: &TestServer) {
    let mut client = server.client();
    for number in 0..20 {
        server.send(numbered(number, 200));
    }
    client.expect_numbers(0..20);
}

#[test]
fn the_line_counts_what_was_sent_once_and_nothing_else() {
    in_both_shapes(|delivery| {
        let mut server = TestServer::start(&[&["--delivery", delivery][..], &FLAGS].concat());
        let first = parsed(&server.wait_for_line("💓 Server heartbeat #1 |"));
        assert_eq!(first["last_event"], "never");
        assert_eq!((&first["connections"][..], &first["events"][..]), ("0", "0"));
        assert_eq!((&first["queue"][..], &first["backlog"][..]), ("0", "0"));
        for absent in ["dropped", "ended", "refused", "log_lines_lost", "status"] {
            assert!(!first.contains_key(absent), "{first:?}");
        }

        let mut clients = [server.client(), server.client()];
        eventually("a line has both clients and every thread", || {
            let line = heartbeats(&server).pop()?;
            (line["connections"] == "2" && count(&line["tasks"]) == server.threads() as u64).then_some(())
        });
        let sender = server.sender();
        for number in 0..300 {
            sender.send(&numbered(number, 400)).unwrap();
        }
        for client in &mut clients {
            client.expect_numbers(0..300);
        }
        for bad in ["nonsense", "[1]", "more nonsense"] {
            sender.send(bad.as_bytes()).unwrap();
        }
        let [one, other] = clients;
        one.close();
        let seen = eventually("the last event grows older", || {
            let line = heartbeats(&server).pop()?;
            let ago: f64 = line["last_event"].strip_suffix("s ago")?.parse().unwrap();
            (ago >= 1.5 && line["connections"] == "1").then_some(line)
        });
        server.send(numbered(300, 400));
        eventually("the last event is young again", || {
            let mut later = heartbeats(&server)
                .into_iter()
                .filter(|line| count(&line["#"]) > count(&seen["#"]));
            let is_young = |line: &BTreeMap<String, String>| {
                let ago = line["last_event"].strip_suffix("s ago").unwrap();
                ago.parse::<f64>().unwrap() < 1.5
            };
            later.any(|line| is_young(&line)).then_some(())
        });
        drop(other);
        assert_eq!(server.stop().code(), Some(0));

        let lines = heartbeats(&server);
        for (index, line) in lines.iter().enumerate() {
            assert_eq!(count(&line["#"]), index as u64 + 1, "a line is missing");
        }
        let events: u64 = lines.iter().map(|line| count(&line["events"])).sum();
        assert_eq!(events, 304);
        let dropped = summed(&lines, "dropped");
        assert_eq!(
            dropped.into_iter().collect::<Vec<_>>(),
            [("not_an_object".to_owned(), 1), ("not_json".to_owned(), 2)]
        );
        let ended = summed(&lines, "ended");
        assert_eq!(ended["peer_closed"], 1, "{ended:?}");
        assert_eq!(ended.values().sum::<u64>(), 2, "{ended:?}");
        assert_eq!(lines.last().unwrap()["status"], "stopped");
        assert_eq!(status(&server)["events_received"], 304);
    });
}

/// More than the log lets any other place say in 10 s.
#[test]
fn no_heartbeat_is_left_out_for_being_frequent() {
    let server = TestServer::start(&["--heartbeat-interval", "100ms"]);
    server.wait_for_line("💓 Server heartbeat #25 |");
    let numbers: Vec<u64> = heartbeats(&server).iter().map(|line| count(&line["#"])).collect();
    assert_eq!(numbers[..25], (1..=25).collect::<Vec<_>>());
}

#[test]
fn rates_are_over_the_time_that_has_really_passed() {
    const STOPPED: Duration = Duration::from_millis(1500);
    let server = TestServer::start(&FLAGS);
    let sender = server.sender();
    status_with(&server, "it is there", |_| true);
    let mut seen: BTreeMap<u64, Value> = BTreeMap::new();
    let mut look = || {
        let heartbeat = status(&server)["heartbeat"].take();
        let number = heartbeat["number"].as_u64().unwrap();
        seen.insert(number, heartbeat);
        number
    };
    for number in 0..200 {
        sender.send(&numbered(number, 300)).unwrap();
        look();
        pause(Duration::from_millis(2));
    }
    server.suspend();
    pause(STOPPED);
    server.signal(Signal::CONT);
    let number = look();
    eventually("some more heartbeats", || (look() >= number + 4).then_some(()));

    let mut longest: f64 = 0.0;
    for heartbeat in seen.values() {
        let covers = heartbeat["covers_seconds"].as_f64().unwrap();
        longest = longest.max(covers);
        for (count, rate) in [("events", "events_per_second"), ("bytes", "bytes_per_second")] {
            let count = heartbeat[count].as_f64().unwrap();
            // Both are written with three digits behind the point.
            match heartbeat[rate].as_f64() {
                Some(rate) => assert!((rate * covers - count).abs() <= 0.02 * count, "{heartbeat}"),
                None => assert_eq!(count, 0.0, "{heartbeat}"),
            }
        }
    }
    let sum = |key: &str| -> u64 { seen.values().map(|heartbeat| heartbeat[key].as_u64().unwrap()).sum() };
    let numbers: Vec<u64> = seen.keys().copied().collect();
    if numbers == (numbers[0]..numbers[0] + numbers.len() as u64).collect::<Vec<_>>() {
        assert!(longest >= STOPPED.as_secs_f64(), "{longest}");
        assert_eq!((sum("events"), sum("bytes")), (200, 200 * 300));
    } else {
        skipped(format_args!(
            "the longest and the sums, because this busy machine let us see only {numbers:?}"
        ));
    }
}

#[test]
fn a_backlog_is_shown_with_its_client_while_it_lasts() {
    in_both_shapes_at_once(|delivery| {
        let flags = [
            "--delivery",
            delivery,
            "--client-queue-bytes",
            "64MiB",
            "--send-timeout",
            "60s",
        ];
        let server = TestServer::start(&[&flags[..], &FLAGS, &DRILL].concat());
        let mut quick = server.client();
        let options = Options {
            // Not so small that the kernel makes reading it take long.
            receive_buffer: Some(32 * 1024),
            ..Options::default()
        };
        let mut slow = TestClient::with(server.address, &options);
        slow.text();
        let sender = server.sender();
        for number in 0..200 {
            sender.send(&numbered(number, 20_000)).unwrap();
        }
        quick.expect_numbers(0..200);
        let status = status_with(&server, "a backlog of one client", |status| {
            let backlog = &status["heartbeat"]["backlog"];
            backlog["clients"] == 1 && backlog["bytes"].as_u64() > Some(1_000_000)
        });
        let backlog = &status["heartbeat"]["backlog"];
        assert!(backlog["bytes"].as_u64() <= Some(200 * 20_100), "{backlog}");
        assert_eq!(backlog["bytes"], backlog["largest_bytes"], "{backlog}");
        let client = backlog["largest_client"].as_u64().unwrap();
        server.wait_for_line(&format!("client {client} from {}", slow.socket().local_addr().unwrap()));
        server.wait_for_line(&format!(" | backlog=client {client}, "));

        // A fan-out that stands still measures nothing any more, and nobody claims that it does.
        freeze(&server, "fanout", Duration::from_secs(60));
        status_with(&server, "the backlog's age is said", |status| {
            status["heartbeat"]["backlog"]["measured_seconds_ago"].as_f64() > Some(1.5)
        });
        let old = |line: &BTreeMap<String, String>| line["backlog"].ends_with("s ago)");
        eventually("the line says so too", || {
            heartbeats(&server).iter().any(old).then_some(())
        });
        freeze(&server, "fanout", Duration::ZERO);

        slow.expect_numbers(0..200);
        status_with(&server, "no backlog any more", |status| {
            let backlog = &status["heartbeat"]["backlog"];
            backlog["clients"] == 0 && backlog["largest_client"].is_null()
        });
        eventually("nor in the line", || {
            (heartbeats(&server).pop()?["backlog"] == "0").then_some(())
        });
    });
}

#[test]
fn the_status_file_is_whole_at_every_look() {
    let flags = ["--heartbeat-interval", "100ms", "--status-file", STATUS];
    let server = TestServer::start(&flags);
    status_with(&server, "it is there", |_| true);
    let over = AtomicBool::new(false);
    let look = |last: u64| -> Result<u64, String> {
        let text = fs::read_to_string(server.path(STATUS)).map_err(|error| error.to_string())?;
        let status: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        match status["heartbeat"]["number"].as_u64() {
            Some(number) if number >= last => Ok(number),
            _ => Err(format!("after #{last}: {text}")),
        }
    };
    let looked = std::thread::scope(|scope| {
        let sender = server.sender();
        let over = &over;
        scope.spawn(move || {
            let mut number = 0;
            // State that changes keeps the state file busy beside it.
            while !over.load(Ordering::Relaxed)
                && sender
                    .send(&state_change("busy", "a", &number.to_string(), 1.5))
                    .is_ok()
            {
                number += 1;
            }
        });
        let (mut looks, mut last) = (0, Ok(0));
        // Until it was rewritten often, and looked at more often.
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE && last.as_ref().is_ok_and(|number| looks < 500 || *number < 15) {
            last = last.and_then(look);
            looks += 1;
        }
        // Before anything may fail, or the scope would wait for ever.
        over.store(true, Ordering::Relaxed);
        last
    });
    let number = looked.unwrap();
    assert!(number >= 15, "{number}");
    status_with(&server, "all is well", |status| status["status"] == "ok");
}

/// Everything `/health` says is in it, and who it is of.
#[test]
fn the_status_file_says_what_health_says_and_of_whom() {
    let server = TestServer::start(&FLAGS);
    stream_goes_on(&server);
    server.send(state_change("m", "a", "b", 1.5));
    let status = status_with(&server, "everything is counted", |status| {
        status["events_forwarded"] == 21
    });
    let health = server.health();
    for (key, value) in health.as_object().unwrap() {
        assert!(status.get(key).is_some(), "{key} is missing: {status}");
        // These move by themselves.
        if ![
            "uptime_seconds",
            "seconds_since_last_event",
            "connections",
            "clients_ended",
            "slow_operations",
        ]
        .contains(&&key[..])
        {
            assert_eq!(&status[key], value, "{key}");
        }
    }
    assert_eq!(status["pid"], server.pid());
    assert_eq!(status["address"], server.address.to_string());
    assert_eq!(status["event_socket_path"], server.socket_path().to_str().unwrap());
    assert_eq!(status["interval_seconds"], 0.2);
    let written = status["written_at"].as_f64().unwrap();
    let modified = fs::metadata(server.path(STATUS)).unwrap().modified().unwrap();
    let modified = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    // The file may have been replaced since it was read, but not been written before it was made.
    assert!(modified > written - 1.0, "{modified} {written}");
    let rfc = status["written_at_rfc3339"].as_str().unwrap();
    assert_eq!((rfc.len(), &rfc[10..11], &rfc[23..]), (24, "T", "Z"), "{rfc}");
}

/// The check of docs/operating.md, run as it stands there: whether it is content.
fn shell_check(path: &Path, seconds: u32) -> bool {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page
        .split_once("```sh\n# threadcast-alive")
        .expect("the check is on the page");
    let (check, _) = rest.split_once("```").unwrap();
    let status = Command::new("sh")
        .args(["-c", &format!("#{check}"), "check"])
        .arg(path)
        .arg(seconds.to_string())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    status.success()
}

#[test]
fn a_stopped_or_killed_server_shows_by_the_age_of_its_status_file() {
    let mut server = TestServer::start(&FLAGS);
    let path = server.path(STATUS);
    assert!(!shell_check(&server.path("no such file"), 2));
    eventually("the documented check is content", || {
        shell_check(&path, 5).then_some(())
    });

    server.suspend();
    let still = status(&server);
    eventually("the check alarms", || (!shell_check(&path, 1)).then_some(()));
    assert_eq!(status(&server)["heartbeat"]["number"], still["heartbeat"]["number"]);
    server.signal(Signal::CONT);
    eventually("it is content again", || shell_check(&path, 5).then_some(()));
    status_with(&server, "the pause is nobody's fault", |status| {
        status["status"] == "ok"
    });

    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    let left = status(&server);
    assert_eq!(left["status"], "ok", "it is left as it was");
    eventually("the check alarms", || (!shell_check(&path, 1)).then_some(()));
    // The next server takes the file over at once, not after its first interval.
    let folder = server.folder();
    let next = TestServer::start_in(folder, &["--heartbeat-interval", "1h", "--status-file", STATUS]);
    let status = status_with(&next, "it is the next one's", |status| status["pid"] == next.pid());
    assert_eq!(status["heartbeat"]["number"], 0);
    assert_eq!(status["heartbeat"]["events_per_second"], Value::Null);
}

#[test]
fn a_hung_fanout_does_not_stop_the_status_file_which_names_it() {
    let mut server = TestServer::start(&[&FLAGS[..], &DRILL].concat());
    status_with(&server, "well", |status| status["status"] == "ok");
    freeze(&server, "fanout", Duration::from_secs(60));
    // A look may show somebody else late, whom a busy machine gives no processor.
    let hung = status_with(&server, "it says hung, and of nobody else", |status| {
        status["status"] == "hung" && status["reasons"][1].is_null()
    });
    let reason = hung["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("fanout is hung: "), "{reason}");
    let number = hung["heartbeat"]["number"].as_u64();
    status_with(&server, "it goes on being written", |status| {
        status["status"] == "hung" && status["heartbeat"]["number"].as_u64() > number.map(|number| number + 2)
    });
    server.wait_for_line(" | status=hung: fanout is hung: ");
    assert!(!shell_check(&server.path(STATUS), 5));
    freeze(&server, "fanout", Duration::ZERO);
    status_with(&server, "well again", |status| {
        status["status"] == "ok" && status["reasons"][0].is_null()
    });

    freeze(&server, "fanout", Duration::from_secs(60));
    status_with(&server, "it says hung", |status| status["status"] == "hung");
    server.stop();
    assert_eq!(status(&server)["status"], "stopped");
}

/// `heartbeat` and `files` are no part of an event's way, and their standing still is said by others.
#[test]
fn a_frozen_heartbeat_or_a_frozen_writer_is_said_and_harms_no_event() {
    let server = TestServer::start(&[&FLAGS[..], &DRILL].concat());
    for component in ["heartbeat", "files"] {
        freeze(&server, component, Duration::from_secs(60));
        let health = eventually("health names it", || {
            let health = server.health();
            let reason = health["reasons"][0].as_str()?.to_owned();
            reason.starts_with(&format!("{component} is hung: ")).then_some(health)
        });
        assert_eq!(health["status"], "degraded", "{health}");
        let old = status(&server);
        stream_goes_on(&server);
        assert_eq!(status(&server), old, "the status file is old, which shows it");
        if component == "files" {
            server.wait_for_line(" | status=degraded: files is ");
        }
        freeze(&server, component, Duration::ZERO);
        status_with(&server, "it is written again", |status| {
            status["heartbeat"]["number"] != old["heartbeat"]["number"] && status["status"] == "ok"
        });
    }
}

#[test]
fn an_ordered_stop_leaves_the_word_stopped_and_nothing_else() {
    in_both_shapes(|delivery| {
        let mut server = TestServer::start(&[&["--delivery", delivery][..], &FLAGS].concat());
        let _clients = [server.client(), server.client()];
        status_with(&server, "both are there", |status| status["connections"] == 2);
        assert_eq!(server.stop().code(), Some(0));
        let status = status(&server);
        assert_eq!(status["status"], "stopped");
        assert_eq!(status["connections"], 0);
        assert_eq!(status["unix_socket_active"], false);
        assert_eq!(status["clients_ended"]["stopping"], 2);
        for rest in ["status.json.lock", "status.json.new"] {
            assert!(!server.path(rest).exists(), "{rest}");
        }
        assert!(!shell_check(&server.path(STATUS), 60));
    });
}

#[test]
fn a_stop_while_clients_take_their_time_is_no_fault_of_threads_that_have_ended() {
    let flags = ["--heartbeat-interval", "100ms", "--status-file", STATUS];
    let mut server = TestServer::start(&[&flags[..], &DRILL].concat());
    // They never answer the server's close frame, so that the stop takes its second for them.
    let _clients = [server.client(), server.client()];
    status_with(&server, "both are there", |status| status["connections"] == 2);
    server.signal(Signal::TERM);
    status_with(&server, "it says that it stops", |status| {
        // "stopped" if this machine let us look only then.
        ["stopping", "stopped"].iter().any(|word| status["status"] == *word)
    });
    assert_eq!(server.wait_for_end(DEADLINE).code(), Some(0));
    assert_eq!(status(&server)["status"], "stopped");
    for word in ["hung", "late", "degraded"] {
        assert!(!server.lines().all().contains(word), "{word}");
    }
}

#[test]
fn a_missing_folder_is_made_and_an_impossible_one_is_said_while_the_stream_goes_on() {
    let made = TestServer::start(&["--heartbeat-interval", "200ms", "--status-file", "a/b/status.json"]);
    eventually("it is there", || made.path("a/b/status.json").exists().then_some(()));

    let folder = folder();
    fs::write(folder.path().join("file"), "x").unwrap();
    let flags = ["--heartbeat-interval", "200ms", "--status-file", "file/status.json"];
    let mut server = TestServer::start_in(Arc::clone(&folder), &flags);
    let line = server.wait_for_line("🚨 cannot write file/status.json: ");
    assert!(line.contains("whoever watches it"), "{line}");
    stream_goes_on(&server);
    assert_eq!(server.health()["status"], "ok");
    // The state file is not disturbed.
    server.send(state_change("m", "a", "b", 1.5));
    wait_for_machines(&server.path("logs/threadcast-state.json"), 1);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(server.lines().with("🚨 cannot write").len(), 1, "said once");
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"x");
}

#[track_caller]
fn wait_for_machines(state: &Path, count: usize) {
    eventually("the state is saved", || {
        let state: Value = serde_json::from_slice(&fs::read(state).ok()?).unwrap();
        (state["machines"].as_array()?.len() == count).then_some(())
    });
}

/// A server with a small disk of its own in `disk`, prepared by `script`.
fn with_disk(flags: &[&str], shell: &[&str], script: &str) -> TestServer {
    let folder = folder();
    fs::create_dir(folder.path().join("disk")).unwrap();
    TestServer::start_command(folder, flags, |command| in_shell(command, shell, script))
}

/// The server's own view of its disk.
fn disk(server: &TestServer) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", server.pid(), server.path("disk").display()))
}

const FULL: &str = "mount -t tmpfs -o size=16k tmpfs disk && (cat /dev/zero > disk/filler 2> /dev/null; true)";

#[test]
fn a_full_or_read_only_disk_costs_the_status_and_nothing_else() {
    let Some(shell) = mounting_shell() else { return };
    let flags = ["--heartbeat-interval", "200ms", "--status-file", "disk/status.json"];
    let read_only = with_disk(&flags, shell, "mount -t tmpfs -o ro tmpfs disk");
    read_only.wait_for_line("🚨 cannot write disk/status.json: Read-only file system");
    stream_goes_on(&read_only);

    let server = with_disk(&flags, shell, FULL);
    server.wait_for_line("🚨 cannot write disk/status.json: No space left");
    stream_goes_on(&server);
    server.send(state_change("m", "a", "b", 1.5));
    wait_for_machines(&server.path("logs/threadcast-state.json"), 1);
    assert_eq!(server.health()["status"], "ok");
    let disk = disk(&server);
    fs::remove_file(disk.join("filler")).unwrap();
    server.wait_for_line("✅ disk/status.json can be written again");
    assert_eq!(status_at(&disk.join("status.json"))["pid"], server.pid());
}

#[test]
fn a_full_disk_of_the_state_file_costs_no_status() {
    let Some(shell) = mounting_shell() else { return };
    let flags = [&FLAGS[..], &["--state-file", "disk/state.json"]].concat();
    // Room for the lock, so that the state file is ours; then none.
    let script = format!("{FULL}; truncate -s 8192 disk/filler");
    let server = with_disk(&flags, shell, &script);
    let disk = disk(&server);
    eventually("the disk is full", || {
        fs::write(disk.join("more"), vec![0; 16 * 1024]).err().map(|_| ())
    });
    server.send(state_change("m", "a", "b", 1.5));
    server.wait_for_line("🚨 cannot write disk/state.json: No space left");
    let number = status(&server)["heartbeat"]["number"].as_u64().unwrap();
    status_with(&server, "it goes on being written", |status| {
        status["heartbeat"]["number"].as_u64() > Some(number + 5) && status["machines"] == 1
    });
    for file in ["filler", "more"] {
        fs::remove_file(disk.join(file)).unwrap();
    }
    server.wait_for_line("✅ disk/state.json can be written again");
    wait_for_machines(&disk.join("state.json"), 1);
    assert!(server.lines().with("cannot write status.json").is_empty());
}

#[test]
fn the_second_server_on_a_status_file_says_so_and_leaves_it_alone() {
    let first = TestServer::start(&FLAGS);
    let path = first.path(STATUS);
    let path = path.to_str().unwrap();
    let mut second = TestServer::start(&["--heartbeat-interval", "200ms", "--status-file", path]);
    let line = second.wait_for_line("will not be written");
    let named = [path, &format!("process {}", first.pid()), "--status-file"];
    assert!(named.iter().all(|part| line.contains(part)), "{line}");
    second.wait_for_line("💓 Server heartbeat #3 |");
    stream_goes_on(&second);
    assert_eq!(second.stop().code(), Some(0));
    let status = status(&first);
    assert_eq!((&status["pid"], &status["status"]), (&first.pid().into(), &"ok".into()));
}

#[test]
fn the_status_file_must_not_be_the_state_file() {
    let folder = folder();
    for flags in [
        &["--status-file", "x.json", "--state-file", "./x.json"][..],
        &["--status-file", "logs/threadcast-state.json"],
    ] {
        let (code, _, said) = run(folder.path(), &[&["serve", "--port", "0"][..], flags].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("status-file cannot be"), "{said}");
    }
    let (code, _, said) = run(folder.path(), &["serve", "--heartbeat-interval", "99ms"]);
    assert_eq!(code, 2, "{said}");
}
