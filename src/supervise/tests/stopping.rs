//! Stop means all of it.

use super::stop::{Gone, How, Left, Next, Stopping, Target, left_in_words};
use super::*;
use rustix::io::Errno;
use rustix::process::Pid;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn gone(next: &Next) -> Gone {
    match next {
        Next::Gone(gone) => gone.clone(),
        next => panic!("{next:?}"),
    }
}

#[test]
fn a_service_that_obeys_has_its_time_and_no_more_is_waited() {
    alone(
        "stopping::a_service_that_obeys_has_its_time_and_no_more_is_waited",
        || {
            let mut run = Run::new(1);
            let leader = run.start("a", "trap 'echo bye; exit 4' TERM; echo ready; sleep 600 & wait");
            eventually("it is ready", || run.said("a").contains("ready"));
            let gone = gone(&run.stop("a", LONG));
            assert!(gone.killed == 0 && gone.took < LONG / 2, "{gone:?}");
            assert!(run.said("a").contains("bye"));
            assert_eq!(leader.reap().unwrap().to_string(), "exit status 4");
        },
    );
}

/// What a signal finds between fork(2) and execve(2) is the parent's handler, and the program never hears of it.
#[test]
fn a_program_that_begins_behind_the_signal_gets_it_too() {
    alone("stopping::a_program_that_begins_behind_the_signal_gets_it_too", || {
        let mut run = Run::new(1);
        // The shell takes the signal and becomes a program that would obey it.
        let leader = run.start(
            "a",
            "trap 'exec sleep 600' TERM; echo ready; while :; do sleep 0.05; done",
        );
        eventually("it is ready", || run.said("a").contains("ready"));
        let gone = gone(&run.stop("a", LONG));
        assert!(gone.killed == 0 && gone.took < LONG / 2, "{gone:?}");
        assert_eq!(leader.reap().unwrap().to_string(), "signal 15 (SIGTERM)");
    });
}

#[test]
fn a_service_that_ignores_the_signal_is_killed() {
    alone("stopping::a_service_that_ignores_the_signal_is_killed", || {
        let mut run = Run::new(1);
        let leader = run.start("a", "trap '' TERM; sleep 600 & echo ready; wait; sleep 600");
        eventually("it is ready", || run.said("a").contains("ready"));
        run.wait_for("a", 2);
        let gone = gone(&run.stop("a", SHORT));
        assert!(gone.killed == 2 && gone.took >= SHORT, "{gone:?}");
        assert_eq!(leader.reap().unwrap().to_string(), "signal 9 (SIGKILL)");
    });
}

#[test]
fn double_forked_children_that_ignore_the_signal_are_gone_after_the_stop() {
    alone(
        "stopping::double_forked_children_that_ignore_the_signal_are_gone_after_the_stop",
        || {
            let mut run = Run::new(1);
            let child = "setsid sh -c \"trap '' TERM; echo ready; exec sleep 600\" &";
            let leader = run.start(
                "a",
                &format!("(({child}) &); env -i {child} (({child}) &); exec sleep 600"),
            );
            eventually("all three are ready", || run.said("a").lines().count() == 3);
            let all = run.wait_for("a", 4);
            let gone = gone(&run.stop("a", SHORT));
            assert_eq!(gone.killed, 3);
            for process in all.iter().filter(|process| **process != leader.identity()) {
                assert_eq!(Identity::of(process.pid), None, "it was not reaped");
            }
            assert_eq!(leader.reap().unwrap().to_string(), "signal 15 (SIGTERM)");
        },
    );
}

#[test]
fn a_leader_that_obeys_while_its_child_stays_is_no_success_until_the_child_is_gone() {
    alone(
        "stopping::a_leader_that_obeys_while_its_child_stays_is_no_success_until_the_child_is_gone",
        || {
            let mut run = Run::new(1);
            let leader = run.start(
                "a",
                "setsid sh -c \"trap '' TERM; echo ready; exec sleep 600\" & exec sleep 600",
            );
            eventually("the child is ready", || run.said("a").contains("ready"));
            let all = run.wait_for("a", 2);
            let child = all.into_iter().find(|process| *process != leader.identity()).unwrap();
            let how = How {
                signal: Signal::TERM,
                wait: LONG,
            };
            let mut stopping = Stopping::begin(Target::Service("a".into()), how, Instant::now());
            let step = |run: &mut Run, stopping: &mut Stopping| {
                run.census.look().unwrap();
                orphans::reap(&run.census, &run.children);
                stopping.step(Instant::now(), &run.census)
            };
            step(&mut run, &mut stopping);
            eventually("the leader obeys", || leader.ending().is_some());
            for _ in 0..5 {
                assert!(matches!(step(&mut run, &mut stopping), Next::LookIn(_)));
            }
            // The leader keeps its number meanwhile.
            assert_eq!(Identity::of(leader.identity().pid), Some(leader.identity()));
            assert!(!stopping.is_killing());
            child.signal(Signal::KILL).unwrap();
            let mut last = step(&mut run, &mut stopping);
            eventually("it is over", || {
                last = step(&mut run, &mut stopping);
                !matches!(last, Next::LookIn(_))
            });
            assert_eq!(gone(&last).killed, 0);
            assert_eq!(leader.reap().unwrap().to_string(), "signal 15 (SIGTERM)");
        },
    );
}

