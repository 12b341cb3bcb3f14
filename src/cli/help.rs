//! The texts of `--help`.

use crate::cli::flags::REPLAY_TIMEOUT;
use crate::commands::request::ServerUrl;
use crate::config::Config;
use crate::config::table::SETTINGS;
use crate::liveness::drill::DRILL_MAX;
use crate::process::values;

pub(super) fn diagnose_help() -> String {
    format!(
        "\
Prints what every thread of a running server is doing right now, with its stack.
Goes through the server's admin socket, which admits its own user, root, and members of its --admin-group.

Usage: threadcast diagnose [FLAGS]

  --url URL                   the server: HOST, HOST:PORT or http://HOST:PORT [http://{}]
  --admin-socket PATH         the server's admin socket; else it is looked for: /run/threadcast/admin.sock,
                              threadcast-PORT.sock in $XDG_RUNTIME_DIR or ./logs, then the path in /status

Exit status: 0 fine, 1 no report, 2 wrong usage.
",
        ServerUrl::default()
    )
}

pub(super) fn drill_help() -> String {
    format!(
        "\
Makes one thread of a running server stand still for a while, to see what a hang looks like: the report names it, the
others go on. The server must have been started with --allow-drill.
Goes through the server's admin socket, which admits its own user, root, and members of its --admin-group.

Usage: threadcast drill COMPONENT DURATION [FLAGS]

  COMPONENT                   ingest, fanout, accept, inbox, main, heartbeat, journal,
                              journal-sync, files, reports, log, watchdog, or client-N: the thread of a client, which then holds its socket as if
                              that were stuck
  DURATION                    at most {}; 0s ends a drill
  --kind KIND                 sleep (as one who waits for a lock or a disk), spin (computing), log (asleep with the log's
                              lock in its hand) [sleep]
  --url URL                   the server: HOST, HOST:PORT or http://HOST:PORT [http://{}]
  --admin-socket PATH         the server's admin socket; else it is looked for: /run/threadcast/admin.sock,
                              threadcast-PORT.sock in $XDG_RUNTIME_DIR or ./logs, then the path in /status

Exit status: 0 the drill has begun, 1 it has not, 2 wrong usage.
",
        values::show_duration(DRILL_MAX),
        ServerUrl::default()
    )
}

pub(super) fn emit_help() -> String {
    format!(
        "\
Sends an event to a server, and says so if it was not taken. Never waits longer than --timeout for a server that is busy;
with --stdin, once a line has waited that long in vain, those after it are tried without waiting until one goes through.
Ctrl-C or SIGTERM ends --stdin, which then says how many went out.

Usage: threadcast emit TYPE MACHINE [FLAGS]
       threadcast emit --stdin [FLAGS]

  --payload JSON              the event's payload [{{}}]
  --stdin                     send each line of standard input, a JSON object, as it is; then say how many went out
  --event-socket-path PATH    the server's socket [{}]
  --timeout TIME              how long each event may wait for room in the server's queue [1s]

Exit status: 0 all sent, 1 some refused, 2 wrong usage.
",
        Config::default().event_socket_path.display()
    )
}

pub(super) fn tail_help() -> String {
    format!(
        "\
Shows events as they come. When the server was away, it connects again and goes on after the last event that it has
shown, or says what is gone. Ctrl-C or SIGTERM ends it.

Usage: threadcast tail [MACHINE...] [FLAGS]

  MACHINE                     as --machine
  --url URL                   the server: HOST, HOST:PORT, or the stream's URL [ws://localhost:{}/ws/events]
  --machine GLOBS             only machines whose name matches: * any characters, ? one; several with commas between,
                              or the flag again
  --type GLOBS                only events whose type matches
  -n, --lines N               first the last N of these events that the server's history has
  --since EPOCH:N             begin after that event: what tail prints at its end
  --format FORMAT             human (time, machine, from -> to, trigger), compact (without time), json (as it came) [human]
  --count N                   end after so many events
  --duration TIME             end after this time
  --utc                       times in UTC on a terminal too, where they are local (elsewhere they are UTC)
  -f, --follow                nothing: it always follows

Colors on a terminal only, and not with NO_COLOR. What is not an event goes to standard error: in every format what is
missing and where to go on from, in human format also how it goes.
Exit status: 0 ended as asked, by Ctrl-C too; 1 failed, or no server has answered in all the time, whatever ended it;
2 wrong usage.
",
        Config::default().port
    )
}

pub(super) fn replay_help() -> String {
    format!(
        "\
Sends the events that a journal has recorded to a server, in their order, byte for byte and with their original timing.
Line ends between the tokens of an event are spaces in a journal. Ctrl-C or SIGTERM ends it.

Usage: threadcast replay --journal DIR [FLAGS]

  --journal DIR               the folder of the recording; a server may be writing it: what it adds is not replayed
  --from POINT                begin with this event [the first]
  --to POINT                  end with this one [the last]
  --fast                      without pauses, as fast as the server takes it
  --speed X                   X times as fast as it happened [1]
  --event-socket-path PATH    the server's socket [{}]
  --timeout TIME              how long to wait for a server that is away or takes nothing [{}]

A POINT is an event's number (digits alone: 1234), or a time: @SECONDS or SECONDS.FRACTION since 1970, or UTC as in
2026-11-23T00:24:40Z.
Exit status: 0 all sent, or ended as asked; 1 some not taken, or no recording; 2 wrong usage.
",
        Config::default().event_socket_path.display(),
        values::show_duration(REPLAY_TIMEOUT)
    )
}

