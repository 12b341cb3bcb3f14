//! What a service starts with.

use super::*;
use rustix::fs::{CWD, FileType, Mode};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_service_inherits_no_signal_and_no_descriptor() {
    alone("starting::a_service_inherits_no_signal_and_no_descriptor", || {
        let mut run = Run::new(1);
        // As a shell's `&` and nohup(1) do, and as a program does that forgets close-on-exec.
        let script = "trap '' INT HUP QUIT; exec 7</dev/zero; exec \"$0\" \"$@\"";
        let inner = "supervise::tests::starting::inner_supervisor";
        let log = run.log("inner");
        let status = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .args([inner, "--exact", "--nocapture", "--test-threads=1"])
            .env(ALONE, inner)
            .env("INNER_LOG", &log)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        let said = fs::read_to_string(&log).unwrap();
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}: {said}")).trim().to_owned()
        };
        assert_eq!(value("SigBlk:"), "0".repeat(16));
        assert_eq!(value("SigIgn:"), "0".repeat(16));
        assert_eq!(value("input:"), "/dev/null");
        // 3 is the folder that ls itself reads.
        assert_eq!(value("descriptors:"), "0 1 2 3", "{said}");
        assert_eq!(value("group:"), value("pid:"));
        assert_eq!(value("PYTHONUNBUFFERED="), "1");
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
        run.census.look().unwrap();
    });
}

/// Runs in the process that the test above starts.
#[test]
fn inner_supervisor() {
    let Some(log) = std::env::var_os("INNER_LOG") else {
        return;
    };
    assert!(rustix::io::fcntl_getfd(std::io::stderr()).is_ok());
    assert!(
        fs::read_link("/proc/self/fd/7").is_ok(),
        "the foreign descriptor is there"
    );
    let children = Children::default();
    let mark = Mark {
        run: RunId([3; 16]),
        service: "inner".to_owned(),
        n: 1,
    };
    let script = "grep -h Sig /proc/self/status; echo input: $(readlink /proc/self/fd/0); \
                  echo descriptors: $(ls /proc/self/fd); echo pid: $$; echo group: $(cut -d' ' -f5 /proc/$$/stat); env";
    let command = ["sh", "-c", script].map(str::to_owned);
    let launch = Launch {
        command: &command,
        cwd: Path::new("/"),
        environment: &[],
        mark: &mark,
        log: Path::new(&log),
        is_unbuffered: true,
    };
    let leader = spawn::start(&launch, &children).unwrap();
    eventually("it ends", || leader.ending().is_some());
    assert_eq!(leader.reap().unwrap().to_string(), "exit status 0");
    assert!(children.listed().list.is_empty());
}

#[test]
fn a_service_that_does_not_start_says_why_and_what_helps() {
    alone(
        "starting::a_service_that_does_not_start_says_why_and_what_helps",
        || {
            let mut run = Run::new(1);
            let folder = run.folder.path().to_owned();
            let file = |name: &str, text: &str, mode: u32| {
                let path = folder.join(name);
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                path.to_str().unwrap().to_owned()
            };
            let lost = file("lost", "#!/nowhere/python\n", 0o755);
            let closed = file("closed", "#!/bin/sh\n", 0o644);
            for (command, env, part) in [
                (vec![], None, "has no command"),
                (
                    vec!["no-such-program", "x"],
                    None,
                    "there is no no-such-program in its PATH",
                ),
                (
                    vec!["sh"],
                    Some(("PATH", "/nowhere")),
                    "in its PATH (/nowhere), as far as",
                ),
                (vec!["/nowhere/program"], None, "there is no /nowhere/program"),
                (vec!["./program"], None, "there is no /./program"),
                (vec![&lost], None, "the interpreter in its first line"),
                (vec![&closed], None, "chmod +x"),
                (vec!["true", "a\0b"], None, "leave out NUL"),
            ] {
                let env: Vec<(&str, &str)> = env.into_iter().collect();
                let error = run.try_start("a", &command, &env).unwrap_err().to_string();
                assert!(error.contains(part), "{command:?}: {error}");
                let listed = run.children.listed();
                assert!(listed.is_complete && listed.list.is_empty(), "{listed:?}");
            }
            let log = run.log("fifo");
            rustix::fs::mknodat(CWD, &log, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
            let error = run.try_start("fifo", &["true"], &[]).unwrap_err().to_string();
            assert!(
                error.contains("cannot open log file") && error.contains("another log_dir"),
                "{error}"
            );
            let mark = Mark {
                run: run.id,
                service: "a".to_owned(),
                n: 1,
            };
            let launch = Launch {
                command: &["true".to_owned()],
                cwd: Path::new("/nowhere"),
                environment: &[],
                mark: &mark,
                log: &run.log("a"),
                is_unbuffered: false,
            };
            let error = spawn::start(&launch, &run.children).unwrap_err().to_string();
            assert!(
                error.contains("its folder /nowhere cannot be entered") && error.contains("`cwd`"),
                "{error}"
            );
        },
    );
}

#[test]
fn the_end_of_a_leader_is_seen_before_it_is_reaped() {
    alone("starting::the_end_of_a_leader_is_seen_before_it_is_reaped", || {
        let mut run = Run::new(1);
        for (script, words) in [
            ("exit 7", "exit status 7"),
            ("kill -TERM $$", "signal 15 (SIGTERM)"),
            ("ulimit -c 0; kill -SEGV $$", "signal 11 (SIGSEGV)"),
            ("kill -40 $$", "signal 40"),
        ] {
            let leader = run.start("a", script);
            eventually("it ends", || leader.ending().is_some());
            // Neither a look nor the reaper of orphans takes it away.
            run.census.look().unwrap();
            assert_eq!(orphans::reap(&run.census, &run.children), 0);
            assert_eq!(leader.ending().unwrap().to_string(), words);
            let identity = leader.identity();
            assert_eq!(
                Identity::of(identity.pid),
                Some(identity),
                "its number is still its own"
            );
            assert_eq!(leader.reap().unwrap().to_string(), words);
            assert_eq!(Identity::of(identity.pid), None);
        }
        let leader = run.start("a", "exec sleep 600");
        assert_eq!(leader.ending(), None);
        let leader = leader.reap().unwrap_err();
        let adopted = Leader::adopted(leader.identity()).unwrap();
        assert!(adopted.is_adopted() && adopted.ending().is_none());
        leader.identity().signal(Signal::KILL).unwrap();
        eventually("it ends", || leader.ending().is_some());
        eventually("the other one sees it", || adopted.ending().is_some());
        assert_eq!(adopted.reap().unwrap().to_string(), "status unknown");
        assert_eq!(leader.reap().unwrap().to_string(), "signal 9 (SIGKILL)");
    });
}

#[test]
fn what_a_service_writes_is_in_its_log_behind_what_was_there() {
    alone(
        "starting::what_a_service_writes_is_in_its_log_behind_what_was_there",
        || {
            let mut run = Run::new(1);
            for script in ["echo one; echo two >&2", "echo three"] {
                let leader = run.start("a", script);
                eventually("it ends", || leader.ending().is_some());
                leader.reap().unwrap();
            }
            assert_eq!(run.said("a"), "one\ntwo\nthree\n");
            let file = fs::File::open(run.log("a")).unwrap();
            assert!(file.as_raw_fd() > 2);
        },
    );
}