#[test]
fn a_bounded_bomb_of_forks_is_gone() {
    alone("stopping::a_bounded_bomb_of_forks_is_gone", || {
        let mut run = Run::new(1);
        // Each of 60 in a session of its own ignores the signal and starts others, one after the other; 40 a piece.
        let child = "trap '' TERM INT HUP; echo ready; i=0; while [ $i -lt 40 ]; do (sleep 0.05 &); sleep 0.01; i=$((i+1)); done; \
                     exec sleep 600";
        let script = format!(
            "i=0; while [ $i -lt 60 ]; do setsid sh -c \"{}\" & i=$((i+1)); done; wait",
            child.replace('$', "\\$")
        );
        let leader = run.start("a", &script);
        eventually("all have begun", || run.said("a").lines().count() == 60);
        let gone = gone(&run.stop("a", SHORT));
        assert!(gone.killed >= 60, "{gone:?}");
        run.wait_for("a", 0);
        assert_eq!(run.census.unclaimed().count(), 0);
        leader.reap().unwrap();
    });
}

#[test]
fn a_service_that_somebody_has_stopped_heeds_the_signal() {
    alone("stopping::a_service_that_somebody_has_stopped_heeds_the_signal", || {
        let mut run = Run::new(1);
        let leader = run.start("a", "trap 'exit 4' TERM; kill -STOP $$; sleep 0.01; exit 5");
        eventually("it is stopped", || {
            run.census.look().unwrap();
            run.census.figures("a").stopped == 1
        });
        assert_eq!(gone(&run.stop("a", LONG)).killed, 0);
        assert_eq!(leader.reap().unwrap().to_string(), "exit status 4");
    });
}

#[test]
fn what_is_left_is_named_and_is_no_success() {
    alone("stopping::what_is_left_is_named_and_is_no_success", || {
        let mut run = Run::new(1);
        let _first = run.start("a", "exec sleep 600");
        run.wait_for("a", 1);
        let how = How {
            signal: Signal::TERM,
            wait: Duration::ZERO,
        };
        let begun = Instant::now();
        let mut stopping = Stopping::begin(Target::Service("a".into()), how, begun);
        assert!(matches!(stopping.step(begun, &run.census), Next::LookIn(_)));
        // Somebody starts more of it all the time, until the time for that is over.
        let last = run.start("a", "exec sleep 777");
        eventually("only that one runs", || {
            run.census.look().unwrap();
            run.census
                .of("a")
                .map(|process| process.identity())
                .eq([last.identity()])
        });
        eventually("it is the program", || {
            run.census.look().is_ok()
                && run
                    .census
                    .processes()
                    .iter()
                    .any(|process| process.identity() == last.identity() && process.stat.name() == "sleep")
        });
        let Next::Left(left) = stopping.step(begun + Duration::from_secs(11), &run.census) else {
            panic!("{stopping:?}");
        };
        let words = left_in_words("a", &left);
        let expected = format!(
            "a is not stopped: 1 process is left: process {} (sleep 777), in state ",
            last.identity().pid
        );
        assert!(words.starts_with(&expected), "{words}");
    });
}

#[test]
fn orphans_of_no_known_service_can_be_stopped_too() {
    alone("stopping::orphans_of_no_known_service_can_be_stopped_too", || {
        let mut run = Run::new(1);
        let leader = run.start(
            "a",
            "env -i setsid sh -c \"trap '' TERM; echo ready; exec sleep 600\" & exit 0",
        );
        eventually("the leader ends", || leader.ending().is_some());
        eventually("the orphan is ready", || run.said("a").contains("ready"));
        leader.reap().unwrap();
        run.census.look().unwrap();
        assert_eq!((run.census.of("a").count(), run.census.unclaimed().count()), (0, 1));
        let how = How {
            signal: Signal::TERM,
            wait: Duration::from_millis(20),
        };
        let mut stopping = Stopping::begin(Target::Rest(BTreeSet::new()), how, Instant::now());
        let mut last = Next::LookIn(Duration::ZERO);
        eventually("it is over", || {
            run.census.look().unwrap();
            orphans::reap(&run.census, &run.children);
            last = stopping.step(Instant::now(), &run.census);
            !matches!(last, Next::LookIn(_))
        });
        assert_eq!(gone(&last).killed, 1);
    });
}

