//! Takes datagrams from the sockets and puts them into the queue, so that no sender is ever held; sees that the
//! socket's path is ours. While the fan-out has nothing else to do it takes them itself: see `receiver`.
//!
//! Runs on: `ingest`, one.
//! Owns: the path's lock, and with the receiver in hand the sockets.
//! Blocks on: a datagram (250 ms), room in the queue (while the fan-out moves; 5 ms once it stands still), 10 ms after
//! an error of a socket; 200 µs when the fan-out receives.
//! Can be stalled by: the fan-out, for the patience; the file system, once a second, when the socket's folder hangs.
//! Full queue means: datagrams are dropped and counted (`queue_full`), and the stream says so at their place.
//! Ends when: asked to; what the kernel holds then is still taken, unless the socket is one that was passed to us: that
//! holds it for the server that comes next.
//! Watched as: `ingest`, a core thread.

mod path_watch;

use crate::intake::IntakeSettings;
use crate::intake::event_socket::{EventSocket, PathLock, PathState};
use crate::intake::gauges::IngestGauges;
use crate::intake::receiver::Receiver;
use crate::liveness::beat::Beat;
use crate::liveness::drill;
use crate::liveness::operation::Operation;
use crate::process::clock::{pause, timespec};
use crate::process::locks::{self, try_lock};
use crate::process::stop::Stop;
use crate::process::threads::{self, CORE_STACK_BYTES, Obituaries, ThreadHandle};
use crate::process::waits;
use crate::process::words::{count, pick};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Longest wait for a datagram.
const TURN: Duration = Duration::from_millis(250);
/// How often the path is looked at.
const PATH_LOOK: Duration = Duration::from_secs(1);
/// Tries of the receiver's lock in a row: the fan-out holds it for a few microseconds, for a handful of datagrams.
const RECEIVER_TRIES: u32 = 64;
/// Pause before one last try, 200 µs: the host may have taken the fan-out's processor away while it held the lock.
const RECEIVER_LOOK: Duration = Duration::from_micros(200);
/// When stopping, wait at most 250 ms for the receiver: a fan-out that keeps it for longer stands still.
const LAST_TRIES: Duration = Duration::from_millis(250);
/// When stopping, receive what the kernel still holds for at most 300 ms; the whole stop has a bound.
const LAST_DRAIN: Duration = Duration::from_millis(300);
/// When stopping, try for at most 100 ms to tell the fan-out what was dropped at the very end. It is emptying the queue
/// meanwhile, so there soon is room.
const LAST_SETTLE: Duration = Duration::from_millis(100);
/// Pause between two such tries, 1 ms.
const SETTLE_LOOK: Duration = Duration::from_millis(1);
/// The epoll key of the stop request.
const STOP_KEY: u64 = u64::MAX;

/// The thread's own things.
#[derive(Debug)]
pub struct Ingest {
    receiver: Arc<Mutex<Receiver>>,
    sleep: Arc<OwnedFd>,
    /// As the receiver has them, for when the fan-out stands still with it.
    sockets: (Arc<EventSocket>, Vec<Arc<EventSocket>>),
    _lock: PathLock,
    mode: u32,
    gauges: Arc<IngestGauges>,
    beat: &'static Beat,
    stop: Stop,
    path_looked: Instant,
    reminded: Option<Instant>,
}

impl Ingest {
    /// Ready to run with a receiver that nobody uses yet, whose socket's path is ours by `lock`.
    ///
    /// # Errors
    /// The host is out of memory for the wait; the server cannot start then.
    pub fn new(
        receiver: Arc<Mutex<Receiver>>,
        lock: PathLock,
        settings: IntakeSettings,
        gauges: Arc<IngestGauges>,
        beat: &'static Beat,
        stop: Stop,
    ) -> io::Result<Ingest> {
        let (sleep, sockets) = {
            let receiver = locks::lock(&receiver);
            (receiver.sleep(), receiver.sockets())
        };
        epoll::add(&sleep, &stop, EventData::new_u64(STOP_KEY), EventFlags::IN)?;
        Ok(Ingest {
            receiver,
            sleep,
            sockets,
            _lock: lock,
            mode: settings.socket_mode,
            gauges,
            beat,
            stop,
            path_looked: Instant::now(),
            reminded: None,
        })
    }

    /// Starts the thread. `obituaries` gets its name when it ends.
    ///
    /// # Errors
    /// The host refuses another thread; [`Refusal`](crate::process::refusal::Refusal) says what helps.
    pub fn start(self, obituaries: Obituaries) -> io::Result<ThreadHandle<()>> {
        threads::spawn("ingest", CORE_STACK_BYTES, Some(obituaries), move || self.run())
    }

