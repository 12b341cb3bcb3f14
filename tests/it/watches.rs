//! `[[watch]]` with real files and a real server: what appears, changes, goes and settles are events.

use crate::support::client::TestClient;
use crate::support::eventually;
use crate::support::server::TestServer;
use crate::support::supervised::Stack;
use std::fs;
use std::time::Duration;

/// Reads what happens to the files of a watch, as `NAME what`, until so much has come.
#[track_caller]
fn happens(client: &mut TestClient, watch: &str, many: usize) -> Vec<String> {
    let mut happened = Vec::new();
    while happened.len() < many {
        let event = client.json();
        let kind = event["type"].as_str().unwrap_or_default();
        if let Some(what) = kind.strip_prefix("file_") {
            assert_eq!(event["machine_name"], format!("watch/{watch}"), "{event}");
            let path = event["payload"]["path"].as_str().unwrap();
            happened.push(format!("{} {what}", path.rsplit('/').next().unwrap()));
        }
    }
    happened
}

/// A folder with watches of `parts`, whose events go to the server.
fn watching(server: &TestServer, watches: &str) -> Stack {
    let socket = server.socket_path().display().to_string();
    let stack = Stack::new(&format!(
        "[supervise]\nevents = {socket:?}\npoll = \"100ms\"\n[service.a]\ncommand = [\"sleep\", \"3600\"]\n{watches}"
    ));
    fs::create_dir(stack.file("folder")).unwrap();
    fs::write(stack.file("folder/old"), "there before").unwrap();
    stack
}

#[track_caller]
fn wait_until_known(server: &TestServer, watch: &str) {
    let name = format!("watch/{watch}");
    let row = eventually("the server knows the watch", || {
        let machines = server.http("GET", "/api/machines", &[]).json();
        let rows = machines["machines"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["machine_name"] == *name)
    });
    assert!(
        row["config_type"] == "watch" && row["current_state"] == "watching",
        "{row}"
    );
}

#[test]
fn a_replaced_file_is_seen_once_and_a_growing_one_settles_when_it_rests() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let mut stack = watching(
        &server,
        "[[watch]]\nname = \"ideas\"\npath = \"ideas.json\"\nsettle = \"600ms\"\n",
    );
    stack.start(&[]);
    wait_until_known(&server, "ideas");
    let replace = |text: &str| {
        fs::write(stack.file("new"), text).unwrap();
        fs::rename(stack.file("new"), stack.file("ideas.json")).unwrap();
    };
    replace("[1]");
    assert_eq!(
        happens(&mut client, "ideas", 2),
        ["ideas.json appeared", "ideas.json settled"]
    );
    replace("[1, 2]");
    assert_eq!(
        happens(&mut client, "ideas", 2),
        ["ideas.json changed", "ideas.json settled"]
    );
    // A writer that takes its time is told of once, and has settled only after its last byte.
    for length in 1..15 {
        fs::write(stack.file("ideas.json"), vec![b'x'; length]).unwrap();
        crate::support::pause(Duration::from_millis(100));
    }
    fs::write(stack.file("written"), "").unwrap();
    assert_eq!(happens(&mut client, "ideas", 1), ["ideas.json changed"]);
    assert_eq!(happens(&mut client, "ideas", 1), ["ideas.json settled"]);
    assert!(stack.file("written").exists(), "it rested when it was whole");
    fs::remove_file(stack.file("ideas.json")).unwrap();
    assert_eq!(happens(&mut client, "ideas", 1), ["ideas.json gone"]);
    client.expect_silence(Duration::from_millis(500));
    let tail = stack.run(&["services", "status"]);
    assert_eq!(tail.status, Some(0), "{tail:?}");
    assert_eq!(stack.stop(), Some(0));
    let err = stack.err();
    assert!(!err.contains("does not act on"), "{err}");
}

#[test]
fn files_of_a_folder_are_watched_each_for_itself() {
    let server = TestServer::start(&[]);
    let mut client = server.client();
    let mut stack = watching(
        &server,
        "[[watch]]\nname = \"folder\"\npath = \"folder\"\nsettle = \"0s\"\n\
         [[watch]]\nname = \"none\"\npath = \"folder/old/none\"\n",
    );
    stack.start(&[]);
    wait_until_known(&server, "folder");
    stack.wait_until_said("watch none: ");
    fs::create_dir(stack.file("folder/inner")).unwrap();
    fs::write(stack.file("folder/b"), "1").unwrap();
    assert_eq!(happens(&mut client, "folder", 2), ["b appeared", "b settled"]);
    fs::write(stack.file("folder/old"), "it has another size now").unwrap();
    assert_eq!(happens(&mut client, "folder", 2), ["old changed", "old settled"]);
    fs::remove_dir_all(stack.file("folder")).unwrap();
    let mut gone = happens(&mut client, "folder", 2);
    gone.sort();
    assert_eq!(gone, ["b gone", "old gone"]);
    stack.wait_until_said("can be read again");
    assert_eq!(stack.stop(), Some(0));
}
