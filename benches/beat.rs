//! What a beat costs the thread that shows it.
//!
//! `cargo bench --bench beat` prints, for each thing that a thread does with its beat, the median of interleaved runs in
//! nanoseconds, and beside it the price of one look at the monotonic clock and of one `send` of 200 bytes to a TCP socket
//! whose peer reads, measured in the same turns: an operation is two looks at the clock, and it must vanish beside the
//! one system call that it surrounds.

#![allow(clippy::print_stdout, reason = "its output is what a bench is for")]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use threadcast::liveness::beat::Beats;
use threadcast::liveness::operation::{Operation, SlowLimits, at_client};
use threadcast::process::threads::spawn;

const RUNS: usize = 31;
const REPEATS: u32 = 20_000;

/// What is measured, and its name.
type Case = (&'static str, Box<dyn FnMut()>);

fn main() {
    let limits = SlowLimits {
        broadcast: Duration::from_millis(50),
        snapshot: Duration::from_millis(200),
    };
    let beat = Beats::new(limits, 1).fanout;
    let mut socket = read_by_another();
    let payload = [b'x'; 200];
    let mut cases: Vec<Case> = vec![
        ("a step", Box::new(|| beat.step())),
        (
            "a step with what it is about",
            Box::new(|| beat.show(black_box(at_client(17, 4096)))),
        ),
        (
            "an operation, begun and ended",
            Box::new(|| drop(beat.begin_about(Operation::Broadcasting, black_box((50, 48))))),
        ),
        (
            "a look at the clock",
            Box::new(|| {
                black_box(Instant::now());
            }),
        ),
        (
            "a send of 200 bytes",
            Box::new(move || socket.write_all(&payload).expect("the peer reads")),
        ),
    ];
    let mut took: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..RUNS {
        for ((_, case), took) in cases.iter_mut().zip(&mut took) {
            let begun = Instant::now();
            (0..REPEATS).for_each(|_| case());
            took.push(begun.elapsed().as_nanos() as f64 / f64::from(REPEATS));
        }
    }
    println!("{:<32} {:>10} {:>10} {:>10}", "ns", "median", "least", "most");
    for ((name, _), mut took) in cases.into_iter().zip(took) {
        took.sort_by(f64::total_cmp);
        println!(
            "{name:<32} {:>10.1} {:>10.1} {:>10.1}",
            took[RUNS / 2],
            took[0],
            took[RUNS - 1]
        );
    }
}

/// A socket whose other end is read until it is closed.
fn read_by_another() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut peer, _) = listener.accept().expect("somebody has connected");
    // Ends with the process.
    let _ = spawn("reads", 256 * 1024, None, move || {
        let mut scrap = vec![0; 256 * 1024];
        while peer.read(&mut scrap).is_ok_and(|count| count > 0) {}
    });
    socket
}
