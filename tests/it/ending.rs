//! A person of the host ends one client: whatever it does, it is told or reset, and nobody else notices.

use crate::support::client::Options;
use crate::support::server::run;
use crate::support::{TestClient, TestServer, eventually, in_both_shapes, numbered};
use std::time::Duration;

const CLOSE: (u16, &str) = (1008, "ended by a person of the server's host");

/// The number of a client in `/status`, by its address.
#[track_caller]
fn id_of(server: &TestServer, client: &TestClient) -> u64 {
    let address = client.socket().local_addr().unwrap().to_string();
    let status = server.http("GET", "/status", &[]).json();
    let mut rows = status["clients"].as_array().unwrap().iter();
    let row = rows.find(|row| row["address"] == address.as_str());
    row.unwrap_or_else(|| panic!("{address} in {status}"))["id"]
        .as_u64()
        .unwrap()
}

#[track_caller]
fn end(server: &TestServer, id: u64) {
    let answer = server.act(&format!("/end?client={id}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["ended"], id);
}

fn ended(server: &TestServer) -> u64 {
    server.health()["clients_ended"]["by_hand"].as_u64().unwrap()
}

#[test]
fn it_is_told_and_the_others_go_on() {
    in_both_shapes(|delivery| {
        let server = TestServer::start(&["--delivery", delivery]);
        let (mut other, mut client) = (server.client(), server.client());
        let id = id_of(&server, &client);
        end(&server, id);
        let closed = client.until_close().expect("its socket has room");
        assert_eq!((closed.0, closed.1.as_str()), CLOSE);
        drop(client);
        eventually("it is counted", || (ended(&server) == 1).then_some(()));
        server.wait_for_line(&format!("✂️ client {id} from 127.0.0.1:"));
        server.wait_for_line("🔑 POST /end of user");
        let said = server.wait_for_line(&format!("👋 client {id} from"));
        assert!(said.ends_with(CLOSE.1), "{said}");
        server.send(numbered(0, 100));
        other.expect_numbers(0..1);
        // It is no ban.
        server.client();
    });
}

#[test]
fn one_that_reads_nothing_is_reset() {
    in_both_shapes(|delivery| {
        // Of what waits for it, the queue takes all, or little, so that it is behind.
        for queue in ["64MiB", "64KiB"] {
            let flags = [
                "--delivery",
                delivery,
                "--send-timeout",
                "60s",
                "--client-queue-bytes",
                queue,
            ];
            let server = TestServer::start(&flags);
            let options = Options {
                receive_buffer: Some(4096),
                ..Options::default()
            };
            let mut client = TestClient::with(server.address, &options);
            let sender = server.sender();
            for number in 0..3000 {
                sender.send(&numbered(number, 1024)).unwrap();
            }
            eventually("all is numbered", || (server.health()["seq"] == 3000).then_some(()));
            end(&server, id_of(&server, &client));
            eventually("it is gone", || {
                (ended(&server) == 1 && server.health()["connections"] == 0).then_some(())
            });
            assert_eq!(
                client.until_close(),
                None,
                "no close frame comes in the middle of another"
            );
        }
    });
}

#[test]
fn it_ends_also_while_the_fanout_stands_still() {
    let server = TestServer::start(&["--allow-drill", "--ping-interval", "1s"]);
    let mut client = server.client();
    let id = id_of(&server, &client);
    assert_eq!(server.act("/drill?component=fanout&ms=60000").status, 200);
    eventually("it stands still", || {
        (server.http("GET", "/initial", &[]).status == 503).then_some(())
    });
    end(&server, id);
    client.set_patience(Duration::from_secs(20));
    let closed = client.until_close().expect("its own thread tells it");
    assert_eq!((closed.0, closed.1.as_str()), CLOSE);
    assert_eq!(server.act("/drill?component=fanout&ms=0").status, 200);
}

#[test]
fn who_is_not_there_cannot_be_ended() {
    let server = TestServer::start(&[]);
    let _client = server.client();
    for (target, status, why) in [
        (
            "/end?client=99",
            404,
            "there is no client 99; `threadcast clients` shows",
        ),
        ("/end?client=all", 400, "client=ID"),
        ("/end", 400, "client=ID"),
    ] {
        let answer = server.act(target);
        assert!(
            answer.status == status && answer.body.contains(why),
            "{target}: {}",
            answer.body
        );
    }
    let refused = server.http("POST", "/end?client=1", &[]);
    assert!(
        refused.status == 403 && refused.body.contains("clients --end ID"),
        "{}",
        refused.body
    );
    assert_eq!((ended(&server), &server.health()["connections"]), (0, &1.into()));
}

#[test]
fn the_command_ends_a_client_and_says_who_is_not_there() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let (id, folder) = (id_of(&server, &client), server.folder());
    let url = format!("http://{}", server.address);
    let command = |id: &str| run(folder.path(), &["clients", "--end", id, "--url", &url]);
    let (code, out, err) = command(&id.to_string());
    assert_eq!((code, err.as_str()), (0, ""));
    let address = client.socket().local_addr().unwrap();
    assert_eq!(out, format!("client {id} from {address} is ended\n"));
    assert_eq!(client.until_close().map(|closed| closed.0), Some(CLOSE.0));
    let (code, out, err) = command("99");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "threadcast: nobody ended: there is no client 99; `threadcast clients` shows those that are there\n"
    );
    let (code, _, err) = command("x");
    assert!(code == 2 && err.contains("--end cannot be \"x\""), "{err}");
    // Without the socket, nobody may.
    let away = ["clients", "--end", "1", "--url", &url, "--admin-socket", "nowhere.sock"];
    let (code, _, err) = run(folder.path(), &away);
    assert!(code == 1 && err.contains("nowhere.sock: nobody listens there"), "{err}");
}