#[test]
fn why_a_process_is_left_is_said() {
    let left = |state, refused| Left {
        process: Identity { pid: 7, start: 1 },
        state,
        command: "dd".to_owned(),
        refused,
    };
    let left = [
        left('D', None),
        left('S', Some(Errno::PERM)),
        left('S', Some(Errno::MFILE)),
    ];
    let words = left_in_words("a", &left);
    for part in [
        "a is not stopped: 3 processes are left: process 7 (dd), which hangs in the kernel (state D)",
        "it ends when that answers; process 7 (dd), which belongs to another user; end it as",
        "; process 7 (dd), which could not be signaled: ",
    ] {
        assert!(words.contains(part), "{words}");
    }
}

/// Sets the number before the next process's, in this process namespace only.
fn set_last_pid(pid: i32) -> std::io::Result<()> {
    std::fs::write("/proc/sys/kernel/ns_last_pid", pid.to_string())
}

#[test]
fn a_stranger_that_got_the_number_of_a_process_is_not_signaled() {
    const PATH: &str = "supervise::tests::stopping::a_stranger_that_got_the_number_of_a_process_is_not_signaled";
    if std::env::var_os("IN_A_NAMESPACE").is_some() {
        spawn::prepare().unwrap();
        return reuse_a_number();
    }
    // A namespace of processes of its own, so that no number of the host is touched.
    let probe = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let can = Command::new("unshare")
        .args(probe)
        .args(["sh", "-c", "echo 100 >/proc/sys/kernel/ns_last_pid"])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skipped(
            "a process number that is given away again, because no namespace of processes can be made here",
        );
    }
    let status = Command::new("unshare")
        .args(probe)
        .arg(std::env::current_exe().unwrap())
        .args([PATH, "--exact", "--nocapture", "--test-threads=1"])
        .env("IN_A_NAMESPACE", "1")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

fn reuse_a_number() {
    let mut run = Run::new(1);
    let leader = run.start("a", "setsid sleep 600 & exec sleep 600");
    let all = run.wait_for("a", 2);
    let child = all.into_iter().find(|process| *process != leader.identity()).unwrap();
    // Start times count in ticks.
    eventually("a tick is over", || {
        let mut later = Command::new("true").spawn().unwrap();
        let start = Identity::of(later.id() as i32).unwrap().start;
        later.wait().unwrap();
        start > child.start
    });
    // It ends, and is reaped, behind the look that the stop will judge.
    child.signal(Signal::KILL).unwrap();
    eventually("the child ends", || {
        super::super::stat::of(child.pid).is_none_or(|stat| stat.has_ended())
    });
    leader.identity().signal(Signal::KILL).unwrap();
    let pid = Pid::from_raw(child.pid).unwrap();
    eventually("the child is reaped", || {
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
        Identity::of(child.pid).is_none()
    });
    let mut stranger = None;
    eventually("the number is given away again", || {
        set_last_pid(child.pid - 1).unwrap();
        let mut started = Command::new("sleep").arg("600").spawn().unwrap();
        if started.id() as i32 == child.pid {
            stranger = Some(started);
            return true;
        }
        started.kill().unwrap();
        started.wait().unwrap();
        false
    });
    let mut stranger = stranger.unwrap();
    let how = How {
        signal: Signal::TERM,
        wait: Duration::ZERO,
    };
    let mut stopping = Stopping::begin(Target::Service("a".into()), how, Instant::now());
    assert!(run.census.find(child).is_some(), "the look is an old one");
    stopping.step(Instant::now(), &run.census);
    assert!(stopping.is_killing());
    // The kernel has delivered a KILL before the call that sends it is over, to a process that only sleeps.
    for _ in 0..20 {
        pause(Duration::from_millis(5));
        assert!(stranger.try_wait().unwrap().is_none(), "the stranger was signaled");
    }
    // A new look knows that it is somebody else.
    run.census.look().unwrap();
    assert!(run.census.find(child).is_none());
    assert!(run.census.of("a").all(|process| process.stat.pid != child.pid));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}
