//! What a beat costs the thread that shows it.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use threadcast::liveness::beat::Beat;
use threadcast::liveness::beats::Beats;
use threadcast::liveness::operation::{Operation, SlowLimits, at_client};
use threadcast::process::threads::{ThreadHandle, spawn};

fn beat() -> &'static Beat {
    let limits = SlowLimits {
        broadcast: Duration::from_millis(50),
        snapshot: Duration::from_millis(200),
    };
    Beats::new(limits, 1).fanout
}

#[divan::bench(sample_size = 1_000)]
fn a_step(bencher: Bencher<'_, '_>) {
    let beat = beat();
    measure(bencher, beat, 1, || beat.step());
}

#[divan::bench(sample_size = 1_000)]
fn a_step_with_what_it_is_about(bencher: Bencher<'_, '_>) {
    let beat = beat();
    measure(bencher, beat, 1, || beat.show(black_box(at_client(17, 4096))));
}

/// Its begin and its end are a step each.
#[divan::bench(sample_size = 1_000)]
fn an_operation(bencher: Bencher<'_, '_>) {
    let beat = beat();
    measure(bencher, beat, 2, || {
        drop(beat.begin_about(Operation::Broadcasting, black_box((50, 48))));
    });
}

/// Fails unless each time has `steps` steps.
fn measure(bencher: Bencher<'_, '_>, beat: &Beat, steps: u64, mut act: impl FnMut()) {
    let (before, mut times) = (beat.progress(), 0);
    bencher.bench_local(|| {
        times += 1;
        act();
    });
    assert_eq!(beat.progress() - before, times * steps);
}

#[divan::bench(sample_size = 1_000)]
fn for_comparison_a_look_at_the_clock(bencher: Bencher<'_, '_>) {
    let begun = Instant::now();
    bencher.bench_local(Instant::now);
    assert!(Instant::now() > begun);
}

/// To a TCP socket whose peer reads; a thousand in a row, because the first ones find it asleep.
#[divan::bench(sample_size = 1_000)]
fn for_comparison_a_send_of_200_bytes(bencher: Bencher<'_, '_>) {
    let (mut socket, reading) = read_by_another();
    let payload = [b'x'; 200];
    let mut sent = 0;
    bencher.counter(BytesCount::of_slice(&payload)).bench_local(|| {
        sent += payload.len();
        socket.write_all(&payload).expect("the peer reads");
    });
    socket.shutdown(Shutdown::Write).expect("it is still connected");
    let read = reading.join_within(Duration::from_secs(10));
    assert_eq!(read.ok(), Some(sent), "the peer has read all of it");
}

/// A socket whose other end is read until it is closed, by a thread that gives how many bytes that were.
fn read_by_another() -> (TcpStream, ThreadHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut peer, _) = listener.accept().expect("somebody has connected");
    socket.set_nodelay(true).expect("the server sets it too");
    let read = move || {
        let mut scrap = vec![0; 256 * 1024];
        let mut all = 0;
        while let Ok(count @ 1..) = peer.read(&mut scrap) {
            all += count;
        }
        all
    };
    let reading = spawn("reads", 256 * 1024, None, read).expect("a thread");
    (socket, reading)
}
