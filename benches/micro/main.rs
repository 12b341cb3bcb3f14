//! What each step on the way of an event costs by itself.
//!
//! `cargo bench --bench micro` runs all of it, under a minute; `cargo bench --bench micro -- fan_out` what has that in
//! its name. Each line is one case: the fastest, the slowest, the median and the mean of its samples, each the time of
//! one pass; the line below it says what that is in items (events, clients, verdicts) or bytes per second.
//!
//! - Read the median, and compare lines of one run: on a shared host all of them move together. A mean far above its
//!   median says that somebody else used the processor.
//! - Every case checks once that it did what it says, and fails else: frames are decoded, sockets are read to the last
//!   byte at their other end, queues are emptied and compared.
//! - What a case makes is freed outside of its time, but for what the fan-out's history lets go of.
//!
//! One pass of each module is:
//!
//! - `check`: the check of one datagram, with the reading of what we use of it: the three dialects, three sizes, and
//!   what is refused
//! - `encode`: a batch of one event, and of as many as one turn may have (512 events, half of a client's socket); the
//!   same batch as the views that do not share its bytes see it
//! - `fan_out`: one turn of the fan-out, from the pushing of the event into its queue: check, table, encode, history,
//!   and handing it to each client
//! - `table`: an event's way into a table of 20,000 machines, and the snapshot of that in every form
//! - `catch_up`: the replay of 20,000 events for one client: taken from the history and encoded as it sees them
//! - `filter`: the verdicts of one filter about 256 events, and those of a crowd of different filters about one event
//! - `beat`: what a thread does with its beat; beside it one look at the clock and one `send`, because an operation is
//!   two looks at the clock and must vanish beside the system call that it surrounds
//! - `log_line`: one line of the log, for the thread that says it: while thread `log` is awake, and when it sleeps
//!
//! The clients of `fan_out` are in one of four states. `idle`: nothing waits for them, so the fan-out sends to each
//! socket itself; a second process holds the other ends and reads between the samples, so that the time has neither its
//! work nor its waking. `queued`: each client's writer owns its socket, and its queue has room; nobody waits at that
//! queue, so there is no waking in the time either. `full`: the slots of that queue are taken, what comes waits on the
//! fan-out's side. `behind`: they are left out until they have caught up. Beside these, `nobody`: a turn without any
//! client.

mod beat;
mod catch_up;
mod check;
mod crowd;
mod encode;
mod events;
mod fan_out;
mod filter;
mod log_line;
mod peers;
mod table;

fn main() {
    // 10,000 clients are as many descriptors here, and as many in the process that reads.
    let descriptors = threadcast::process::limits::raise_descriptors();
    match std::env::var(peers::ADDRESS) {
        Ok(address) => peers::read_on_demand(&address),
        Err(_) => {
            fan_out::DESCRIPTORS.store(descriptors, std::sync::atomic::Ordering::Relaxed);
            divan::main();
        }
    }
}
