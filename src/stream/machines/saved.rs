//! The table as the state file keeps it, and back.

use super::bounds::{ROW_JSON_BYTES_MAX, Size, TableLimits};
use super::recovered::RecoveredTo;
use super::row::{Origin, Row, beginning, put_string, seconds};
use super::{Machines, instant};
use crate::process::clock::json_seconds;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// A saved table that cannot be read.
#[derive(Debug)]
pub struct RestoreError(String);

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RestoreError {}

impl Machines {
    /// The table as the state file keeps it; `now` is `epoch` on the wall. Each row is that of a snapshot, with what no
    /// snapshot tells behind it.
    pub fn saved(&self, now: Instant, epoch: f64) -> Vec<u8> {
        let start = format!(
            "{{\"threadcast_state\":1,\"saved\":{},\"machines\":[",
            json_seconds(epoch)
        );
        let end = saved_end(self);
        let epoch_ms = (epoch * 1000.0).round() as u64;
        let mut json = Vec::with_capacity(start.len() + self.used.json + self.rows.len() * MORE_BYTES + end.len());
        json.extend_from_slice(start.as_bytes());
        for (index, row) in self.rows.values().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            put_row(&mut json, row, now, epoch_ms);
        }
        json.extend_from_slice(end.as_bytes());
        json
    }

    /// A table from what [`Machines::saved`] made, or an older version, which kept less of each machine. `now` is
    /// `epoch` on the wall. Of more machines than `limits` allow, those that were heard of last stay; the others count
    /// as evicted.
    ///
    /// # Errors
    /// It is not such a document, or was damaged; the text says where. The caller begins with an empty table.
    pub fn restore(saved: &[u8], limits: TableLimits, now: Instant, epoch: f64) -> Result<Machines, RestoreError> {
        let error = |what: &dyn fmt::Display| RestoreError(what.to_string());
        let top: BTreeMap<String, &RawValue> = serde_json::from_slice(saved).map_err(|e| error(&e))?;
        if top.get("threadcast_state").map(|version| version.get()) != Some("1") {
            return Err(error(&"it is not a state file of this version"));
        }
        let rows = top.get("machines").ok_or_else(|| error(&"it has no machines"))?;
        // Read one by one: all at once they would take several times the memory of the table.
        let rows: Vec<&RawValue> = serde_json::from_str(rows.get()).map_err(|e| error(&e))?;
        let mut machines = Machines {
            // One that cannot be read only means looking at more again.
            saved: top.get("saved").and_then(|time| time.get().parse().ok()).unwrap_or(0.0),
            // Twice the room until all are here, so that the order of the file does not decide who stays.
            ..Machines::new(limits.doubled())
        };
        for row in rows {
            let row: BTreeMap<String, &RawValue> = serde_json::from_str(row.get()).map_err(|e| error(&e))?;
            let text = |key: &str| -> Option<Box<str>> { serde_json::from_str(row.get(key)?.get()).ok()? };
            let name = text("machine_name").ok_or_else(|| error(&"a machine has no name"))?;
            let time_of = |key: &str| instant(seconds(row.get(key).map(|time| time.get())), now, epoch);
            let time = row.get("last_activity").map_or("null", |time| time.get());
            let mut restored = Row {
                current_state: text("current_state"),
                config_type: text("config_type"),
                metadata: text("metadata"),
                last_activity: time.into(),
                entered: time_of("state_since"),
                event: time_of("last_event"),
                trigger: text("last_trigger").map(|trigger| beginning(&trigger).into()),
                // So that a row counts only if it is newer.
                origin: Origin::Event,
                ..Row::new(now)
            };
            restored.encode(&name);
            // Older versions tabled larger ones.
            if restored.json.len() > ROW_JSON_BYTES_MAX {
                machines.untabled += 1;
                continue;
            }
            machines.used += Size::of(&name, &restored);
            if let Some(twice) = machines.rows.insert(name.clone(), restored) {
                machines.used -= Size::of(&name, &twice);
            }
            machines.evict(None);
        }
        if let Some(kept) = top.get("engine_db") {
            machines.restore_kept(kept);
        }
        machines.limits = limits;
        machines.evict(None);
        Ok(machines)
    }

    /// After a restart: what [`saved_end`] made.
    fn restore_kept(&mut self, kept: &RawValue) {
        let kept: Value = serde_json::from_str(kept.get()).unwrap_or_default();
        let names = kept["machines"].as_array().into_iter().flatten();
        for name in names.filter_map(Value::as_str) {
            if let Some(row) = self.rows.get_mut(name) {
                // Unless it is heard of again it goes with its row.
                (row.in_database, row.from_database) = (true, true);
            }
        }
        for (name, time) in kept["ended"].as_object().into_iter().flatten() {
            self.ends.note(name, time.as_f64().unwrap_or_default(), true);
        }
        let text = |key: &str| kept[key].as_str().map(str::to_owned);
        // Without one it is as if nothing had been recovered yet, which is bounded by other means too.
        self.recovered_to = text("file").and_then(|file| {
            Some(RecoveredTo {
                file,
                id: kept["events"].as_u64()?,
                mark: text("mark")?,
            })
        });
    }
}

