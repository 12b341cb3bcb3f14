//! Once a second: whether the socket's path is still ours, and its file as open as it was made.

use super::Ingest;
use crate::intake::event_socket::{BindError, EventSocket, PathState};
use crate::intake::receiver::{Former, Receiver};
use crate::liveness::operation::Operation;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often the log says again that the path is still lost.
const REMIND: Duration = Duration::from_secs(60);
/// Sockets whose file somebody removed are still drained, because senders stay connected to them; the oldest goes.
const FORMER_SOCKETS_MAX: usize = 8;

impl Ingest {
    /// A process that removed or replaced our file took all new senders from us; this takes the path back as soon as it
    /// is free. A file system that hangs in here keeps nobody from receiving.
    pub(super) fn look_at_path(&mut self, receiver: &Mutex<Receiver>) {
        let (socket, former) = self.sockets.clone();
        let _doing = self.beat.begin(Operation::CheckingPath);
        self.path_looked = Instant::now();
        let before = self.gauges.path_state();
        let mut state = socket.path_state();
        // Moved away and back: the file of a socket that we thought lost stands there again.
        let back = former.iter().position(|former| former.path_state() == PathState::Ours);
        let path = socket.path().display();
        if let Some(index) = back {
            if let Some(mut receiver) = self.try_lock(receiver) {
                receiver.take_back(index);
                self.sockets = receiver.sockets();
                log::warn!("✅ the former file of event socket {path} is back: ours again");
                state = PathState::Ours;
            }
        } else if state == PathState::Unseen {
            // Not bound anew: it may well be there.
            self.remind_unseen(&socket);
        } else if state != PathState::Ours {
            match socket.bind_again(self.mode) {
                // Without the receiver it goes again, and is made anew in a second.
                Ok(socket) => {
                    if let Some(mut receiver) = self.try_lock(receiver) {
                        adopt(&mut receiver, socket, state);
                        self.sockets = receiver.sockets();
                        state = PathState::Ours;
                    }
                }
                Err(error) => self.remind(&socket, state, &error),
            }
        } else if before != PathState::Ours {
            log::warn!("✅ event socket {path} is ours again");
        }
        if state == PathState::Ours {
            self.reminded = None;
        }
        self.gauges.show_path_state(state);
        self.look_at_mode();
    }

    /// Senders of other users feel it, and nobody else, when somebody takes permissions from the file.
    fn look_at_mode(&mut self) {
        let (socket, _) = &self.sockets;
        let (before, now) = (self.gauges.lessened_mode(), socket.lessened_mode());
        if before == now || self.gauges.path_state() != PathState::Ours {
            return;
        }
        self.gauges.show_lessened_mode(now);
        let path = socket.path().display();
        match now {
            Some(mode) => log::warn!(
                "⚠️ somebody has changed the permissions of event socket {path} to {mode:03o}, so some senders are refused; \
                 `chmod {:03o} {path}` gives them back, --socket-mode {mode:03o} makes them the server's own",
                self.mode
            ),
            None => log::info!("✅ event socket {path} has its permissions {:03o} again", self.mode),
        }
    }

    fn remind_unseen(&mut self, socket: &EventSocket) {
        let Some(error) = socket.unseen() else { return };
        if self.reminded.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        self.reminded = Some(Instant::now());
        log::error!(
            "🚨 event socket {} cannot be looked at: {error}. Whether senders still reach it, nobody knows; look after that \
             file system or folder; trying again every second",
            socket.path().display()
        );
    }

    fn remind(&mut self, socket: &EventSocket, state: PathState, error: &BindError) {
        if self.reminded.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        self.reminded = Some(Instant::now());
        let path = socket.path().display();
        match (state, error) {
            (PathState::Taken, BindError::Owned { .. }) => {
                // Looking for its process takes tens of milliseconds in which senders would wait for us.
                log::error!(
                    "🚨 another server has taken event socket {path} from us; events of senders that connect from now \
                     on go there. Stop it (/health tells which process it is; the UI starts one unless it is given \
                     --no-websocket); we take the path back by ourselves"
                );
            }
            (_, BindError::Passed { .. }) => {
                let what = match state {
                    PathState::Taken => "another server has taken",
                    PathState::Blocked => "something that is no socket has replaced",
                    PathState::Gone | PathState::Ours => "somebody has removed",
                    PathState::Unseen => "the file system does not show",
                };
                log::error!(
                    "🚨 {what} event socket {path}: events of senders that connect from now on do not reach us. {error}: \
                     {}",
                    error.hint()
                );
            }
            _ => log::error!(
                "🚨 event socket {path} is lost: {error}; {}; trying again every second",
                error.hint()
            ),
        }
    }
}

fn adopt(receiver: &mut Receiver, socket: EventSocket, was: PathState) {
    let what = match was {
        PathState::Gone => "was removed by somebody",
        PathState::Unseen => "could not be looked at",
        _ => "was replaced by a file that no server owns",
    };
    log::warn!(
        "⚠️ event socket {} {what}; bound it again: new senders reach us, and those connected to the old one still do",
        socket.path().display()
    );
    if receiver.adopt(socket, FORMER_SOCKETS_MAX) == Former::OldestGivenUp {
        log::warn!(
            "⚠️ gave up the oldest of {} former event sockets; its senders must connect again",
            FORMER_SOCKETS_MAX + 1
        );
    }
}
