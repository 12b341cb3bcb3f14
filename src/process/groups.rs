//! Groups of this host: by name, and who is in them.

use crate::process::values::number;
use std::fs;

/// The largest number of a group: the one above it, which is -1, means "leave it as it is" (chown(2)).
const NUMBER_MAX: u64 = u32::MAX as u64 - 1;

/// The number of a group: itself, or as /etc/group has it (group(5)). A group of another source, such as LDAP, is given
/// by its number. Blocks on that file.
///
/// # Errors
/// There is no such group; the text says what would be right.
pub fn number_of(group: &str) -> Result<u32, String> {
    if let Ok(number) = number(group, 0, NUMBER_MAX) {
        return Ok(number as u32);
    }
    let table = fs::read_to_string("/etc/group").unwrap_or_default();
    number_in(&table, group)
        .ok_or_else(|| format!("write a group of /etc/group, or the number of any group, from 0 to {NUMBER_MAX}"))
}

fn number_in(table: &str, group: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group))
            .then(|| Some(number(fields.nth(1)?, 0, NUMBER_MAX).ok()? as u32))
            .flatten()
    })
}

/// Returns whether nobody but this user is in the group: the group of one's own that many systems give each user,
/// together with an umask of 002. What other sources than /etc/passwd and /etc/group say of it is not seen; a group or
/// user that is not in these files counts as somebody else's. Blocks on these files.
pub fn is_private(group: u32, user: u32) -> bool {
    let table = |path| fs::read_to_string(path).unwrap_or_default();
    is_private_in((&table("/etc/passwd"), &table("/etc/group")), group, user)
}

fn is_private_in((users, groups): (&str, &str), group: u32, user: u32) -> bool {
    let mut own_name = None;
    for line in users.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, number, primary, ..] = fields[..] else {
            continue;
        };
        if number.parse() == Ok(user) {
            own_name = Some(name);
        } else if primary.parse() == Ok(group) {
            return false;
        }
    }
    let mut of_group = groups.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, number, members] = fields[..] else {
            return None;
        };
        (number.parse() == Ok(group)).then_some(members)
    });
    let (Some(own_name), Some(members)) = (own_name, of_group.next()) else {
        return false;
    };
    let mut members = members.split(',').filter(|member| !member.is_empty());
    members.all(|member| member == own_name) && of_group.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_one_is_private() {
        let users = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n\
                     eve:x:1002:1001::/:/bin/sh\nbroken\n";
        let groups = "root:x:0:\nann:x:1000:\nbob:x:1001:\nshared:x:2000:ann,bob\nalone:x:2001:ann\nbroken:x\n\
                      twice:x:2002:\ntwice:x:2002:bob\n";
        let tables = (users, groups);
        for (group, user, expected) in [
            (1000, 1000, true),
            (2001, 1000, true),
            (0, 0, true),
            // Also that of eve.
            (1001, 1001, false),
            (2000, 1000, false),
            (1000, 1001, false),
            (2002, 1000, false),
            // Known to another source only.
            (3000, 1000, false),
            (1000, 3000, false),
        ] {
            assert_eq!(is_private_in(tables, group, user), expected, "{group} {user}");
        }
    }

    #[test]
    fn a_group_has_a_number() {
        assert_eq!(number_of("root"), Ok(0));
        assert_eq!(number_of("4711"), Ok(4711));
        assert!(number_of("no such group").is_err());
        assert_eq!(number_in("a:x:1:\nab:x:2:u,v\nbroken\n", "ab"), Some(2));
        assert_eq!(number_in("a:x:one:\n", "a"), None);
    }

    /// chown(2) takes it for "no change", so the socket would stay with the server's own group.
    #[test]
    fn minus_one_is_no_group() {
        assert_eq!(number_of("4294967294"), Ok(4_294_967_294));
        for text in ["4294967295", "4294967296", "-1", "+5", ""] {
            let error = number_of(text).unwrap_err();
            assert!(error.contains("from 0 to 4294967294"), "{text}: {error}");
        }
        assert_eq!(number_in("a:x:4294967295:\n", "a"), None);
    }
}