/// What most rows have behind that of the snapshot, in bytes: two times and a trigger.
const MORE_BYTES: usize = 96;

/// Writes a row as the state file has it. Times are seconds since the epoch, so that they outlive this boot.
fn put_row(json: &mut Vec<u8>, row: &Row, now: Instant, epoch_ms: u64) {
    let open = row.json.strip_suffix(b"}").unwrap_or(&row.json);
    json.extend_from_slice(open);
    for (key, time) in [(",\"state_since\":", row.entered), (",\"last_event\":", row.event)] {
        if let Some(time) = time {
            let age = now.saturating_duration_since(time).as_millis() as u64;
            json.extend_from_slice(key.as_bytes());
            put_seconds(json, epoch_ms.saturating_sub(age));
        }
    }
    if let Some(trigger) = &row.trigger {
        json.extend_from_slice(b",\"last_trigger\":");
        put_string(json, Some(trigger));
    }
    json.push(b'}');
}

/// Writes milliseconds as a number of seconds. By hand, because this is done for 5,000 machines twice a second, and
/// `write!` takes five times as long.
fn put_seconds(json: &mut Vec<u8>, millis: u64) {
    const POINT: usize = 20;
    let (mut seconds, rest) = (millis / 1000, (millis % 1000) as u16);
    let digit = |number: u16| b'0' + (number % 10) as u8;
    let mut digits = [b'.'; POINT + 4];
    digits[POINT + 1..].copy_from_slice(&[digit(rest / 100), digit(rest / 10), digit(rest)]);
    let mut begin = POINT;
    // Two at a time: each division waits for the one before.
    while seconds > 0 || begin == POINT {
        let pair = (seconds % 100) as u16;
        seconds /= 100;
        begin -= 2;
        (digits[begin], digits[begin + 1]) = (digit(pair / 10), digit(pair));
    }
    // JSON has no number that begins with a 0 and has another digit behind it.
    begin += usize::from(digits[begin] == b'0');
    json.extend_from_slice(&digits[begin..]);
}

/// How the state file ends.
fn saved_end(machines: &Machines) -> String {
    let names: Vec<&str> = machines.in_database().collect();
    let ended = machines.ends.with_rows();
    if names.is_empty() && ended.is_empty() && machines.recovered_to.is_none() {
        return "]}\n".to_owned();
    }
    let mut kept = json!({ "machines": names, "ended": ended });
    if let Some(RecoveredTo { file, id, mark }) = &machines.recovered_to {
        kept["file"] = file.as_str().into();
        kept["events"] = (*id).into();
        kept["mark"] = mark.as_str().into();
    }
    format!("],\"engine_db\":{kept}}}\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{apply, change, initial};
    use super::*;

    #[test]
    fn what_was_saved_comes_back_byte_for_byte() {
        let mut machines = Machines::default();
        apply(&mut machines, &change("ä", "s\\n"));
        apply(
            &mut machines,
            r#"{"machine_id":"z","type":"state_change","state":"x","timestamp":1795393481.742173}"#,
        );
        let now = Instant::now();
        let saved = machines.saved(now, 9.5);
        let mut restored = Machines::restore(&saved, TableLimits::default(), now, 9.5).unwrap();
        assert_eq!(initial(&mut restored), initial(&mut machines));
        assert_eq!(restored.used.json, machines.used.json);
    }

    #[test]
    fn times_are_numbers_of_json() {
        for (millis, text) in [
            (0, "0.000"),
            (7, "0.007"),
            (1000, "1.000"),
            (1_795_393_481_742, "1795393481.742"),
            (u64::MAX, "18446744073709551.615"),
        ] {
            let mut json = Vec::new();
            put_seconds(&mut json, millis);
            assert_eq!(String::from_utf8(json).unwrap(), text);
        }
    }

    #[test]
    fn damage_is_an_error_and_not_a_panic() {
        let mut machines = Machines::default();
        apply(&mut machines, &change("m", "s"));
        let now = Instant::now();
        let saved = machines.saved(now, 9.5);
        for len in 0..saved.len() - 2 {
            Machines::restore(&saved[..len], TableLimits::default(), now, 9.5).unwrap_err();
        }
        for text in [
            "{}",
            "[]",
            r#"{"threadcast_state":2,"machines":[]}"#,
            r#"{"threadcast_state":1,"machines":[{}]}"#,
        ] {
            Machines::restore(text.as_bytes(), TableLimits::default(), now, 9.5).unwrap_err();
        }
    }
}
