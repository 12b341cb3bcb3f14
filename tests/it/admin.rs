//! Who may act on a server, and who may not, whatever they connect through.

use crate::support::server::run;
use crate::support::{DEADLINE, TestServer, eventually, http, skipped, state_change};
use rustix::process::{Signal, geteuid};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A user and a group that nobody else here has.
const STRANGER: u32 = 54_321;
const GROUP: u32 = 54_322;

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn with_machine(server: &TestServer) {
    server.send(state_change("m", "a", "b", 1.5));
    eventually("the machine is known", || {
        (server.health()["machines"] == 1).then_some(())
    });
}

#[test]
fn the_socket_is_its_users_own_and_status_names_it() {
    let mut server = TestServer::start(&[]);
    let socket = server.admin_socket();
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(mode(&socket), 0o600);
    let status = server.http("GET", "/status", &[]).json();
    assert_eq!(status["admin_socket"], socket.canonicalize().unwrap().to_str().unwrap());
    with_machine(&server);
    let (status, out, err) = run(
        server.folder().path(),
        &["forget", "m", "--port", &server.address.port().to_string()],
    );
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    server.wait_for_line("🔑 POST /forget of user");
    assert_eq!(server.stop().code(), Some(0));
    assert!(!socket.exists(), "it removes its file");
}

#[test]
fn it_lies_where_the_service_manager_or_the_session_wants_it() {
    for (variable, name) in [
        ("RUNTIME_DIRECTORY", "admin.sock"),
        ("XDG_RUNTIME_DIR", "threadcast-PORT.sock"),
    ] {
        let runtime = folder();
        let server = TestServer::start_command(folder(), &[], |command| {
            command.env(variable, runtime.path());
        });
        let name = name.replace("PORT", &server.address.port().to_string());
        assert!(runtime.path().join(&name).exists(), "{variable}");
        assert!(!server.admin_socket().exists());
        let url = format!("http://{}", server.address);
        let (status, ..) = run(server.folder().path(), &["diagnose", "--url", &url]);
        assert_eq!(status, 0, "the command finds it by /status");
    }
    let folder = folder();
    let mut elsewhere = TestServer::start_in(Arc::clone(&folder), &["--admin-socket", "none"]);
    assert!(elsewhere.http("GET", "/status", &[]).json()["admin_socket"].is_null());
    let (status, _, err) = run(
        folder.path(),
        &["diagnose", "--url", &format!("http://{}", elsewhere.address)],
    );
    assert_eq!(status, 1);
    assert!(err.contains("no admin socket of the server at"), "{err}");
    assert_eq!(elsewhere.stop().code(), Some(0));
}

#[test]
fn a_path_longer_than_an_address_is_reached() {
    let folder = folder();
    let path = folder
        .path()
        .join("a".repeat(100))
        .join("b".repeat(80))
        .join("admin.sock");
    let server = TestServer::start_in(Arc::clone(&folder), &["--admin-socket", path.to_str().unwrap()]);
    let arguments = ["diagnose", "--admin-socket", path.to_str().unwrap()];
    let (status, out, err) = run(folder.path(), &arguments);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("fanout"), "{out}");
    drop(server);
}

/// Runs the binary as somebody else.
fn run_as(uid: u32, gid: u32, groups: &[u32], folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new("setpriv");
    let list = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()]);
    if groups.is_empty() {
        command.arg("--clear-groups");
    } else {
        command.args(["--groups", &list]);
    }
    let output = command
        .arg(binary_for_all())
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A copy of the binary where everybody may run it: the folder of the build may be closed to others.
fn binary_for_all() -> PathBuf {
    static COPY: std::sync::OnceLock<TempDir> = std::sync::OnceLock::new();
    let folder = COPY.get_or_init(|| {
        let folder = tempfile::Builder::new()
            .prefix("threadcast-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_threadcast"), folder.path().join("threadcast")).unwrap();
        folder
    });
    folder.path().join("threadcast")
}

