//! Which processes are of a service.

use super::super::census::Whose;
use super::*;

/// The processes of the group `pgid` that are another run's.
fn foreign(run: &Run, pgid: i32) -> Vec<Identity> {
    let found = run.census.processes().iter();
    let found = found.filter(|process| process.stat.pgid == pgid && process.whose == Whose::Foreign);
    found.map(|process| process.identity()).collect()
}

#[test]
fn double_forked_children_in_own_sessions_are_found() {
    alone("finding::double_forked_children_in_own_sessions_are_found", || {
        let mut run = Run::new(1);
        let leader = run.start("a", "setsid sh -c 'sleep 600 & sleep 600 & exec sleep 600' & exit 3");
        eventually("the leader ends", || leader.ending().is_some());
        let found = run.wait_for("a", 3);
        assert!(!found.contains(&leader.identity()), "it has ended");
        assert_eq!(run.census.figures("a").processes, 3);
        assert!(run.census.memory("a").pss_bytes > 10_000 && run.census.memory("a").unknown == 0);
        assert_eq!(run.census.members().len(), 1);
        assert_eq!(leader.reap().unwrap().to_string(), "exit status 3");
    });
}

#[test]
fn a_process_that_clears_its_environment_is_found_by_its_descent() {
    alone(
        "finding::a_process_that_clears_its_environment_is_found_by_its_descent",
        || {
            let mut run = Run::new(1);
            let leader = run.start("a", "env -i setsid sleep 600 & exec sleep 600");
            let found = run.wait_for("a", 2);
            // And it stays found when its parent is gone.
            leader.identity().signal(Signal::KILL).unwrap();
            let left = run.wait_for("a", 1);
            assert!(left.is_subset(&found) && !left.contains(&leader.identity()));
            let at = run.census.find(*left.first().unwrap()).unwrap();
            assert_eq!(at.stat.ppid, std::process::id() as i32, "it came to its subreaper");
        },
    );
}

#[test]
fn an_orphan_without_any_sign_is_unclaimed_unless_its_group_tells() {
    alone(
        "finding::an_orphan_without_any_sign_is_unclaimed_unless_its_group_tells",
        || {
            let mut run = Run::new(1);
            let leader = run.start("a", "env -i sleep 601 & exit 0");
            eventually("the leader ends", || leader.ending().is_some());
            run.wait_for("a", 1);
            // One that was never seen before the leader was reaped.
            let seconds = 1_000_000 + std::process::id();
            let leader = run.start("b", &format!("env -i setsid sleep {seconds} & exit 0"));
            let line = format!("sleep\0{seconds}\0");
            eventually("the leader ends", || leader.ending().is_some());
            eventually("it runs", || {
                let stats = std::fs::read_dir("/proc").unwrap().flatten();
                let mut lines = stats.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
                lines.any(|found| found == line.as_bytes())
            });
            leader.reap().unwrap();
            run.census.look().unwrap();
            assert_eq!(run.census.of("b").count(), 0);
            let unclaimed: Vec<String> = run.census.unclaimed().map(|process| process.stat.name()).collect();
            assert_eq!(unclaimed, ["sleep"]);
        },
    );
}

#[test]
fn two_runs_with_the_same_service_do_not_touch_each_other() {
    alone(
        "finding::two_runs_with_the_same_service_do_not_touch_each_other",
        || {
            let (mut first, mut second) = (Run::new(1), Run::new(2));
            let (_one, other) = (
                first.start("a", "sleep 600 & exec sleep 600"),
                second.start("a", "exec sleep 600"),
            );
            first.wait_for("a", 2);
            second.wait_for("a", 1);
            assert!(matches!(first.stop("a", Duration::from_secs(20)), stop::Next::Gone(_)));
            second.wait_for("a", 1);
            assert_eq!(other.ending(), None);
            assert_eq!(foreign(&first, other.identity().pid), [other.identity()]);
        },
    );
}

