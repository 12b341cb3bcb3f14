//! A supervisor that was killed, and the next one.

use super::adopt::{Adopted, Adoption, Why, adopt};
use super::launch::launch;
use super::record::{Here, RecordFile, State};
use super::run_folder::RunFolder;
use super::stop::{How, Next, Stopping, Target};
use super::*;
use std::fs;
use std::os::unix::process::ExitStatusExt;

const SERVICES: [&str; 2] = ["a", "b"];
/// One that obeys, and one in a session of its own that does not.
const SCRIPT: &str = "echo begun; setsid sh -c \"trap '' TERM; exec sleep 600\" & exec sleep 600";
/// Steps of writing the record before and after the start of each service, and the start.
const STEPS: usize = SERVICES.len() * (6 + 1 + 6);

/// Takes over what runs below `folder`, and starts what does not. Returns its children.
fn supervise(folder: &Path, mut after_each_step: impl FnMut() + Send + 'static) -> Vec<Leader> {
    let (run_folder, _) = RunFolder::open(&folder.join("run")).unwrap();
    let children = Children::default();
    let mut census = Census::new(run_folder.id(), children.clone()).unwrap();
    let here = Here::now().unwrap();
    let (mut file, earlier) = RecordFile::open(&run_folder, here.clone()).unwrap();
    file.after_each_step(move |_| after_each_step());
    let adoption = adopt(earlier.unwrap().as_ref(), &here, &mut census).unwrap();
    assert!(
        adoption.remains.is_empty() && adoption.unverifiable.is_empty(),
        "{adoption:?}"
    );
    let mut leaders = Vec::new();
    for service in SERVICES {
        let is_it = |adopted: &&Adopted| &*adopted.member.service == service;
        if let Some(adopted) = adoption.adopted.iter().find(is_it) {
            file.runs(service, adopted.member.n, adopted.leader).unwrap();
            leaders.push(Leader::adopted(adopted.leader).unwrap());
            continue;
        }
        let mark = Mark {
            run: run_folder.id(),
            service: service.to_owned(),
            n: file.next_n(service, 0),
        };
        let command = ["sh", "-c", SCRIPT].map(str::to_owned);
        let what = Launch {
            command: &command,
            cwd: Path::new("/"),
            environment: &[],
            mark: &mark,
            log: &folder.join(format!("{service}.log")),
            is_unbuffered: true,
        };
        leaders.push(launch(&mut file, &what, &children).unwrap().leader);
    }
    leaders
}

/// Runs in a process of its own, which the test below starts, and is killed behind step FAULT.
#[test]
fn a_supervisor_that_is_killed() {
    let Some(folder) = std::env::var_os("SUPERVISED") else {
        return;
    };
    let mut left: usize = std::env::var("FAULT").unwrap().parse().unwrap();
    let die = || rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    supervise(Path::new(&folder), move || {
        left -= 1;
        if left == 0 {
            die().unwrap();
        }
    });
    // Without an orderly stop in any case.
    die().unwrap();
}

#[test]
fn a_supervisor_killed_at_any_step_leaves_nothing_twice_and_nothing_unseen() {
    const NAME: &str = "adopting::a_supervisor_killed_at_any_step_leaves_nothing_twice_and_nothing_unseen";
    alone(NAME, || {
        let folder = tempfile::tempdir().unwrap();
        for fault in 1..=STEPS + 1 {
            let before = SERVICES.map(|service| starts(folder.path(), service));
            let path = "supervise::tests::adopting::a_supervisor_that_is_killed";
            for fault in [fault, usize::MAX] {
                let environment = [
                    ("SUPERVISED", folder.path().to_str().unwrap()),
                    ("FAULT", &fault.to_string()),
                ];
                let status = role(path, &environment).stdout(Stdio::null()).status().unwrap();
                assert_eq!(status.signal(), Some(9), "step {fault}: {status}");
            }
            let mut run = Run::of(run_id(folder.path()));
            for (at, service) in SERVICES.into_iter().enumerate() {
                run.wait_for(service, 2);
                assert_eq!(
                    starts(folder.path(), service),
                    before[at] + 1,
                    "step {fault}: {service}"
                );
                let next = run.stop(service, Duration::from_millis(20));
                assert!(matches!(next, Next::Gone(_)), "step {fault}: {next:?}");
            }
            run.census.look().unwrap();
            assert_eq!(run.census.members(), BTreeSet::new());
        }
    });
}

