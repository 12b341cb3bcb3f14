use super::*;

fn event(text: &str) -> Event<'_> {
    check(text.as_bytes()).unwrap_or_else(|cause| panic!("{text}: {cause:?}"))
}

fn cause(bytes: impl AsRef<[u8]>) -> DropCause {
    check(bytes.as_ref()).unwrap_err()
}

#[test]
fn the_table_of_causes_is_in_the_order_of_the_enum() {
    for (index, (cause, _, _)) in DropCause::TABLE.iter().enumerate() {
        assert_eq!(*cause as usize, index);
    }
}

#[test]
fn what_is_not_one_json_object_is_refused_with_its_cause() {
    assert_eq!(cause(""), DropCause::Empty);
    assert_eq!(cause(b"{\"type\":\"x\",\"v\":\"\xff\xfe\"}"), DropCause::NotUtf8);
    for text in [
        "hello",
        "{\"type\":\"state_change\",\"machine_na",
        "{\"v\":NaN}",
        "{\"v\":Infinity}",
        "{\"v\":\"a\u{1}b\"}",
        "{} {}",
        "{}x",
        "[1] [2]",
        "\u{feff}{}",
        "{\"a\":1,}",
        "{'a':1}",
        " ",
    ] {
        assert_eq!(cause(text), DropCause::NotJson, "{text}");
    }
    for text in ["[1,2,3]", "42", "null", "\"x\"", " true ", r#""\udc00""#] {
        assert_eq!(cause(text), DropCause::NotAnObject, "{text}");
    }
}

/// RFC 8259 section 7: U+0000 to U+001F stand in a string only as escapes.
#[test]
fn a_raw_control_character_in_a_string_is_no_json() {
    for control in 0..0x20_u8 {
        let control = char::from(control);
        for text in [
            format!("{{\"a{control}b\":1}}"),
            format!("{{\"payload\":{{\"a{control}b\":1}}}}"),
            format!("{{\"payload\":{{\"\\u0061{control}\":1}}}}"),
            format!("{{\"deep\":[{{\"a{control}b\":1}}]}}"),
            format!("{{\"payload\":{{\"deep\":{{\"a{control}b\":1}}}}}}"),
            format!("{{\"payload\":[{{\"a{control}b\":1}}]}}"),
            format!("{{\"v\":\"a{control}b\"}}"),
            format!("{{\"type\":\"a{control}b\"}}"),
            format!("{{\"payload\":{{\"to_state\":\"a{control}b\"}}}}"),
        ] {
            assert_eq!(check(text.as_bytes()), Err(DropCause::NotJson), "{text:?}");
        }
    }
    event("{\"a\\u0001b\":1,\"payload\":{\"a\\nb\":\"\\u0000\"}}");
    event("\n{\t\"a\"\r\n: 1 , \"payload\" :\t{ \"b\"\n:\r2\t} }\n");
}

