//! Sizes, paths and addresses as people write them: each is taken as it is meant, or refused with what would be right.

use crate::support::TestServer;
use crate::support::server::run;
use std::os::unix::net::UnixDatagram;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("threadcast-").tempdir().unwrap()
}

#[test]
fn an_event_larger_than_a_datagram_of_default_size_is_sent() {
    let server = TestServer::start(&["--max-event-bytes", "1023KiB"]);
    let mut client = server.client();
    // An argument has at most 128 KiB (execve(2)), so the event comes by standard input.
    let lines = server.path("lines");
    for (pad, said) in [(250_000, false), (1_040_000, true)] {
        let event = format!(
            r#"{{"machine_name":"m","type":"t","payload":{{"pad":"{}"}}}}"#,
            "x".repeat(pad)
        );
        std::fs::write(&lines, format!("{event}\n")).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_threadcast"))
            .args(["emit", "--stdin", "--event-socket-path"])
            .arg(server.socket_path())
            .stdin(std::fs::File::open(&lines).unwrap())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(told.contains("threadcast: 1 sent, 0 refused"), "{told}");
        let warned = told.contains("1 event is larger than 256KiB, which a server drops unless");
        assert_eq!(warned, said, "{told}");
        assert_eq!(client.text(), event);
    }
}

#[test]
fn a_name_that_stands_for_an_abstract_socket_is_refused_and_leaves_no_file() {
    let folder = folder();
    for arguments in [
        &["serve", "--event-socket-path", "@events"][..],
        &["emit", "t", "m", "--event-socket-path", "@events"],
        &["demo", "--event-socket-path", "@events"],
        &["replay", "--journal", "j", "--event-socket-path", "@events"],
    ] {
        let (status, _, said) = run(folder.path(), arguments);
        assert_eq!(status, 2, "{arguments:?}: {said}");
        assert!(
            said.contains("stands for an abstract socket") && said.contains("./@events"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_whose_name_begins_with_an_at_sign_is_a_file() {
    let folder = folder();
    let socket = UnixDatagram::bind(folder.path().join("@events")).unwrap();
    let sent = run(folder.path(), &["emit", "t", "m", "--event-socket-path", "./@events"]);
    assert_eq!(sent, (0, String::new(), String::new()));
    let mut event = [0; 100];
    assert!(socket.recv(&mut event).unwrap() > 0);
    let server = TestServer::start(&["--event-socket-path", "./@events"]);
    assert!(server.path("@events").exists());
    let sent = run(
        server.folder().path(),
        &["emit", "t", "m", "--event-socket-path", "./@events"],
    );
    assert_eq!(sent, (0, String::new(), String::new()));
}

#[test]
fn an_address_in_brackets_is_listened_on_and_a_port_in_host_is_explained() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: this host has no IPv6");
        return;
    }
    let server = TestServer::start(&["--host", "[::1]"]);
    assert!(server.address.is_ipv6(), "{}", server.address);
    let port = server.address.port();
    for url in [
        format!("[::1]:{port}"),
        format!("http://[::1]:{port}/"),
        format!("ws://[::1]:{port}/ws/events"),
    ] {
        let (status, out, said) = run(server.folder().path(), &["clients", "--url", &url]);
        assert_eq!((status, said.as_str()), (0, ""), "{url}: {out}");
    }
    for command in [&["serve"][..], &["forget", "m"]] {
        for (host, part) in [
            ("127.0.0.1:3005", "write --host 127.0.0.1 --port 3005"),
            ("[::1]:3005", "write --host ::1 --port 3005"),
            ("http://localhost:3002", "write --host localhost"),
        ] {
            let (status, _, said) = run(folder().path(), &[command, &["--host", host]].concat());
            assert_eq!(status, 2, "{said}");
            assert!(said.contains(part), "{said}");
        }
    }
}

#[test]
fn every_way_to_write_an_address_leads_tail_and_clients_to_the_server() {
    let server = TestServer::start(&[]);
    let address = server.address;
    let mut client = server.client();
    server.send("{}");
    client.text();
    for url in [
        format!("{address}"),
        format!("{address}/"),
        format!("http://{address}"),
        format!("HTTP://{address}/ws/events"),
        format!("ws://{address}/"),
        format!("localhost:{}", address.port()),
    ] {
        let (status, out, said) = run(server.folder().path(), &["clients", "--url", &url]);
        assert_eq!((status, said.as_str()), (0, ""), "{url}");
        assert!(out.starts_with("epoch "), "{url}: {out}");
        let arguments = ["tail", "--url", &url, "-n", "1", "--count", "1"];
        let (status, out, said) = run(server.folder().path(), &arguments);
        assert_eq!((status, out.lines().count()), (0, 1), "{url}: {said}");
        assert!(said.contains("connected to ws://"), "{url}: {said}");
    }
}
