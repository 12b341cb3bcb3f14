//! The check of events against the parsers of those who read them: Python's json and JavaScript's JSON.parse.

use crate::mutate::{json, mutate};
use crate::seeds;
use fastrand::Rng;
use std::io::Write;
use std::process::{Command, Stdio};
use threadcast::stream::event::{DropCause, check};

/// Reads lines of hexadecimal bytes; answers `y` for an object, `o` for other JSON, `n` for no JSON.
const PYTHON: &str = r#"
import json, sys
def no(text): raise ValueError(text)
for line in sys.stdin:
    try:
        value = json.loads(bytes.fromhex(line.strip()).decode("utf-8"), parse_constant=no)
        print("y" if isinstance(value, dict) else "o")
    except ValueError:
        print("n")
"#;

/// The same; an array or null is no object.
const NODE: &str = r#"
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
for (const line of require("fs").readFileSync(0, "latin1").split("\n").slice(0, -1)) {
  try {
    const value = JSON.parse(decoder.decode(Buffer.from(line, "hex")));
    console.log(value !== null && typeof value === "object" && !Array.isArray(value) ? "y" : "o");
  } catch { console.log("n"); }
}
"#;

const DOCUMENTS: usize = 20_000;

#[test]
fn python_agrees() {
    agree("python3", &["-c", PYTHON]);
}

#[test]
fn javascript_agrees() {
    agree("node", &["-e", NODE]);
}

fn documents() -> Vec<Vec<u8>> {
    let mut rng = Rng::with_seed(crate::SEED);
    let seeds = seeds("event");
    let mut document = || {
        let mut bytes = match rng.u8(..5) {
            0 => seeds[rng.usize(..seeds.len())].clone(),
            _ => json(&mut rng).into_bytes(),
        };
        if rng.u8(..3) == 0 {
            mutate(&mut rng, &mut bytes);
        }
        bytes
    };
    let mut documents: Vec<Vec<u8>> = (0..DOCUMENTS).map(|_| document()).collect();
    for control in 0..0x20 {
        for around in [
            ["{\"a", "b\":1}"],
            ["{\"payload\":{\"a", "\":1}}"],
            ["{\"a\":\"", "\"}"],
            ["{", "\"a\":1}"],
        ] {
            documents.push([around[0].as_bytes(), &[control], around[1].as_bytes()].concat());
        }
    }
    documents
}

fn agree(program: &str, arguments: &[&str]) {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        // Past the capture of a test that passes; tests/run counts these lines.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the check of events against {program}, which is not installed"
        );
        return;
    };
    let documents = documents();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let lines: String = documents.iter().map(|bytes| hex(bytes)).collect();
    let mut input = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(lines.as_bytes()).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program}: {}", output.status);
    let answers: Vec<u8> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.first().copied())
        .collect();
    assert_eq!(answers.len(), documents.len());
    let mut objects = 0;
    for (bytes, answer) in documents.iter().zip(answers) {
        let expected = match check(bytes) {
            Ok(_) | Err(DropCause::ReservedType | DropCause::NotUnicode) => b'y',
            Err(DropCause::NotAnObject) => b'o',
            Err(_) => b'n',
        };
        objects += usize::from(answer == b'y');
        assert_eq!(
            char::from(answer),
            char::from(expected),
            "{program} differs: {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert!(
        objects > DOCUMENTS / 10,
        "only {objects} documents are objects: the generator is of no use"
    );
}
