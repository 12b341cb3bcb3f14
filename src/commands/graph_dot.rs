//! The document of `/api/graph` in the language of graphviz.

use crate::commands::table::time;
use crate::process::visible::visible;
use serde_json::Value;
use std::collections::BTreeMap;

/// The graph of an `/api/graph` document, with a cluster for each type: nodes are states, edges the ways between them.
/// `None` if it is no such document. `dot -Tsvg` draws it.
pub fn dot(document: &str) -> Option<String> {
    let document: Value = serde_json::from_str(document).ok()?;
    let mut text = "digraph threadcast {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (number, of) in document.get("types")?.as_array()?.iter().enumerate() {
        put_type(&mut text, number, of)?;
    }
    text.push_str("}\n");
    Some(text)
}

/// Writes a type. Its nodes have numbers for names, so only labels hold texts of others.
fn put_type(text: &mut String, number: usize, of: &Value) -> Option<()> {
    let name = of["type"].as_str().or_else(|| of["machine"].as_str()).unwrap_or("?");
    text.push_str(&format!(
        "  subgraph cluster_{number} {{\n    label={};\n",
        quoted(&[name])
    ));
    let states = of.get("states")?.as_array()?;
    let mut nodes = BTreeMap::<Option<&str>, String>::new();
    for (place, state) in states.iter().enumerate() {
        let node = format!("n{number}_{place}");
        text.push_str(&format!("    {node} [label={}];\n", label(state)));
        nodes.insert(Some(state["state"].as_str().unwrap_or("?")), node);
    }
    for state in states {
        let to = nodes.get(&Some(state["state"].as_str().unwrap_or("?")))?.clone();
        for way in state.get("from")?.as_array()? {
            let from = way["state"].as_str();
            let place = nodes.len();
            let node = nodes.entry(from).or_insert_with(|| {
                let node = format!("n{number}_{place}");
                // Where machines begin; or a state that nobody was seen to enter.
                let looks = match from {
                    None => "shape=point, label=\"\"".to_owned(),
                    Some(from) => format!("style=dashed, label={}", quoted(&[from])),
                };
                text.push_str(&format!("    {node} [{looks}];\n"));
                node
            });
            let count = way["count"].as_u64().unwrap_or(0).to_string();
            let label = match way["trigger"].as_str() {
                Some(trigger) => quoted(&[trigger, &count]),
                None => quoted(&[&count]),
            };
            text.push_str(&format!("    {node} -> {to} [label={label}];\n"));
        }
    }
    text.push_str("  }\n");
    Some(())
}

/// What stands in a state's node: its name, how long machines stay, how often they came.
fn label(state: &Value) -> String {
    let name = state["state"].as_str().unwrap_or("?");
    let usual = &state["usual"];
    let median = usual["median"].as_f64().filter(|_| usual["n"].as_u64() > Some(0));
    let median = median.map(|seconds| format!("median {}", time(seconds * 1000.0)));
    let entered = format!("entered {}", state["entered"].as_u64().unwrap_or(0));
    let now = state["now"].as_u64().filter(|now| *now > 0);
    let now = now.map(|now| format!("now {now}"));
    let lines: Vec<&str> = [Some(name), median.as_deref(), Some(&entered), now.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    quoted(&lines)
}

/// A string of graphviz with these lines. Inside the quotes a backslash begins an escape (`\N` is the node's name), and
/// `&` an entity of HTML; [`visible`] leaves no line end and no control character.
fn quoted(lines: &[&str]) -> String {
    let escaped: Vec<String> = lines
        .iter()
        .map(|line| {
            let line = visible(line).replace('\\', "\\\\").replace('"', "\\\"");
            line.replace('&', "&amp;")
        })
        .collect();
    format!("\"{}\"", escaped.join("\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_text_leaves_its_quotes_or_means_anything() {
        for (text, expected) in [
            ("idle", r#""idle""#),
            ("", r#""""#),
            (r#"a"]; x [label="b"#, r#""a\"]; x [label=\"b""#),
            (r"ends with \", r#""ends with \\""#),
            (r#"\""#, r#""\\\"""#),
            (r"\N \l", r#""\\N \\l""#),
            ("<b>&lt;", r#""<b>&amp;lt;""#),
            ("a\nb\u{0}", r#""a\\nb\\u{0}""#),
            ("日本", "\"日本\""),
        ] {
            assert_eq!(quoted(&[text]), expected, "{text:?}");
        }
        assert_eq!(quoted(&["a", "b"]), r#""a\nb""#);
    }

    /// A reader of quoted strings as graphviz's is: only `\"` and `\\` are pairs. Returns what is left outside.
    fn outside(dot: &str) -> String {
        let (mut left, mut is_inside, mut is_escaped) = (String::new(), false, false);
        for character in dot.chars() {
            match (is_inside, is_escaped, character) {
                (true, true, _) => is_escaped = false,
                (true, false, '\\') => is_escaped = true,
                (true, false, '"') => is_inside = false,
                (true, ..) => {}
                (false, _, '"') => is_inside = true,
                (false, ..) => left.push(character),
            }
        }
        assert!(!is_inside, "{dot}");
        left
    }

    #[test]
    fn the_shape_of_a_graph_does_not_depend_on_its_texts() {
        let graph = |a: &str, b: &str| {
            let usual = json!({"n": 3, "median": 1.5});
            dot(&json!({"types": [{"type": a, "machine": null, "states": [
                {"state": a, "entered": 7, "now": 1, "usual": usual, "from": [
                    {"state": b, "trigger": b, "count": 5}, {"state": null, "trigger": null, "count": 2},
                ]},
                {"state": "z", "entered": 1, "now": 0, "usual": {"n": 0}, "from": [{"state": b, "trigger": a, "count": 1}]},
            ]}]})
            .to_string())
            .unwrap()
        };
        assert_eq!(
            graph("idle", "encoding"),
            r#"digraph threadcast {
  rankdir=LR;
  node [shape=box];
  subgraph cluster_0 {
    label="idle";
    n0_0 [label="idle\nmedian 1.5s\nentered 7\nnow 1"];
    n0_1 [label="z\nentered 1"];
    n0_2 [style=dashed, label="encoding"];
    n0_2 -> n0_0 [label="encoding\n5"];
    n0_3 [shape=point, label=""];
    n0_3 -> n0_0 [label="2"];
    n0_2 -> n0_1 [label="idle\n1"];
  }
}
"#
        );
        let letters = ['"', '\\', '&', ';', '<', '{', '\n', '\u{7}', 'N', 'ä', '}', ']'];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let mut text = || -> String { (0..random.usize(1..9)).map(|_| letters[random.usize(..12)]).collect() };
            let (a, b) = (text() + "a", text() + "b");
            assert_eq!(outside(&graph(&a, &b)), outside(&graph("a", "b")), "{a:?} {b:?}");
        }
        assert_eq!(dot("{}"), None);
    }
}