#[test]
fn only_the_servers_user_root_and_the_group_act() {
    let setpriv = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status();
    if !geteuid().is_root() || !setpriv.is_ok_and(|status| status.success()) {
        return skipped("acting as other users, because that takes root and setpriv");
    }
    let folder = folder();
    // Others may come as far as the socket, whose mode and credentials decide.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let group = GROUP.to_string();
    let server = TestServer::start_in(Arc::clone(&folder), &["--admin-group", &group]);
    fs::set_permissions(folder.path().join("logs"), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = server.admin_socket();
    assert_eq!(mode(&socket), 0o660);
    let path = socket.to_str().unwrap();
    let arguments = ["diagnose", "--admin-socket", path];
    let (status, err) = run_as(STRANGER, STRANGER, &[], folder.path(), &arguments);
    assert_eq!(status, 1);
    assert!(
        err.contains("this user may not connect") && err.contains("--admin-group"),
        "{err}"
    );
    for (gid, groups) in [(GROUP, &[][..]), (STRANGER, &[STRANGER, GROUP])] {
        let (status, err) = run_as(STRANGER, gid, groups, folder.path(), &arguments);
        assert_eq!((status, err.as_str()), (0, ""), "by group {gid} {groups:?}");
    }
    // Where the file lets everybody in, the credentials still do not.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let (status, err) = run_as(STRANGER, STRANGER, &[], folder.path(), &arguments);
    assert_eq!(status, 1);
    assert!(
        err.contains(&format!("user {STRANGER}")) && err.contains("may not act"),
        "{err}"
    );
    let line = server.wait_for_line(&format!(
        "⚠️ refused a request at the admin socket: user {STRANGER} (process "
    ));
    // The command asks for nothing else than what it was given.
    assert!(
        line.contains(", threadcast), POST /diagnose: 403, ") && line.contains("may not act"),
        "{line}"
    );
    assert!(server.http("GET", "/status", &[]).json()["admin_refused"].as_u64() >= Some(1));
}

/// Python that connects as often as it is told, says so, and keeps silent until its standard input ends.
const SILENT: &str = r"
import socket, sys
peers = []
for _ in range(int(sys.argv[2])):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(sys.argv[1])
    peers.append(peer)
print(flush=True)
sys.stdin.read()
";

/// Silent peers of a user and group; `None`, said, without Python.
fn silent_peers(path: &Path, count: usize, uid: u32, gid: u32) -> Option<std::process::Child> {
    let mut command = Command::new("python3");
    command.args(["-c", SILENT]).arg(path).arg(count.to_string());
    command.uid(uid).gid(gid).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        skipped("silent peers of another user, because python3 is not installed");
        return None;
    };
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    Some(child)
}

#[test]
fn silent_members_of_the_group_do_not_keep_root_out() {
    if !geteuid().is_root() {
        return skipped("silent members of a group, because only root can be another user");
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let server = TestServer::start_in(Arc::clone(&folder), &["--admin-group", &GROUP.to_string()]);
    fs::set_permissions(folder.path().join("logs"), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = server.admin_socket();
    // Four have places, and the fifth makes sure that the four had been taken in before.
    let Some(mut silent) = silent_peers(&socket, 5, STRANGER, GROUP) else {
        return;
    };
    let line = server.wait_for_line("4 requests of members of --admin-group are being answered");
    assert!(
        line.contains(&format!("user {STRANGER} (process ")) && line.contains("no request that can be read: 503"),
        "{line}"
    );
    assert_eq!(server.act("/diagnose").status, 200, "root has places of its own");
    assert!(server.http("GET", "/status", &[]).json()["admin_busy"].as_u64() >= Some(1));
    silent.kill().unwrap();
    silent.wait().unwrap();
}

/// Clients must not keep the person out who could end them.
#[test]
fn an_admin_gets_in_when_all_descriptors_are_in_use() {
    let server = TestServer::start(&["--allow-drill"]);
    with_machine(&server);
    server.footprint();
    let is_free = |number: u64| fs::symlink_metadata(format!("/proc/{}/fd/{number}", server.pid())).is_err();
    // Clients that stay fill what is free between the server's own; behind these there is nothing but what it may have
    // inherited, far away. The first number behind them is the first that there will not be.
    let mut clients = Vec::new();
    let limit = eventually("no number is free between the server's own", || {
        let first_free = (0..).find(|number| is_free(*number)).unwrap();
        if (first_free..first_free + 16).all(is_free) {
            return Some(first_free);
        }
        clients.push(server.client());
        None
    });
    let limit = rustix::process::Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    let pid = rustix::process::Pid::from_raw(server.pid() as i32);
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    let newcomers: Vec<_> = (0..8)
        .map(|_| std::net::TcpStream::connect(server.address).unwrap())
        .collect();
    server.wait_for_line("🚨 cannot accept a connection: ");
    for _ in 0..6 {
        assert_eq!(server.act("/drill?component=fanout&ms=0").status, 200);
    }
    assert_eq!(server.act("/forget?machine=m").status, 200);
    drop((clients, newcomers));
    eventually("clients get in again", || {
        (server.health()["machines"] == 0).then_some(())
    });
}

#[test]
fn a_request_that_is_under_way_at_the_stop_gets_an_answer() {
    let mut server = TestServer::start(&[]);
    let mut half = UnixStream::connect(server.admin_socket()).unwrap();
    half.set_read_timeout(Some(DEADLINE)).unwrap();
    half.write_all(b"POST /diag").unwrap();
    eventually("its thread is there", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let mut names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.any(|name| name == "admin-request\n").then_some(())
    });
    assert_eq!(server.stop().code(), Some(0), "{}", server.lines().all());
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("the server is stopping"),
        "{answer}"
    );
}

