//! How long a dump of all threads takes, how many stacks are complete, and what the allocator costs everybody else.
//!
//! `cargo bench --bench dump` prints one line per number of threads: how many stacks reach the beginning of their
//! thread, of how many; the median, the fastest and the slowest of the runs; the size of the text. The threads wait and
//! work in thirteen different ways, as those of a server do; the larger numbers add threads that wait for a socket, as
//! clients' threads do. A dump must name every thread and stay below 2 s for 1,013 of them on two processors. Most of
//! the time of a small dump is the reading of the program's symbols, which depends on the size of the program.
//!
//! Then 300 dumps in a row, with what the process has before and after: the figures must stay as they are. Last, the
//! price of an allocation and its freeing through our allocator and through the system's alone: the difference should
//! be about a nanosecond.

#![allow(clippy::print_stdout, reason = "its output is what a bench is for")]

use crossbeam_channel::{Receiver, Sender, bounded};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::{Duration, Instant};
use threadcast::liveness::stacks::arena::Allocator;
use threadcast::liveness::stacks::{DumpSummary, Dumper};
use threadcast::process::clock::{pause, timespec};
use threadcast::process::threads::{ThreadHandle, spawn};

const RUNS: usize = 15;
/// Waits that have a bound end by themselves, long after the bench.
const LONG: Duration = Duration::from_secs(600);

fn main() {
    let mut crowd = Crowd::default();
    crowd.kinds();
    let mut dumper = Dumper::install().expect("a dumper");
    println!("threads  complete  median      fastest     slowest     bytes   symbols");
    for threads in [12, 112, 1012] {
        while crowd.threads.len() < threads {
            crowd.client();
        }
        pause(Duration::from_millis(300));
        measure(&mut dumper);
    }
    let before = belongings();
    let began = Instant::now();
    for _ in 0..300 {
        dumper.dump(&[], &mut |_| ());
    }
    println!("300 dumps of all threads in {:.1} s", began.elapsed().as_secs_f64());
    println!("  before: {before}\n  after:  {}", belongings());
    allocations();
    crowd.end();
}

fn measure(dumper: &mut Dumper) {
    let mut bytes = 0;
    let mut runs: Vec<DumpSummary> = (0..RUNS)
        .map(|_| {
            bytes = 0;
            dumper.dump(&[], &mut |lines| bytes += lines.len())
        })
        .collect();
    runs.sort_by_key(|run| run.took);
    let median = runs[RUNS / 2];
    println!(
        "{:7}  {:8}  {:9.2?}  {:9.2?}  {:9.2?}  {bytes:7}  {:?}",
        median.threads,
        runs.iter().map(|run| run.complete).min().unwrap_or(0),
        median.took,
        runs[0].took,
        runs[RUNS - 1].took,
        median.symbols
    );
}

fn belongings() -> String {
    let count = |path| std::fs::read_dir(path).map_or(0, Iterator::count);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or("?")
            .trim()
            .to_owned()
    };
    format!(
        "{} descriptors, {} mappings, {} resident, {} at most",
        count("/proc/self/fd"),
        read("/proc/self/maps").lines().count(),
        line("VmRSS:"),
        line("VmHWM:")
    )
}

fn allocations() {
    const TIMES: u32 = 5_000_000;
    let layout = Layout::new::<[u64; 8]>();
    let time = |allocator: &dyn GlobalAlloc| {
        let began = Instant::now();
        for _ in 0..TIMES {
            // SAFETY: the layout has a size, and what is freed was allocated with it by the same allocator.
            #[allow(unsafe_code)]
            unsafe {
                let memory = black_box(allocator.alloc(layout));
                allocator.dealloc(memory, layout);
            }
        }
        began.elapsed().as_nanos() as f64 / f64::from(TIMES)
    };
    // In turn, so that what else the host does meets both alike.
    let (mut ours, mut alone) = (f64::MAX, f64::MAX);
    for _ in 0..10 {
        ours = ours.min(time(&Allocator));
        alone = alone.min(time(&System));
    }
    println!("an allocation of 64 bytes and its freeing: {ours:.1} ns, by the system's allocator alone {alone:.1} ns");
}

/// Threads that stand still or work until they are told to end.
#[derive(Default)]
struct Crowd {
    threads: Vec<ThreadHandle<()>>,
    gates: Vec<Sender<()>>,
    sockets: Vec<UnixStream>,
    stop: Arc<AtomicBool>,
    lock: Arc<(Mutex<()>, Condvar)>,
}

impl Crowd {
    fn add(&mut self, name: &str, body: impl FnOnce() + Send + 'static) {
        self.threads
            .push(spawn(name, 256 * 1024, None, body).expect("a thread"));
    }

    /// One that waits for the bench's end.
    fn gated(&mut self, name: &str, body: impl FnOnce(&Receiver<()>) + Send + 'static) {
        let (tx, rx) = bounded(0);
        self.gates.push(tx);
        self.add(name, move || body(&rx));
    }

    /// One that waits for a peer that never sends.
    fn client(&mut self) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        self.sockets.push(ours);
        self.add(&format!("client-{}", self.threads.len()), move || {
            let _ = theirs.read(&mut [0; 64]);
        });
    }

    fn working(&mut self, name: &str, mut work: impl FnMut() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.add(name, move || {
            while !stop.load(Ordering::Relaxed) {
                work();
            }
        });
    }

    /// Twelve, and the main thread makes thirteen.
    fn kinds(&mut self) {
        self.gated("receives", |gate| {
            let _ = gate.recv();
        });
        self.gated("receives-timed", |gate| {
            let _ = gate.recv_timeout(LONG);
        });
        self.gated("selects", |gate| {
            let never = crossbeam_channel::never::<()>();
            crossbeam_channel::select! { recv(gate) -> _ => {}, recv(never) -> _ => {} }
        });
        self.gated("holds-a-lock", |gate| {
            static LOCK: RwLock<()> = RwLock::new(());
            let _guard = LOCK.write();
            let _ = gate.recv();
        });
        self.client();
        let stop = Arc::clone(&self.stop);
        let lock = Arc::clone(&self.lock);
        self.add("condvar", move || {
            let guard = lock.0.lock().expect("nobody panics");
            let _ = lock
                .1
                .wait_timeout_while(guard, LONG, |()| !stop.load(Ordering::Relaxed));
        });
        let mut counter = 0_u64;
        self.working("works", move || {
            for _ in 0..1000 {
                counter = black_box(counter.wrapping_mul(31).wrapping_add(7));
            }
            pause(Duration::from_micros(300));
        });
        self.working("allocates", || {
            drop(black_box(vec![0_u8; 5000]));
            pause(Duration::from_micros(300));
        });
        self.working("pauses", || pause(Duration::from_millis(100)));
        let (one, _other) = UnixDatagram::pair().expect("a pair of sockets");
        self.working("polls", move || {
            let mut fds = [rustix::event::PollFd::new(&one, rustix::event::PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, Some(&timespec(Duration::from_millis(100))));
            let _ = &_other;
        });
        self.working("writes-a-file", || {
            let _ = std::fs::write("/dev/null", "text");
            pause(Duration::from_micros(300));
        });
        let mut text = String::new();
        self.working("formats", move || {
            text.clear();
            for number in 0..50 {
                text.push_str(&black_box(number).to_string());
            }
            pause(Duration::from_micros(300));
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.lock.1.notify_all();
        drop((self.gates, self.sockets));
        for thread in self.threads {
            let _ = thread.join_within(Duration::from_secs(10));
        }
    }
}