pub(super) fn machines_help() -> String {
    format!(
        "\
Shows every machine of a running server, the one first that was silent longest. On a narrow terminal columns are left
out; the last line names them.

Usage: threadcast machines [GLOBS...] [FLAGS]
       threadcast machines --forget NAME [FLAGS]

  GLOBS                       only machines whose name matches: * any characters, ? one; several with commas between
  --url URL                   the server: HOST, HOST:PORT or http://HOST:PORT [http://{}]
  --json                      the server's document as it is (GET /api/machines) instead of a table
  --watch [TIME]              again and again until Ctrl-C or SIGTERM, every 2s or as often as given
  --forget NAME               remove this machine, which no longer exists, as `threadcast forget` does; show nothing
  --admin-socket PATH         the server's admin socket, for --forget; else it is looked for as `forget` does

TIME           how long it has been in its state, also across restarts of the server; ? when nobody knows
TRIGGER        what its last change of state was for
RATE           events in the last 10 s, per second
SEEN           time since its last event; ? when nobody knows
NOTE           stale when its process is gone, as the engine's database says

Colors on a terminal only, and not with NO_COLOR.
Exit status: 0 fine, also if no machine matches; 1 no list, or nothing to forget; 2 wrong usage.
",
        ServerUrl::default()
    )
}

pub(super) fn clients_help() -> String {
    format!(
        "\
Shows who is connected to a running server and how well each keeps up, the slowest first. The server answers also while
its data path stands still. On a narrow terminal columns are left out; the last line names them.

Usage: threadcast clients [FLAGS]
       threadcast clients --end ID [FLAGS]

  --url URL                   the server: HOST, HOST:PORT or http://HOST:PORT [http://{}]
  --json                      the server's document as it is (GET /status) instead of a table
  --watch [TIME]              again and again until Ctrl-C or SIGTERM, every 2s or as often as given
  --end ID                    end the client with this ID, and show nothing. It is no ban: a page or `threadcast tail`
                              connects again by itself
  --admin-socket PATH         the server's admin socket, for --end; else it is looked for as `forget` does

QUEUED, BYTES  events that wait in the client's queue
LAG            age of the oldest event that waits for it
SKIPPED        events that it was not sent, because the history no longer had them; +? when nobody knows how many more
BEHIND         how often its queue was full, so that it had to catch up from the history
SLOWEST        the longest that an event took to its socket
PONG           time since the last pong, or anything else, came from it

Colors on a terminal only, and not with NO_COLOR.
Exit status: 0 fine, 1 no figures, or no such client; 2 wrong usage.
",
        ServerUrl::default()
    )
}

pub(super) fn demo_help() -> String {
    format!(
        "\
Five machines that work, fail, retry, end and come back; their events go to a running server.
Ctrl-C or SIGTERM ends them, and the server is told.

Usage: threadcast demo [FLAGS]

  --event-socket-path PATH    the server's socket [{}]

Exit status: 0 fine, 1 no event was taken, 2 wrong usage.
",
        Config::default().event_socket_path.display()
    )
}

pub(super) fn overview() -> String {
    "\
threadcast shows people what their local workers are doing, live.

Usage: threadcast COMMAND [FLAGS]

Commands:
  serve         receive events on a Unix datagram socket, send them to browsers over WebSocket
  emit          send an event from a shell, or a stream of them
  tail          show events as they come
  replay        send what a journal has recorded to a server again
  machines      show every machine: its state, how long it is in it, what it sends
  clients       show who is connected to a running server, and how well each keeps up
  forget NAME   remove a machine that no longer exists from a running server
  diagnose      print what every thread of a running server is doing, with its stack
  drill         make a thread of a running server stand still, to see what a hang looks like
  demo          five machines that live until Ctrl-C, to have something to see
  help COMMAND  the flags of a command

  --version     print the version

Exit status: 0 fine, 1 failed, 2 wrong usage.
"
    .to_owned()
}

pub(super) fn serve_help() -> String {
    let defaults = Config::default();
    let mut text = "\
Receives events on a Unix datagram socket and sends each to every WebSocket client; runs until SIGTERM or Ctrl-C.
A further signal, more than 500 ms after the first, ends it at once.

Usage: threadcast serve [FLAGS]

"
    .to_owned();
    let config = (
        "--config FILE".to_owned(),
        "TOML file with these settings, named as the flags without the dashes; flags win".to_owned(),
    );
    let settings = SETTINGS.iter().map(|setting| {
        let flag = format!("--{} {}", setting.name, setting.value);
        let help = if setting.is_switch() {
            setting.help.to_owned()
        } else {
            format!("{} [{}]", setting.help, setting.show(&defaults))
        };
        (flag.trim_end().to_owned(), help)
    });
    for (flag, help) in settings.chain([config]) {
        text.push_str(&format!("  {flag:<26}  {help}\n"));
    }
    text.push_str(
        "\nTimes: 500ms, 10s, 2m, 1h. Sizes: 64KiB, 1MiB, or bytes.\nExit status: 0 fine, 1 failed, 2 wrong usage.\n",
    );
    text
}

pub(super) fn forget_help() -> String {
    let defaults = Config::default();
    format!(
        "\
Removes a machine from a running server's table, as if it had ended: for machines that were killed and never said so.
Every browser that shows it is told.
Goes through the server's admin socket, which admits its own user, root, and members of its --admin-group.

Usage: threadcast forget NAME [FLAGS]

  --host ADDRESS              where the server listens [{}]
  --port PORT                 its port [{}]
  --admin-socket PATH         the server's admin socket; else it is looked for: /run/threadcast/admin.sock,
                              threadcast-PORT.sock in $XDG_RUNTIME_DIR or ./logs, then the path in /status

Exit status: 0 forgotten, 1 no such machine or no such server, 2 wrong usage.
",
        defaults.host, defaults.port
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_setting() {
        for setting in &SETTINGS {
            assert!(serve_help().contains(&format!("--{}", setting.name)));
        }
    }
}
