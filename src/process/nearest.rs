//! The name that a person may have meant: "did you mean".

/// As many edits may lie between a wrong name and one that is offered for it; a short name gets fewer.
const EDITS_MAX: usize = 3;

/// Returns the one of `names` that is most like `name`, if it is like enough: at most three edits away, and fewer
/// than half of its characters.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let edits_max = EDITS_MAX.min(name.chars().count() / 2);
    names
        .into_iter()
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns the fewest edits (insert, remove, replace a character, swap two neighbours) from one name to the other.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut fewest = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                fewest = fewest.min(rows[i - 2][j - 2] + 1);
            }
            row.push(fewest);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_offered_and_a_strange_word_is_not() {
        let names = ["serve", "tail", "machines", "clients"];
        for (name, expected) in [
            ("sevre", Some("serve")),
            ("serv", Some("serve")),
            ("machine", Some("machines")),
            ("clinets", Some("clients")),
            ("taill", Some("tail")),
            ("x", None),
            ("ls", None),
            ("", None),
            ("everything", None),
        ] {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
    }
}
