//! Groups of this host by name.

use std::fs;

/// The number of a group: itself, or as /etc/group has it (group(5)). A group of another source, such as LDAP, is given by its
/// number. Blocks on that file.
///
/// # Errors
/// There is no such group; the text says what would be right.
pub fn number_of(group: &str) -> Result<u32, String> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let table = fs::read_to_string("/etc/group").unwrap_or_default();
    number_in(&table, group).ok_or_else(|| "write a group of /etc/group, or the number of any group".to_owned())
}

fn number_in(table: &str, group: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_number() {
        assert_eq!(number_of("root"), Ok(0));
        assert_eq!(number_of("4711"), Ok(4711));
        assert!(number_of("no such group").is_err());
        assert_eq!(number_in("a:x:1:\nab:x:2:u,v\nbroken\n", "ab"), Some(2));
        assert_eq!(number_in("a:x:one:\n", "a"), None);
    }
}
