//! The query of a URL: `key=value&key=value`, percent-encoded.

/// The decoded value of the first `key`, if there is one and it is UTF-8.
pub fn value(query: &str, key: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(name, _)| *name == key);
    decode(found.next()?.1)
}

/// The decoded value of the first `key`, if there is a `key`.
///
/// # Errors
/// It has no value that can be read; the text says so to the person who wrote the query.
pub fn text(query: &str, key: &str) -> Result<Option<String>, String> {
    match value(query, key) {
        None if has(query, key) => Err(format!(
            "{key} in the query has no value, or one that is not percent-encoded UTF-8"
        )),
        value => Ok(value),
    }
}

/// Returns whether there is a `key`, readable or not.
fn has(query: &str, key: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some(key))
}

/// `text` so that it can stand in a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_survives_the_way() {
        for name in ["worker-1", "a b&c=d%", "päivää ✓", "", "+"] {
            assert_eq!(
                value(&format!("x=1&machine={}", encode(name)), "machine").as_deref(),
                Some(name)
            );
        }
    }

    #[test]
    fn damaged_values_are_none() {
        for query in ["", "machine", "other=1", "machine=%f", "machine=%zz", "machine=%ff"] {
            assert_eq!(value(query, "machine"), None, "{query}");
        }
    }
}
