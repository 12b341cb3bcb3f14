use super::figure::{CPU, DELIVERIES, number};
use super::goals::{GOALS, Verdict, verdict};
use super::results::Results;
use super::statistics::{Side, Spread, cell, ratio, spread};
use super::table::words;
use super::*;
use crate::case;
use crate::generator::Figures;
use crate::suite::{Head, Run};

fn run(case: &str, server: &str, round: usize, deliveries: u64) -> Run {
    Run {
        case: case.to_owned(),
        server: server.to_owned(),
        round,
        repeated: 0,
        disturbed: false,
        failed: None,
        figures: Some(Figures {
            measured_s: 1.0,
            deliveries,
            sent: 100,
            drained: true,
            server_cpu_s: 1.0,
            latency_us: vec![100.0; 9],
            ..Figures::default()
        }),
    }
}

fn results(runs: Vec<Run>) -> Results {
    let head = Head {
        machine: "one".to_owned(),
        commit: "abc".to_owned(),
        date: String::new(),
        command: "run".to_owned(),
        versions: Vec::new(),
        measured_s: 1.0,
        rounds: 3,
        cases: case::all(),
    };
    Results { head, runs }
}

fn lossy(mut run: Run) -> Run {
    run.figures.as_mut().unwrap().missing = 7;
    run
}

fn failed(mut run: Run) -> Run {
    run.figures = None;
    run.failed = Some("it did not start".to_owned());
    run
}

#[test]
fn a_median_is_the_middle_of_the_rounds_whatever_their_order() {
    let three = Spread {
        median: 3.0,
        min: 1.0,
        max: 9.0,
        rounds: 3,
    };
    assert_eq!(spread(vec![9.0, 1.0, 3.0]), Some(three));
    assert_eq!(spread(vec![4.0, 2.0]).unwrap().median, 3.0);
    assert_eq!(spread(vec![f64::NAN]), None);
}

#[test]
fn a_ratio_pairs_the_runs_of_a_round_and_leaves_out_a_round_that_lacks_one() {
    let results = results(vec![
        run("loop-to-50", "direct", 0, 100),
        run("loop-to-50", "direct", 1, 900),
        run("loop-to-50", "direct", 2, 1000),
        run("loop-to-50", "floor", 1, 300),
        run("loop-to-50", "floor", 0, 50),
        lossy(run("loop-to-50", "floor", 2, 1)),
    ]);
    let case = results.case("loop-to-50").unwrap();
    let side = |server| Side { case, server };
    let shown = ratio(&results, side("direct"), side("floor"), DELIVERIES).unwrap();
    assert_eq!((shown.min, shown.median, shown.max, shown.rounds), (2.0, 2.5, 3.0, 2));
    assert_eq!(ratio(&results, side("direct"), side("python"), DELIVERIES), None);
}

#[test]
fn a_lossy_run_of_the_closed_loop_is_no_rate_but_its_cost_is_shown_with_a_mark() {
    let results = results(vec![
        lossy(run("loop-to-50", "direct", 0, 100)),
        lossy(run("rate-100-to-50", "direct", 0, 5000)),
    ]);
    let shown = |name: &str, figure| words(cell(&results, results.case(name).unwrap(), "direct", figure));
    assert_eq!(shown("loop-to-50", DELIVERIES), "lost †");
    assert_eq!(shown("rate-100-to-50", CPU), "200 †");
    assert_eq!(shown("rate-100-to-1000", CPU), "–");
}

#[test]
fn a_failed_run_says_so() {
    let results = results(vec![failed(run("loop-to-50", "floor", 0, 1))]);
    assert_eq!(
        words(cell(&results, results.case("loop-to-50").unwrap(), "floor", DELIVERIES)),
        "failed"
    );
    let page = page::page(&results, &[]);
    assert!(
        page.contains("loop-to-50, floor, round 1 failed: it did not start"),
        "{page}"
    );
}

#[test]
fn a_goal_is_met_missed_or_not_measured_and_never_met_by_who_loses() {
    let goal = &GOALS[0];
    let against = |ours: Run, theirs: u64| {
        let results = results(vec![ours, run(goal.case, "tokio-usual", 0, theirs)]);
        verdict(&results, goal).1
    };
    assert_eq!(against(run(goal.case, "direct", 0, 1500), 100), Verdict::Met);
    assert_eq!(against(run(goal.case, "direct", 0, 1400), 100), Verdict::Missed);
    assert_eq!(against(lossy(run(goal.case, "direct", 0, 9000)), 100), Verdict::Missed);
    assert_eq!(verdict(&results(Vec::new()), goal).1, Verdict::NotMeasured);
}

#[test]
fn a_server_that_does_not_keep_up_with_the_rate_is_marked_and_meets_no_goal() {
    let goal = GOALS.iter().find(|goal| goal.case == "rate-100-to-50").unwrap();
    let mut ours = run(goal.case, "direct", 0, 5000);
    let against = |ours: &Run| results(vec![ours.clone(), run(goal.case, "tokio-usual", 0, 10)]);
    assert_eq!(verdict(&against(&ours), goal).1, Verdict::Met);
    ours.figures.as_mut().unwrap().deliveries = 4700;
    let slow = against(&ours);
    assert_eq!(verdict(&slow, goal).1, Verdict::Missed);
    assert_eq!(
        words(cell(&slow, slow.case(goal.case).unwrap(), "direct", CPU)),
        "213 ‡"
    );
    let page = page::page(&slow, &[]);
    assert!(page.contains("- ‡ rate-100-to-50, direct, 1 of 1 runs"), "{page}");
}

#[test]
fn every_goal_names_a_case_that_there_is() {
    let results = results(Vec::new());
    for goal in GOALS {
        assert!(results.case(goal.case).is_some(), "{}", goal.case);
    }
}

#[test]
fn a_page_of_nothing_says_what_is_absent() {
    let page = page::page(&results(Vec::new()), &[]);
    assert!(
        page.contains("Servers that were not measured: direct, queued"),
        "{page}"
    );
    assert!(page.contains("Not measured in this run."), "{page}");
}

#[test]
fn a_line_that_is_not_a_run_is_named() {
    let head = serde_json::to_string(&results(Vec::new()).head).unwrap();
    let error = Results::parse(&format!("{head}\n{{\"case\":")).unwrap_err();
    assert!(error.starts_with("line 2 is not a run"), "{error}");
    assert!(Results::parse("").unwrap_err().starts_with("line 1"));
}

#[test]
fn numbers_have_three_digits_that_count() {
    let shown = [
        0.0,
        0.0123,
        0.5,
        9.996,
        12.34,
        250.4,
        9_999.0,
        12_345.0,
        123_456.0,
        999_900.0,
        2_345_678.0,
    ]
    .map(number);
    let wanted = [
        "0", "0.0123", "0.50", "10.0", "12.3", "250", "10.0 k", "12.3 k", "123 k", "1.00 M", "2.35 M",
    ];
    assert_eq!(shown, wanted);
}
