//! What a person sees on standard output: the phases before they begin, and the table once everything is started.

use super::running::Running;
use crate::commands::painter::{BOLD, DIM, GREEN, NONE, Painter, RED};
use crate::commands::table::{Column, Fit, Table, column, width};
use crate::process::visible::visible;
use crate::process::words::count;
use crate::supervise::board::{Row, State};
use crate::supervise::settings::plan::{Plan, SERVER, Service};

const COLUMNS: [Column; 5] = [
    column("SERVICE", Fit::Ends(8), 0),
    column("STATE", Fit::Word, 0),
    column("PID", Fit::Number, 0),
    column("ADDRESS", Fit::Beginning(10), 2),
    column("LOG", Fit::Ends(16), 1),
];

/// The phases, one a line.
pub(super) fn phases(plan: &Plan) -> String {
    let painter = Painter::of_stdout();
    let mut text = format!(
        "{} {}\n",
        painter.paint(BOLD, &count(plan.services.len(), "service")),
        painter.paint(DIM, &visible(&plan.file.display().to_string()))
    );
    if !plan.needs.is_empty() {
        let names: Vec<&str> = plan.needs.iter().map(|need| need.name.as_str()).collect();
        text.push_str(&format!("{}  {}\n", painter.paint(BOLD, "needs  "), names.join(", ")));
    }
    for (number, phase) in plan.order.start.iter().enumerate() {
        let names: Vec<&str> = phase.iter().map(|at| plan.services[*at].name.as_str()).collect();
        let head = format!("phase {}", number + 1);
        text.push_str(&format!("{}  {}\n", painter.paint(BOLD, &head), names.join(", ")));
    }
    text
}

/// All services as they are now.
pub(super) fn table(running: &Running) -> String {
    let painter = Painter::of_stdout();
    let rows = running.board().rows();
    let mut table = Table::new(&COLUMNS);
    for (name, row) in &rows {
        let service = running.plan().services.iter().find(|service| service.name == **name);
        let address = service.and_then(|service| address(running.plan(), service));
        let cells = vec![
            name.to_string(),
            row.state.name().to_owned(),
            row.leader.map_or_else(String::new, |leader| leader.pid.to_string()),
            address.unwrap_or_default(),
            visible(&row.log.display().to_string()),
        ];
        table.push(color(row), cells);
    }
    let bad = rows.iter().filter(|(_, row)| !row.is_well).count();
    let last = match bad {
        0 => painter.paint(GREEN, "everything is started; Ctrl-C stops it\n"),
        bad => painter.paint(
            RED,
            &format!(
                "{} not as it should be; `threadcast services status` says why; Ctrl-C stops everything\n",
                count(bad, "service")
            ),
        ),
    };
    let notes: String = rows
        .iter()
        .filter(|(_, row)| !row.is_well && !row.note.is_empty())
        .map(|(name, row)| format!("{name}: {}\n", visible(&row.note)))
        .collect();
    table.text(width(), painter) + &notes + &last
}

fn color(row: &Row) -> &'static str {
    match row.state {
        _ if !row.is_well => RED,
        State::Stopped | State::Finished => DIM,
        _ => NONE,
    }
}

/// Where a service answers, as far as its sign of being ready tells.
fn address(plan: &Plan, service: &Service) -> Option<String> {
    if service.name == SERVER {
        return Some(format!("http://{}", plan.supervise.url.authority));
    }
    service.ready.as_ref()?.sign.address()
}
