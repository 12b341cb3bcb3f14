//! Values of settings: what a setting takes, it shows, and takes again as the same; what it refuses changes nothing.
//! And settings files: whatever is in them, every fault has a place and nothing panics.

use crate::mutate::mutate;
use crate::{fuzz, seeds};
use threadcast::config::Config;
use threadcast::config::table::settings;

#[test]
fn a_value_that_a_setting_takes_is_shown_as_one_that_it_takes_again() {
    let seeds = seeds("setting");
    let all: Vec<_> = settings().collect();
    let (mut taken, mut refused) = (0_u64, 0_u64);
    fuzz("setting", 60_000, |rng| {
        let mut bytes = seeds[rng.usize(..seeds.len())].clone();
        if rng.u8(..10) > 2 {
            mutate(rng, &mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let setting = all[rng.usize(..all.len())];
        let mut config = Config::default();
        let before = format!("{config:?}");
        let Err(error) = setting.set(&mut config, &text) else {
            taken += 1;
            let mut again = Config::default();
            for value in setting.values(&config) {
                let set = setting.set(&mut again, &value);
                set.unwrap_or_else(|error| panic!("{} took {text:?} and shows {value:?}: {error}", setting.name));
            }
            assert_eq!(
                format!("{again:?}"),
                format!("{config:?}"),
                "{} of {text:?}",
                setting.name
            );
            return;
        };
        refused += 1;
        assert_eq!(format!("{config:?}"), before, "{} refused {text:?}", setting.name);
        assert!(!error.wanted.is_empty(), "{} of {text:?}", setting.name);
    });
    eprintln!("setting: {taken} taken, {refused} refused");
    assert!(taken > 0 && refused > 0, "the generator is of no use");
}

#[cfg(feature = "config-file")]
#[test]
fn every_fault_of_a_settings_file_has_its_place() {
    use threadcast::config::sources::{Fault, of_file};
    let values = seeds("setting");
    let names: Vec<&str> = settings().map(|setting| setting.name).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let (mut sound, mut faulty) = (0_u64, 0_u64);
    fuzz("settings file", 2_000, |rng| {
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(0..4) {
            let value = String::from_utf8_lossy(&values[rng.usize(..values.len())]).into_owned();
            let quote = if rng.bool() { "\"" } else { "" };
            if rng.u8(..4) == 0 {
                let key = ["type", "state", "after", "port"][rng.usize(..4)];
                let table = format!("[[stuck]]\n{key} = {quote}{value}{quote}\nafter = \"2m\"\n");
                bytes.extend_from_slice(table.as_bytes());
                continue;
            }
            let name = names[rng.usize(..names.len())];
            bytes.extend_from_slice(format!("{name} = {quote}{value}{quote}\n").as_bytes());
        }
        if rng.u8(..10) > 2 {
            mutate(rng, &mut bytes);
        }
        std::fs::write(&path, &bytes).unwrap();
        let lines = String::from_utf8_lossy(&bytes).matches('\n').count() + 1;
        match of_file(&path) {
            Ok(_) => sound += 1,
            Err(faults) => {
                faulty += 1;
                assert!(!faults.is_empty());
                for fault in faults {
                    match fault {
                        Fault::File(error) => match error.place {
                            Some(place) => assert!((1..=lines).contains(&place.line) && place.column > 0, "{error}"),
                            None => assert!(String::from_utf8(bytes.clone()).is_err(), "{error}"),
                        },
                        // A default that does not fit what the file has.
                        Fault::Flag(error) => assert_eq!(error.name, "pong-timeout", "{error}"),
                        Fault::Environment(..) => panic!("{fault}"),
                    }
                }
            }
        }
    });
    eprintln!("settings file: {sound} sound, {faulty} faulty");
    assert!(sound > 0 && faulty > 0, "the generator is of no use");
}
