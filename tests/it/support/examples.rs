//! The examples of docs/protocol.md, and how a message of a server is compared with one.

use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// Keys whose text is the same in every message of a type; of all others only the type of the value counts.
const CONSTANT: [&str; 5] = ["type", "protocol", "server", "cause", "verdict"];

/// Messages that stand in one block, and so follow each other.
#[derive(Debug)]
pub struct Block {
    /// `plain` or `v1`.
    pub protocol: String,
    /// `server` or `client`: who sends them.
    pub sender: String,
    pub messages: Vec<String>,
}

/// What the page shows.
#[derive(Debug, Default)]
pub struct Page {
    pub text: String,
    pub blocks: Vec<Block>,
    /// HTTP requests with their answers, with the line ends of HTTP.
    pub exchanges: Vec<(String, String)>,
}

impl Page {
    /// Reads the page. A fenced block is an example if its first line says of what: ```` ```json v1 server ````,
    /// ```` ```http request ````.
    pub fn read() -> Page {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
        let text = std::fs::read_to_string(path).unwrap();
        let mut page = Page::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(about) = line.strip_prefix("```") else {
                continue;
            };
            let content: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            match about.split(' ').collect::<Vec<_>>()[..] {
                ["http", "request"] => page.exchanges.push((http(&content), String::new())),
                ["http", "answer"] => page.exchanges.last_mut().unwrap().1 = http(&content),
                [_, protocol, sender] | [_, protocol, sender, "event"] => page.blocks.push(Block {
                    protocol: protocol.to_owned(),
                    sender: sender.to_owned(),
                    messages: content.into_iter().map(str::to_owned).collect(),
                }),
                ["python" | "js"] => {}
                // stuck.rs has a server send them.
                ["json", "notice"] => {}
                _ => panic!("what is an example of {about:?}?"),
            }
        }
        page.text = text;
        page
    }

    /// The messages of a protocol that `sender` sends.
    pub fn messages<'a>(&'a self, protocol: &'a str, sender: &'a str) -> impl Iterator<Item = &'a str> {
        let blocks = self.blocks.iter();
        let blocks = blocks.filter(move |block| block.protocol == protocol && block.sender == sender);
        blocks.flat_map(|block| block.messages.iter().map(String::as_str))
    }

    /// The rows of the table whose head is `head`, in cells without the ticks of code at their ends.
    pub fn table(&self, head: &str) -> Vec<Vec<String>> {
        let lines = self.text.lines().skip_while(|line| *line != head).skip(2);
        let rows = lines.take_while(|line| line.starts_with('|'));
        let cell = |cell: &str| cell.trim().to_owned();
        let rows: Vec<Vec<String>> = rows
            .map(|row| row.trim_matches('|').split('|').map(cell).collect())
            .collect();
        assert!(!rows.is_empty(), "no table with the head {head}");
        rows
    }
}

fn http(lines: &[&str]) -> String {
    // An answer's body begins behind an empty line, and has no line end.
    match lines.iter().position(|line| line.is_empty()) {
        Some(end) => format!("{}\r\n\r\n{}", lines[..end].join("\r\n"), lines[end + 1..].join("\n")),
        None => format!("{}\r\n\r\n", lines.join("\r\n")),
    }
}

/// What kind of message it is: its `type`, or `event`.
pub fn kind(protocol: &str, text: &str) -> String {
    let object: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    let own = |key: &str| {
        object
            .get(key)
            .and_then(|value| serde_json::from_str::<String>(value.get()).ok())
    };
    let kind = own("type").unwrap_or_default();
    let is_event = match protocol {
        "plain" => !matches!(kind.as_str(), "initial" | "ping" | "pong"),
        _ => object.contains_key("event"),
    };
    if is_event { "event".to_owned() } else { kind }
}

/// Whether `seen` is what `example` shows: an event of the same bytes, whatever its number; else the same keys in the
/// same order, with values of the same types, and the constant ones equal.
pub fn is_like(protocol: &str, example: &str, seen: &str) -> bool {
    if kind(protocol, example) != kind(protocol, seen) {
        return false;
    }
    let numbered = protocol == "v1" && kind(protocol, example) == "event";
    let without_number = |text: &str| text.split_once(",\"machine\":").unwrap().1.to_owned();
    match kind(protocol, example).as_str() {
        "event" if numbered => without_number(example) == without_number(seen),
        "event" => example == seen,
        _ => parts(example) == parts(seen),
    }
}

/// What a message consists of: the keys of each object in their order, and what each value is.
pub fn parts(text: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    let is_event = kind("v1", text) == "event";
    add_parts("", text, is_event, &mut parts);
    parts
}

fn add_parts(path: &str, value: &str, is_event: bool, parts: &mut BTreeSet<String>) {
    let key = path.rsplit('.').next().unwrap_or_default();
    let what = match value.as_bytes()[0] {
        // What a sender has sent is its own affair.
        b'{' if path == ".event" => "an object".to_owned(),
        b'{' => {
            let object: BTreeMap<String, &RawValue> = serde_json::from_str(value).unwrap();
            let mut fields: Vec<_> = object.into_iter().collect();
            // Each value is a part of the text, so its address tells its place.
            fields.sort_by_key(|(_, value)| value.get().as_ptr());
            for (key, value) in &fields {
                add_parts(&format!("{path}.{key}"), value.get(), is_event, parts);
            }
            let keys: Vec<&str> = fields.iter().map(|(key, _)| key.as_str()).collect();
            format!("an object of {keys:?}")
        }
        b'[' => {
            for value in serde_json::from_str::<Vec<&RawValue>>(value).unwrap() {
                add_parts(&format!("{path}[]"), value.get(), is_event, parts);
            }
            "a list".to_owned()
        }
        b'"' if CONSTANT.contains(&key) && !is_event => value.to_owned(),
        b'"' => "a string".to_owned(),
        b'n' => "null".to_owned(),
        b't' | b'f' => "a truth value".to_owned(),
        _ => "a number".to_owned(),
    };
    parts.insert(format!("{path} is {what}"));
}