#[test]
fn a_place_that_cannot_be_made_again_is_not_named() {
    let folder = folder();
    let (place, aside) = (folder.path().join("place"), folder.path().join("aside"));
    let path = place.join("admin.sock");
    let server = TestServer::start_in(Arc::clone(&folder), &["--admin-socket", path.to_str().unwrap()]);
    let named = || server.http("GET", "/status", &[]).json()["admin_socket"].clone();
    let expected = path.canonicalize().unwrap();
    assert_eq!(named(), expected.to_str().unwrap());
    fs::rename(&place, &aside).unwrap();
    fs::write(&place, "").unwrap();
    let line = server.wait_for_line("is gone and cannot be made again");
    assert!(line.contains("Nobody can act on this server"), "{line}");
    assert!(named().is_null());
    fs::remove_file(&place).unwrap();
    server.wait_for_line("was gone; it is there again");
    assert_eq!(named(), expected.to_str().unwrap());
    assert_eq!(http::act(&path, "POST", "/diagnose", &[]).status, 200);
}

/// Connections that wait for somebody to accept them (proc_net_tcp(5): the receive queue of a listening socket).
fn waiting_connections(address: std::net::SocketAddr) -> u64 {
    let listening = format!(":{:04X} 00000000:0000 0A ", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| line.contains(&listening)).unwrap();
    let queues = line.split(&listening).nth(1).unwrap().split(' ').next().unwrap();
    u64::from_str_radix(queues.split(':').nth(1).unwrap(), 16).unwrap()
}