/// A supervisor inside of a service: its own services are not the outer one's.
#[test]
fn another_run_inside_of_a_service_is_not_of_the_service() {
    alone("finding::another_run_inside_of_a_service_is_not_of_the_service", || {
        let mut run = Run::new(1);
        let inner = Mark {
            run: RunId([2; 16]),
            service: "a".to_owned(),
            n: 1,
        };
        let inner = format!("THREADCAST_RUN={}", inner.value());
        let script = format!("env {inner} sh -c 'sleep 600 & env -i sleep 600 & wait' & exec sleep 600");
        let leader = run.start("a", &script);
        let group = leader.identity().pid;
        eventually("all three run", || {
            run.census.look().unwrap();
            foreign(&run, group).len() == 3
        });
        assert_eq!(run.census.of("a").count(), 1);
        run.stop("a", Duration::from_secs(20));
        run.census.look().unwrap();
        let foreign = foreign(&run, group);
        assert_eq!(foreign.len(), 3, "nobody has touched them");
        foreign.iter().for_each(|process| process.signal(Signal::KILL).unwrap());
    });
}

/// The mark comes with a program: what a process had before it executed one does not count.
#[test]
fn a_process_that_becomes_another_program_is_judged_anew() {
    alone("finding::a_process_that_becomes_another_program_is_judged_anew", || {
        let mut run = Run::new(1);
        let mark = Mark {
            run: run.id,
            service: "a".to_owned(),
            n: 7,
        };
        let mut child = Command::new("sh")
            .args([
                "-c",
                "read line; exec env THREADCAST_RUN=$1 sleep 600",
                "sh",
                &mark.value(),
            ])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        for _ in 0..3 {
            run.census.look().unwrap();
            assert_eq!(run.census.of("a").count(), 0);
        }
        drop(child.stdin.take());
        run.wait_for("a", 1);
        assert_eq!(run.census.members(), [Run::member("a", 7)].into());
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_supervisor_is_never_of_its_own_service() {
    const PATH: &str = "supervise::tests::finding::a_supervisor_is_never_of_its_own_service";
    if std::env::var(ALONE).is_ok_and(|test| test == PATH) {
        spawn::prepare().unwrap();
        let own: Mark = std::env::var("THREADCAST_RUN").unwrap().parse().unwrap();
        let mut run = Run::of(own.run);
        assert_eq!(run.census.of("a").count(), 0, "neither this process nor its parent");
        // What was started with the mark beside us is of the service all the same.
        let _leader = run.start("a", "exec sleep 600");
        run.wait_for("a", 1);
        return;
    }
    let run = RunId(u128::from(std::process::id()).to_be_bytes());
    let shell = format!("\"$0\" {PATH} --exact --nocapture --test-threads=1; exit $?");
    let status = Command::new("sh")
        .stdout(Stdio::null())
        .args(["-c", &shell])
        .arg(std::env::current_exe().unwrap())
        .envs([(ALONE, PATH), ("THREADCAST_RUN", &format!("{run}/a/7"))])
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn children_of_before_are_not_taken_for_orphans() {
    alone("finding::children_of_before_are_not_taken_for_orphans", || {
        let mut before = Command::new("sleep").arg("600").spawn().unwrap();
        let mut run = Run::new(1);
        run.census.look().unwrap();
        assert_eq!(run.census.unclaimed().count(), 0);
        before.kill().unwrap();
        before.wait().unwrap();
    });
}

/// 2,000 processes are to take 30 ms of processor time at most, or 15 µs each. Other tests run meanwhile, so the bound
/// is wider.
#[test]
fn a_look_is_cheap() {
    alone("finding::a_look_is_cheap", || {
        const PROCESSES: usize = 300;
        const EACH_MAX: Duration = Duration::from_micros(60);
        let mut run = Run::new(1);
        let script = format!("i=1; while [ $i -lt {PROCESSES} ]; do sleep 600 & i=$((i+1)); done; exec sleep 600");
        let _leader = run.start("a", &script);
        run.wait_for("a", PROCESSES);
        let cpu = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let took = (0..20).map(|_| {
            let before = cpu();
            run.census.look().unwrap();
            (cpu() - before) / run.census.processes().len() as u32
        });
        let least = took.min().unwrap();
        assert!(least < EACH_MAX, "{least:?} for each process");
    });
}