    /// The thread's body.
    fn run(mut self) {
        self.beat.adopt();
        let receiver = Arc::clone(&self.receiver);
        if let Some(receiver) = self.try_lock(&receiver) {
            receiver.start();
        }
        while !self.stop.requested() {
            drill::obey(self.beat);
            self.wait();
            if let Some(mut receiver) = self.try_lock(&receiver) {
                receiver.receive(self.beat, &|| self.has_another_duty());
                receiver.settle();
            }
            if self.is_path_look_due() {
                self.look_at_path(&receiver);
            }
        }
        let last = self.last_lock(&receiver);
        if let Some(receiver) = &last {
            receiver.leave_all_to_ingest();
        }
        self.close_the_door();
        match last {
            Some(mut receiver) => {
                self.last_drain(&mut receiver);
                receiver.close();
            }
            None => log::error!("🚨 the fan-out stands still while it receives; what the kernel still holds is lost"),
        }
        self.beat.turn_to(Operation::Ended);
    }

    fn wait(&self) {
        let _doing = self.beat.begin(Operation::Waiting);
        let mut ready = Vec::with_capacity(2);
        // Receiving does not block, so it goes on also when a wait was interrupted or has failed.
        let _ = waits::INGEST.judge(epoll::wait(
            &self.sleep,
            spare_capacity(&mut ready),
            Some(&timespec(TURN)),
        ));
    }

    /// The receiver, unless the fan-out keeps it for longer than receiving takes.
    fn try_lock<'a>(&self, receiver: &'a Mutex<Receiver>) -> Option<MutexGuard<'a, Receiver>> {
        for _ in 0..RECEIVER_TRIES {
            if let Some(receiver) = try_lock(receiver) {
                return Some(receiver);
            }
            std::thread::yield_now();
        }
        pause(RECEIVER_LOOK);
        try_lock(receiver)
    }

    fn last_lock<'a>(&self, receiver: &'a Mutex<Receiver>) -> Option<MutexGuard<'a, Receiver>> {
        let end = Instant::now() + LAST_TRIES;
        loop {
            let locked = self.try_lock(receiver);
            if locked.is_some() || Instant::now() >= end {
                return locked;
            }
        }
    }

    fn is_path_look_due(&self) -> bool {
        self.path_looked.elapsed() >= PATH_LOOK
    }

    fn has_another_duty(&self) -> bool {
        self.stop.requested() || self.is_path_look_due()
    }

    /// From here on every send fails, so that no sender is told of a success that nobody takes from the kernel. Not so
    /// with a passed socket, which our successor takes from: shutting it down would end it for everybody.
    fn close_the_door(&self) {
        let (socket, former) = &self.sockets;
        if socket.is_passed() {
            return;
        }
        socket.remove_file();
        self.gauges.show_path_state(PathState::Gone);
        for socket in former.iter().chain([socket]) {
            // It cannot fail for a socket that we hold; what is queued can still be received (unix(7)).
            let _ = shutdown(&**socket, Shutdown::Read);
        }
    }

    fn last_drain(&self, receiver: &mut Receiver) {
        let end = Instant::now() + LAST_DRAIN;
        let late = || Instant::now() >= end;
        let is_passed = self.sockets.0.is_passed();
        while !is_passed && receiver.receive(self.beat, &late) > 0 && !late() {}
        self.last_settle(receiver, || pause(SETTLE_LOOK));
    }

    /// Insists, because a queue that is too full now would leave it untold for ever what is missing at the end.
    fn last_settle(&self, receiver: &mut Receiver, mut wait: impl FnMut()) {
        let end = Instant::now() + LAST_SETTLE;
        let mut untold = receiver.settle();
        while untold > 0 && Instant::now() < end {
            let _doing = self.beat.begin(Operation::WaitingForRoom);
            wait();
            untold = receiver.settle();
        }
        if untold > 0 {
            log::error!(
                "🚨 {} at the very end {} dropped: the queue was full when the server stopped",
                count(untold, "event"),
                pick(untold, "was", "were")
            );
        }
    }
}