#[test]
fn a_name_that_no_snapshot_can_hold_is_refused() {
    for text in [
        r#"{"type":"\ud83d"}"#,
        r#"{"type":"t","machine_name":"m\udcff"}"#,
        r#"{"machine_id":"\udcff\ud83d"}"#,
        r#"{"machine_name":"m","state":"\ud83d"}"#,
        r#"{"machine_name":"m","payload":{"to_state":"\ud83dx"}}"#,
        r#"{"machine_name":"m","payload":{"config_type":"\ud83d\ud83d"}}"#,
    ] {
        assert_eq!(cause(text), DropCause::NotUnicode, "{text}");
    }
    event(r#"{"type":"t","machine_name":"\ud83d\ude00","payload":{"note":"\ud83d"}}"#);
    event(r#"{"type":"t","type2":"\ud83d","\ud83d":1}"#);
    // Of names in several places the first counts.
    event(r#"{"machine_name":"m","machine_id":"\ud83d","type":"t","event_type":"\ud83d"}"#);
    event(r#"{"machine_name":"m","type":"t","payload":{"current_state":"\ud83d"}}"#);
}

#[test]
fn a_trigger_is_no_reason_to_refuse_an_event() {
    let trigger = |value: &str| {
        let text = format!(r#"{{"machine_name":"m","payload":{{"to_state":"s","event_trigger":{value}}}}}"#);
        event(&text).trigger.map(Cow::into_owned)
    };
    assert_eq!(trigger(r#""new\u005fjob""#).as_deref(), Some("new_job"));
    for value in [r#""\ud83d""#, "7", "null", "{}"] {
        assert_eq!(trigger(value), None, "{value}");
    }
}

#[test]
fn reserved_types_are_found_however_they_are_spelled() {
    for text in [
        r#"{"type":"ping"}"#,
        r#"{"type":"pong"}"#,
        r#"{"type":"in\u0069tial"}"#,
        r#"{"ty\u0070e":"initial"}"#,
        r#"{"type":"x","type":"initial"}"#,
        r#"{"event_type":"initial"}"#,
        r#"{"type":null,"event_type":"initial"}"#,
    ] {
        assert_eq!(cause(text), DropCause::ReservedType, "{text}");
    }
    assert_eq!(event(r#"{"type":"initial","type":"x"}"#).kind.as_deref(), Some("x"));
    assert_eq!(event(r#"{"payload":{"type":"initial"}}"#).kind, None);
}

#[test]
fn valid_text_passes_however_odd() {
    event(r#"{}"#);
    event("{\"type\":\"nl\"}\n");
    event(r#"{"\ud83d":"\ud83d","payload":{"\udc00":"\ud83d"}}"#);
    event(&format!("{{\"deep\":{}1{}}}", "[".repeat(20_000), "]".repeat(20_000)));
    event(r#"{"type":5,"machine_name":[],"payload":"text","timestamp":"noon"}"#);
}

#[test]
fn all_three_dialects_are_mapped() {
    let shipped = event(
        r#"{"machine_name": "m", "type": "state_change", "payload": {"from_state": "a", "to_state": "b", "event_trigger": "t", "timestamp": 1795393481.6886814}}"#,
    );
    assert_eq!(shipped.kind.as_deref(), Some("state_change"));
    assert_eq!(shipped.machine.as_deref(), Some("m"));
    assert_eq!(shipped.state.as_deref(), Some("b"));
    assert_eq!(shipped.trigger.as_deref(), Some("t"));
    assert_eq!(shipped.time, Some("1795393481.6886814"));
    let older = event(r#"{"event_type":"state_change","machine_name":"m","payload":{"to_state":"b"}}"#);
    assert_eq!((older.kind, older.state), (shipped.kind, shipped.state));
    let document = event(r#"{"type":"state_change","machine_id":"m","state":"b","timestamp":17,"data":{}}"#);
    assert_eq!(
        (document.machine.as_deref(), document.state.as_deref()),
        (Some("m"), Some("b"))
    );
    assert_eq!(document.time, Some("17"));
}

#[test]
fn one_pass_reads_what_two_read() {
    let texts = |read: Option<(Top<'_>, Inner<'_>)>| {
        read.map(|(top, inner)| {
            let of = |raw: &Raw<'_>| raw.map(|raw| raw.get().to_owned());
            let top: Vec<_> = top[..PAYLOAD].iter().map(of).collect();
            (top, inner.iter().map(of).collect::<Vec<_>>())
        })
    };
    let inner = [
        r#"{}"#,
        r#"{"machine_name":"m","to_state":"b","timestamp":1e999,"x":[{"to_state":1}],"config_type":null}"#,
        r#"{"to_state":"a","to_st\u0061te":"b","\ud83d":"\udc00"}"#,
        r#" {"to_state" : "a" , "deep":[[[[{"type":"x"}]]]] } "#,
    ];
    for inner in inner {
        for text in [
            format!(r#"{{"type":"t","payload":{inner},"machine_name":"m","timestamp":17,"more":{inner}}}"#),
            format!(r#"{{"payload":{{"to_state":"old"}},"payl\u006fad":{inner}}}"#),
            format!(r#" {{"state":{inner},"payload":{inner}}} "#),
        ] {
            let once = texts(read_at_once(&text));
            assert!(once.is_some(), "{text}");
            assert_eq!(once, texts(read_twice(&text).ok()), "{text}");
            for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                let begin = &text[..cut];
                assert_eq!(texts(read_at_once(begin)), texts(read_twice(begin).ok()), "{begin}");
            }
            assert_eq!(check(format!("{text}{text}").as_bytes()), Err(DropCause::NotJson));
        }
    }
    for text in [
        r#"{"payload":"text"}"#,
        r#"{"payload":{"to_state":"b"},"payload":null}"#,
    ] {
        assert!(read_at_once(text).is_none());
        assert_eq!(event(text).state, None);
    }
}

#[test]
fn a_registration_brings_state_and_configuration() {
    let text = r#"{"machine_name":"m","type":"machine_registered","payload":{"machine_name":"m","config_type":"c","current_state":"initializing","timestamp":1.5}}"#;
    let registered = event(text);
    assert_eq!(registered.state.as_deref(), Some("initializing"));
    assert_eq!(registered.config_type.as_deref(), Some("c"));
    let other = text.replace("machine_registered", "note");
    assert_eq!(event(&other).state, None);
}

#[test]
fn a_time_keeps_its_spelling_and_must_be_one_of_seconds() {
    for (time, is_one) in [
        ("1.50e3", true),
        ("0", true),
        ("1795393481.6886814", true),
        ("99999999999.9", true),
        // Milliseconds, microseconds, nanoseconds; the year 57000.
        ("1795393481688", false),
        ("1795393481688681", false),
        ("1795393481688681400", false),
        ("1.7366e12", false),
        ("1e11", false),
        ("1e999", false),
        ("-1", false),
        ("\"1\"", false),
        ("null", false),
    ] {
        let text = format!(r#"{{"timestamp":{time}}}"#);
        assert_eq!(event(&text).time, is_one.then_some(time));
    }
    let both = event(r#"{"timestamp":17,"payload":{"timestamp":1795393481688}}"#);
    assert_eq!(both.time, Some("17"), "what is no time counts as none");
}

#[test]
fn a_sender_cannot_tell_what_the_server_tells() {
    for kind in NOTICES {
        let own = format!(r#"{{"machine_name":"m","type":"{kind}","server":true}}"#);
        assert_eq!(cause(&own), DropCause::ReservedType);
        assert!(is_own(Some(kind), own.as_bytes()));
        assert_eq!(check_published(own.as_bytes()).unwrap().kind.as_deref(), Some(kind));
        let spelled = own
            .replace("machine_s", "machine\\u005fs")
            .replace("server", "s\\u0065rver");
        assert_eq!(cause(&spelled), DropCause::ReservedType);
        // Without the mark, or with another type, it is anybody's.
        for other in [
            own.replace("true", "false"),
            own.replace("true", "\"true\""),
            own.replace("true", "1"),
            own.replace("\"server\"", "\"servers\""),
            own.replace(kind, "machine_change"),
            own.replace("\"server\":true", "\"payload\":{\"server\":true}"),
        ] {
            event(&other);
            assert!(!is_own(Some(kind), other.as_bytes()), "{other}");
        }
    }
}

#[test]
fn a_change_says_which_state_was_left() {
    let from = |value: &str| {
        let text = format!(r#"{{"machine_name":"m","payload":{{"to_state":"s","from_state":{value}}}}}"#);
        event(&text).from.map(Cow::into_owned)
    };
    assert_eq!(from(r#""wai\u0074ing""#).as_deref(), Some("waiting"));
    for value in [r#""\ud83d""#, "7", "null", "{}"] {
        assert_eq!(from(value), None, "{value}");
    }
}