/// How often the service has begun, as its log says.
fn starts(folder: &Path, service: &str) -> usize {
    let log = fs::read_to_string(folder.join(format!("{service}.log")));
    log.unwrap_or_default().lines().count()
}

fn run_id(folder: &Path) -> RunId {
    let text = fs::read_to_string(folder.join("run/id")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// A run folder with its record, for one process that is there.
struct Recorded {
    run: Run,
    _base: tempfile::TempDir,
    folder: RunFolder,
    file: RecordFile,
    here: Here,
}

impl Recorded {
    fn new() -> Recorded {
        let base = tempfile::tempdir().unwrap();
        let (folder, _) = RunFolder::open(&base.path().join("run")).unwrap();
        let here = Here::now().unwrap();
        let (file, _) = RecordFile::open(&folder, here.clone()).unwrap();
        Recorded {
            run: Run::of(folder.id()),
            _base: base,
            folder,
            file,
            here,
        }
    }

    fn adopt(&mut self) -> Adoption {
        adopt(Some(self.file.record()), &self.here, &mut self.run.census).unwrap()
    }
}

#[test]
fn only_the_very_process_is_adopted() {
    alone("adopting::only_the_very_process_is_adopted", || {
        let mut recorded = Recorded::new();
        let leader = recorded.run.start("a", "exec sleep 600");
        recorded.run.wait_for("a", 1);
        let process = leader.identity();
        recorded.file.runs("a", 1, process).unwrap();
        let expected = Adopted {
            member: Run::member("a", 1),
            leader: process,
            is_recorded: true,
        };
        assert_eq!(recorded.adopt().adopted, [expected]);
        // A stranger has got the number of a process that was recorded.
        let stranger = Identity {
            start: process.start - 1,
            ..process
        };
        recorded.file.runs("b", 1, stranger).unwrap();
        let adoption = recorded.adopt();
        assert_eq!((adoption.adopted.len(), adoption.gone), (1, vec![Run::member("b", 1)]));
        // It is there, and is another service's.
        recorded.file.runs("b", 1, process).unwrap();
        let adoption = recorded.adopt();
        assert_eq!(adoption.unverifiable.len(), 1);
        assert_eq!(adoption.unverifiable[0].why, Why::OtherMark);
        assert!(adoption.unverifiable[0].to_string().contains("end it by hand"));
    });
}

#[test]
fn numbers_of_another_boot_or_namespace_mean_nothing() {
    alone("adopting::numbers_of_another_boot_or_namespace_mean_nothing", || {
        let mut recorded = Recorded::new();
        let stranger = Command::new("sleep").arg("600").spawn().unwrap();
        let mut stranger = Ends(stranger);
        let process = Identity::of(stranger.0.id() as i32).unwrap();
        recorded.file.runs("a", 1, process).unwrap();
        recorded.here.boot.push('x');
        assert_eq!(recorded.adopt().gone, [Run::member("a", 1)]);
        recorded.here.boot.pop();
        recorded.here.pid_namespace += 1;
        let adoption = recorded.adopt();
        assert!(adoption.gone.is_empty() && adoption.adopted.is_empty(), "{adoption:?}");
        assert_eq!(adoption.unverifiable[0].why, Why::OtherNamespace);
        // One of which nobody knows how far its start has come may run there too.
        recorded.file.about_to_start("b", 1, 0).unwrap();
        let whys = recorded.adopt().unverifiable;
        assert_eq!(
            whys.iter()
                .map(|doubt| (&*doubt.member.service, doubt.process.is_some()))
                .collect::<Vec<_>>(),
            [("a", true), ("b", false)]
        );
        recorded.file.rests("b", State::Over).unwrap();
        // What the supervisor of a whole container has left is gone with it.
        let init = Here {
            is_init: true,
            ..recorded.here.clone()
        };
        let home = std::mem::replace(&mut recorded.file, RecordFile::open(&recorded.folder, init).unwrap().0);
        recorded.file.runs("a", 1, process).unwrap();
        let other = Here {
            pid_namespace: recorded.here.pid_namespace + 1,
            ..recorded.here.clone()
        };
        let adoption = adopt(Some(recorded.file.record()), &other, &mut recorded.run.census).unwrap();
        assert_eq!((adoption.gone.len(), adoption.unverifiable.len()), (1, 0));
        recorded.file = home;
        // It runs all the same, as its mark says: there is nothing to doubt.
        let leader = recorded.run.start("a", "exec sleep 600");
        recorded.run.wait_for("a", 1);
        recorded.file.about_to_start("a", 1, 0).unwrap();
        let adoption = recorded.adopt();
        assert_eq!(
            (adoption.adopted[0].leader, adoption.adopted[0].is_recorded),
            (leader.identity(), false)
        );
        assert!(stranger.0.try_wait().unwrap().is_none());
    });
}

/// A process that is ended when the test is over.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nginx and PostgreSQL do it: their titles lie where their environment was.
#[test]
fn a_recorded_process_without_a_mark_is_adopted_with_its_children() {
    alone(
        "adopting::a_recorded_process_without_a_mark_is_adopted_with_its_children",
        || {
            let mut recorded = Recorded::new();
            let script = "exec env -i sh -c 'sleep 600 & exec sleep 600'";
            let mut child = Ends(Command::new("sh").args(["-c", script]).spawn().unwrap());
            let process = Identity::of(child.0.id() as i32).unwrap();
            recorded.file.runs("a", 1, process).unwrap();
            eventually("both run", || {
                let adoption = recorded.adopt();
                assert_eq!(adoption.adopted.len(), 1);
                recorded.run.census.of("a").count() == 2
            });
            assert!(child.0.try_wait().unwrap().is_none());
        },
    );
}

#[test]
fn what_is_left_of_a_service_whose_leader_is_gone_is_no_service() {
    alone(
        "adopting::what_is_left_of_a_service_whose_leader_is_gone_is_no_service",
        || {
            let mut recorded = Recorded::new();
            let leader = recorded.run.start("a", "setsid sleep 600 & exec sleep 600");
            let all = recorded.run.wait_for("a", 2);
            recorded.file.runs("a", 1, leader.identity()).unwrap();
            leader.identity().signal(Signal::KILL).unwrap();
            let left = recorded.run.wait_for("a", 1);
            assert!(left.is_subset(&all));
            let adoption = recorded.adopt();
            assert_eq!(
                (adoption.adopted.len(), adoption.remains.len(), adoption.gone.len()),
                (0, 1, 0)
            );
            assert!(adoption.remains[0].processes.iter().eq(&left));
            assert_eq!(&*adoption.remains[0].service, "a");
            // Without a record nobody knows that there was a leader.
            let adoption = adopt(None, &recorded.here, &mut recorded.run.census).unwrap();
            assert_eq!((adoption.adopted.len(), adoption.remains.len()), (1, 0));
            leader.reap().unwrap();
        },
    );
}

/// After adoption, a stop reaches all of it, though no process is our child.
#[test]
fn an_adopted_service_is_stopped_whole() {
    alone("adopting::an_adopted_service_is_stopped_whole", || {
        let folder = tempfile::tempdir().unwrap();
        let environment = [("SUPERVISED", folder.path().to_str().unwrap()), ("FAULT", "999")];
        let path = "supervise::tests::adopting::a_supervisor_that_is_killed";
        // In a process between, which is their subreaper and ends before the service.
        let status = role(path, &environment).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.signal(), Some(9));
        let leaders = supervise(folder.path(), || {});
        assert!(leaders.iter().all(Leader::is_adopted), "{leaders:?}");
        let mut run = Run::of(run_id(folder.path()));
        for (service, leader) in SERVICES.into_iter().zip(leaders) {
            run.wait_for(service, 2);
            let how = How {
                signal: Signal::TERM,
                wait: Duration::from_secs(20),
            };
            let mut stopping = Stopping::begin(Target::Service(service.into()), how, Instant::now());
            assert!(matches!(stopping.step(Instant::now(), &run.census), Next::LookIn(_)));
            stopping.hasten();
            eventually("all are gone", || {
                run.census.look().unwrap();
                orphans::reap(&run.census, &run.children);
                matches!(stopping.step(Instant::now(), &run.census), Next::Gone(_))
            });
            assert_eq!(leader.reap().unwrap().to_string(), "status unknown");
        }
    });
}