impl Drop for Ingest {
    /// Also of a thread that died: without an end of the queue, the fan-out would not end either.
    fn drop(&mut self) {
        if let Some(mut receiver) = try_lock(&self.receiver) {
            receiver.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::event_socket::lock;
    use crate::intake::queue::{Entry, INTAKE_BYTES_MAX, INTAKE_LEN_MAX, IntakeRx, intake};
    use crate::intake::receiver::FanoutSleep;
    use crate::liveness::beats::tests::beats;
    use crate::process::bell::Bell;
    use crate::stream::event::DropCause;
    use std::os::unix::net::UnixDatagram;

    struct Ready {
        _folder: tempfile::TempDir,
        ingest: Ingest,
        rx: IntakeRx,
        stop: Stop,
        fanout: FanoutSleep,
        beats: &'static crate::liveness::beats::Beats,
    }

    /// As [`unstarted`], and both wait for datagrams.
    fn ready() -> Ready {
        let ready = unstarted();
        ready.ingest.receiver.lock().unwrap().start();
        ready
    }

    fn unstarted() -> Ready {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.sock");
        let beats = beats();
        let stop = Stop::new().unwrap();
        let bell = Bell::new().unwrap();
        let settings = IntakeSettings {
            queue_bytes_max: INTAKE_BYTES_MAX,
            patience: Duration::from_millis(1),
            event_bytes_max: 1024,
            socket_mode: 0o600,
        };
        let (tx, rx, _gauge) = intake(settings, beats.fanout, bell.clone(), stop.clone());
        let mut fanout = FanoutSleep::new(bell).unwrap();
        let socket = EventSocket::bind(&path, 0o600).unwrap();
        let gauges = Arc::new(IngestGauges::default());
        let receiver = Receiver::new(socket, settings, tx, Arc::clone(&gauges), &fanout).unwrap();
        let receiver = Arc::new(Mutex::new(receiver));
        fanout.receive_with(&receiver);
        let lock = lock(&path).unwrap();
        let ingest = Ingest::new(receiver, lock, settings, gauges, beats.ingest, stop.clone()).unwrap();
        Ready {
            _folder: folder,
            ingest,
            rx,
            stop,
            fanout,
            beats,
        }
    }

    fn send(path: &std::path::Path, text: &str) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(text.as_bytes(), path).unwrap();
    }

    fn path_of(ingest: &Ingest) -> std::path::PathBuf {
        ingest.receiver.lock().unwrap().sockets().0.path().to_owned()
    }

    fn datagram(rx: &IntakeRx) -> String {
        match rx.try_recv().unwrap() {
            Entry::Datagram(bytes) => String::from_utf8(bytes.into()).unwrap(),
            lost => panic!("{lost:?}"),
        }
    }

    #[test]
    fn a_flood_keeps_no_socket_and_no_duty_waiting() {
        let Ready {
            _folder,
            mut ingest,
            rx,
            stop,
            ..
        } = ready();
        let shared = Arc::clone(&ingest.receiver);
        let mut receiver = shared.lock().unwrap();
        let socket = receiver.sockets().0;
        let path = socket.path();
        send(path, "former");
        std::fs::remove_file(path).unwrap();
        let socket = socket.bind_again(0o600).unwrap();
        receiver.adopt(socket, 1);
        ingest.sockets = receiver.sockets();
        send(path, "new");

        // As in a flood: interrupted after each system call, long before any socket is empty.
        assert_eq!(receiver.receive(ingest.beat, &|| true), 1);
        assert_eq!(datagram(&rx), "new");
        assert_eq!(receiver.receive(ingest.beat, &|| true), 1);
        assert_eq!(datagram(&rx), "former");

        assert!(!ingest.has_another_duty());
        ingest.path_looked -= PATH_LOOK;
        assert!(ingest.has_another_duty());
        drop(receiver);
        ingest.look_at_path(&shared);
        assert!(!ingest.has_another_duty());
        stop.request();
        assert!(ingest.has_another_duty());
    }

    #[test]
    fn a_socket_that_fails_is_not_asked_in_a_circle() {
        const TURNS: u32 = 5;
        let Ready {
            _folder, ingest, rx, ..
        } = ready();
        let shared = Arc::clone(&ingest.receiver);
        let mut receiver = shared.lock().unwrap();
        send(receiver.sockets().0.path(), "still received");
        receiver.former_fails();
        let begun = Instant::now();
        for _ in 0..TURNS {
            ingest.wait();
            receiver.receive(ingest.beat, &|| ingest.has_another_duty());
        }
        assert!(begun.elapsed() >= TURNS * waits::BACK_OFF);
        assert_eq!(datagram(&rx), "still received");
    }

    #[test]
    fn what_is_dropped_at_the_very_end_is_still_told() {
        let Ready {
            _folder, ingest, rx, ..
        } = ready();
        let shared = Arc::clone(&ingest.receiver);
        let mut receiver = shared.lock().unwrap();
        receiver.fill();
        send(receiver.sockets().0.path(), "one too many");
        assert_eq!(receiver.receive(ingest.beat, &|| true), 1);
        assert_eq!(ingest.gauges.drops.count(DropCause::QueueFull), 1);
        let mut taken = Vec::new();
        // The queue is full until ingest waits.
        ingest.last_settle(&mut receiver, || {
            taken.extend(std::iter::from_fn(|| rx.try_recv().ok()))
        });
        taken.extend(std::iter::from_fn(|| rx.try_recv().ok()));
        assert_eq!(taken.len(), INTAKE_LEN_MAX + 1);
        assert_eq!(taken.last(), Some(&Entry::Lost(1, DropCause::QueueFull)));
    }

    /// One wait of a fan-out that finds nothing in its queue.
    fn wait_and_receive(ready: &mut Ready, most: Duration) {
        let rx = &ready.rx;
        ready.fanout.wait(most, || rx.is_idle());
        ready.fanout.receive(ready.beats.fanout);
    }

    #[test]
    fn whoever_of_the_two_receives_the_order_is_that_of_the_socket() {
        const EVENTS: u32 = 50_000;
        let Ready {
            _folder,
            ingest,
            rx,
            stop,
            mut fanout,
            beats,
        } = unstarted();
        let path = path_of(&ingest);
        std::thread::scope(|scope| {
            scope.spawn(|| ingest.run());
            scope.spawn(move || {
                let sender = UnixDatagram::unbound().unwrap();
                sender.connect(path).unwrap();
                for number in 0..EVENTS {
                    sender.send(&number.to_ne_bytes()).unwrap();
                }
            });
            let mut next = 0;
            while next < EVENTS {
                fanout.wait(TURN, || rx.is_idle());
                fanout.receive(beats.fanout);
                while let Ok(entry) = rx.try_recv() {
                    assert_eq!(entry, Entry::Datagram(next.to_ne_bytes().into()));
                    next += 1;
                }
            }
            stop.request();
        });
    }

    #[test]
    fn an_idle_fanout_needs_no_ingest() {
        let mut ready = ready();
        let path = path_of(&ready.ingest);
        for text in ["one", "two"] {
            send(&path, text);
            wait_and_receive(&mut ready, TURN);
            assert_eq!(datagram(&ready.rx), text);
        }
    }

    #[test]
    fn while_ingest_receives_the_fanout_waits_for_its_bell() {
        let mut ready = ready();
        let shared = Arc::clone(&ready.ingest.receiver);
        let mut receiver = shared.lock().unwrap();
        send(receiver.sockets().0.path(), "one");
        wait_and_receive(&mut ready, TURN);
        assert!(ready.rx.is_idle(), "it had no lock to take it with");
        std::thread::scope(|scope| {
            scope.spawn(|| wait_and_receive(&mut ready, Duration::from_secs(60)));
            // It does not go round in a circle although the socket is ready; the bell ends its wait.
            assert_eq!(
                receiver.receive(crate::liveness::beats::tests::beats().ingest, &|| true),
                1
            );
        });
        assert_eq!(datagram(&ready.rx), "one");
    }

    /// The kernel tells one of the two of a datagram, and that one leaves it to the other, who has looked already.
    #[test]
    fn a_datagram_that_the_fanout_was_told_of_is_not_forgotten() {
        let mut ready = ready();
        let shared = Arc::clone(&ready.ingest.receiver);
        let receiver = shared.lock().unwrap();
        send(receiver.sockets().0.path(), "one");
        wait_and_receive(&mut ready, TURN);
        drop(receiver);
        let (begun, bound) = (Instant::now(), Duration::from_secs(60));
        while ready.rx.is_idle() {
            wait_and_receive(&mut ready, bound);
        }
        assert!(
            begun.elapsed() < bound,
            "nobody would have looked but for the bound of the wait"
        );
        assert_eq!(datagram(&ready.rx), "one");
    }

    #[test]
    fn the_fanout_takes_nothing_behind_what_waits_already() {
        let mut ready = ready();
        let shared = Arc::clone(&ready.ingest.receiver);
        let path = path_of(&ready.ingest);
        send(&path, "first");
        assert_eq!(shared.lock().unwrap().receive(ready.beats.ingest, &|| true), 1);
        send(&path, "second");
        ready.fanout.wait(TURN, || true);
        ready.fanout.receive(ready.beats.fanout);
        assert_eq!(datagram(&ready.rx), "first");
        assert!(ready.rx.is_idle());
        assert_eq!(shared.lock().unwrap().receive(ready.beats.ingest, &|| true), 1);
        assert_eq!(datagram(&ready.rx), "second");
    }

    #[test]
    fn the_end_of_ingest_ends_the_queue_and_wakes_the_fanout() {
        let Ready {
            _folder,
            ingest,
            rx,
            mut fanout,
            ..
        } = ready();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(ingest));
            while rx.try_recv() != Err(crossbeam_channel::TryRecvError::Disconnected) {
                fanout.wait(Duration::from_secs(60), || rx.is_idle());
            }
        });
    }
}