#[test]
fn a_command_asks_a_server_that_may_hang_only_when_it_must() {
    let server = TestServer::start(&["--allow-drill"]);
    assert_eq!(server.act("/drill?component=accept&ms=600000").status, 200);
    eventually("nobody accepts connections", || {
        std::net::TcpStream::connect(server.address).unwrap();
        (waiting_connections(server.address) > 1).then_some(())
    });
    let before = waiting_connections(server.address);
    let url = format!("http://{}", server.address);
    let (status, _, err) = run(server.folder().path(), &["diagnose", "--url", &url]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(waiting_connections(server.address), before, "it found ./logs by itself");
}

#[test]
fn a_command_speaks_to_no_stranger() {
    if !geteuid().is_root() {
        return skipped("a stranger's socket, because only root can make one");
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("planted.sock");
    let mut planter = Command::new("python3");
    planter.args(["-c", "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\ns.listen()\nprint(flush=True)\ns.accept()[0].recv(1)"]);
    let planted = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
    fs::set_permissions(planted.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let theirs = planted.path().join("s");
    planter.arg(&theirs).uid(STRANGER).gid(STRANGER).stdout(Stdio::piped());
    let Ok(mut planter) = planter.spawn() else {
        return skipped("a stranger's socket, because python3 is not installed");
    };
    planter.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    symlink(&theirs, &path).unwrap();
    // The folder is root's, the socket in it a stranger's.
    let (status, _, err) = run(
        folder.path(),
        &["forget", "m", "--admin-socket", path.to_str().unwrap()],
    );
    assert_eq!(status, 1);
    assert!(err.contains(&format!("user {STRANGER} listens there")), "{err}");
    planter.kill().unwrap();
    planter.wait().unwrap();
}

/// What answers may be broken, or not the server that was meant.
#[test]
fn what_a_server_answers_drives_no_terminal() {
    let folder = folder();
    let path = folder.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let bodies = [
        (200, "thread\tone\n\u{1b}[2Jtwo\u{202e}\n"),
        (404, "{\"detail\":\"no \\u001b[2Jmachine\"}"),
        (500, "\u{1b}]0;title\u{7}"),
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (status, body) in bodies {
                let (mut peer, _) = listener.accept().unwrap();
                assert_ne!(peer.read(&mut [0; 1024]).unwrap(), 0);
                let length = body.len();
                write!(peer, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
            }
        });
        let commands = [&["diagnose"][..], &["forget", "m"], &["drill", "fanout", "1s"]];
        let socket = ["--admin-socket", path.to_str().unwrap()];
        let said = commands.map(|command| run(folder.path(), &[command, &socket].concat()));
        let text = |text: &str| text.to_owned();
        let expected = [
            (0, text("thread\tone\n\\u{1b}[2Jtwo\\u{202e}\n"), text("")),
            (1, text(""), text("threadcast: not forgotten: no \\u{1b}[2Jmachine\n")),
            (
                1,
                text(""),
                text("threadcast: no drill: status 500: \\u{1b}]0;title\\u{7}\n"),
            ),
        ];
        assert_eq!(said, expected);
    });
}

#[test]
fn it_answers_while_the_fanout_hangs_and_within_bounds() {
    let server = TestServer::start(&["--allow-drill"]);
    assert_eq!(server.act("/drill?component=fanout&ms=60000").status, 200);
    // It obeys at its next turn.
    eventually("forgetting says that the fan-out stands still", || {
        let begun = Instant::now();
        let answer = server.act("/forget?machine=m");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        (answer.status == 503).then_some(())
    });
    assert_eq!(server.act("/diagnose").status, 200);
    assert_eq!(server.act("/drill?component=fanout&ms=0").status, 200);
}

#[test]
fn silent_peers_keep_others_out_for_a_bounded_time() {
    let server = TestServer::start(&[]);
    let silent: Vec<UnixStream> = (0..4)
        .map(|_| UnixStream::connect(server.admin_socket()).unwrap())
        .collect();
    let busy = eventually("the four places are taken", || {
        let answer = server.act("/diagnose");
        (answer.status == 503).then_some(answer)
    });
    assert!(busy.body.contains("ask again"), "{}", busy.body);
    // Their heads have five seconds.
    eventually("there is room again", || {
        (server.act("/diagnose").status == 200).then_some(())
    });
    drop(silent);
    assert_eq!(server.health()["status"], "ok");
}

#[test]
fn a_file_that_is_taken_away_is_made_again_and_a_dead_servers_is_replaced() {
    let mut server = TestServer::start(&[]);
    let socket = server.admin_socket();
    fs::remove_file(&socket).unwrap();
    server.wait_for_line("was gone; it is there again");
    assert_eq!(server.act("/diagnose").status, 200);
    let port = server.address.port().to_string();
    let folder = server.folder();
    server.signal(Signal::KILL);
    server.wait_for_end(DEADLINE);
    assert!(socket.exists());
    let again = TestServer::start_in(folder, &["--port", &port]);
    assert_eq!(again.act("/diagnose").status, 200);
}

#[test]
fn an_impossible_place_is_refused_when_given_and_said_otherwise() {
    let taken = folder();
    let living = UnixListener::bind(taken.path().join("living.sock")).unwrap();
    fs::write(taken.path().join("file"), "").unwrap();
    let open = folder();
    let private = open.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = |folder: &TempDir, name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (path, part) in [
        (path(&taken, "living.sock"), "another server listens there"),
        (path(&taken, "file"), "something that is no socket is there"),
        (path(&open, "admin.sock"), "every user may write folder"),
        (path(&open, "private/admin.sock"), "every user may write folder"),
    ] {
        let folder = folder();
        let events = folder.path().join("events.sock");
        let arguments = [
            "serve",
            "--port",
            "0",
            "--event-socket-path",
            events.to_str().unwrap(),
            "--admin-socket",
            &path,
        ];
        let (status, _, err) = run(folder.path(), &arguments);
        assert_eq!(status, 1, "{path}");
        assert!(
            err.contains(&format!("cannot make the admin socket {path}: ")) && err.contains(part),
            "{err}"
        );
    }
    drop(living);
    for (flag, value) in [
        ("--admin-socket", ""),
        ("--admin-socket", "@x"),
        ("--admin-group", "no such group"),
        ("--admin-group", "4294967295"),
    ] {
        let (status, _, err) = run(taken.path(), &["serve", flag, value]);
        assert_eq!(status, 2, "{err}");
        assert!(err.contains(&flag[2..]), "{err}");
    }
    // A usual place that cannot be used costs acting only.
    let home = folder();
    fs::create_dir(home.path().join("logs")).unwrap();
    fs::set_permissions(home.path().join("logs"), fs::Permissions::from_mode(0o777)).unwrap();
    let server = TestServer::start_in(home, &[]);
    server.wait_for_line("there is no admin socket");
    assert!(server.http("GET", "/status", &[]).json()["admin_socket"].is_null());
}

/// chown(2) gives a file only to a group of one's own.
#[test]
fn a_group_that_the_server_is_not_in_is_named_as_the_reason() {
    if !geteuid().is_root() {
        return skipped("a server of another user, because only root can start one");
    }
    let folder = folder();
    std::os::unix::fs::chown(folder.path(), Some(STRANGER), Some(STRANGER)).unwrap();
    let group = GROUP.to_string();
    let arguments = [
        "serve",
        "--port",
        "0",
        "--event-socket-path",
        "events.sock",
        "--admin-socket",
        "admin.sock",
        "--admin-group",
        &group,
    ];
    let (status, err) = run_as(STRANGER, STRANGER, &[], folder.path(), &arguments);
    assert_eq!(status, 1, "{err}");
    for part in [
        &format!("cannot give it to group {GROUP}: "),
        "make the server's user a member of the group",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert!(!folder.path().join("admin.sock").exists());
}

#[test]
fn a_proxy_on_this_host_cannot_act_for_the_world() {
    let server = TestServer::start(&["--allow-drill"]);
    with_machine(&server);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (ours, theirs) = (proxy.local_addr().unwrap(), server.address);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                let (mut client, _) = proxy.accept().unwrap();
                let mut head = [0; 1024];
                let count = client.read(&mut head).unwrap();
                // As nginx without further lines: the Host of the place it passes to, and no word of whose request it
                // is.
                let head = String::from_utf8_lossy(&head[..count]).replace(&ours.to_string(), &theirs.to_string());
                let mut server = std::net::TcpStream::connect(theirs).unwrap();
                server.set_read_timeout(Some(DEADLINE)).unwrap();
                server.write_all(head.as_bytes()).unwrap();
                let mut answer = Vec::new();
                server.read_to_end(&mut answer).unwrap();
                client.write_all(&answer).unwrap();
            }
        });
        for target in ["/diagnose", "/forget?machine=m", "/drill?component=fanout&ms=1000"] {
            assert_eq!(http::request(ours, "POST", target, &[]).status, 403, "{target}");
        }
    });
    assert_eq!(server.health()["machines"], 1);
}

/// Servers of two hosts may have the same port; the command that names one must not act on the other.
#[test]
fn a_command_for_another_address_acts_on_no_server_here() {
    let server = TestServer::start(&[]);
    with_machine(&server);
    let port = server.address.port().to_string();
    // A loopback address of this host at which nobody listens.
    let elsewhere = ["forget", "m", "--host", "127.0.0.2", "--port", &port];
    let (status, _, err) = run(server.folder().path(), &elsewhere);
    assert_eq!(status, 1, "{err}");
    assert!(
        err.contains(&format!("it belongs to the server at {}", server.address)),
        "{err}"
    );
    assert_eq!(server.health()["machines"], 1);
    let everywhere = TestServer::start(&["--host", "0.0.0.0"]);
    let url = format!("http://127.0.0.2:{}", everywhere.address.port());
    let (status, _, err) = run(everywhere.folder().path(), &["diagnose", "--url", &url]);
    assert_eq!(
        (status, err.as_str()),
        (0, ""),
        "one that listens everywhere is at each address of its host"
    );
}
