//! How it is drawn: with the sixteen colours that every terminal has.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Cell, Row as Cells, Sparkline, Table},
};

use crate::{
    admin::{live::Second, status::span},
    cli::top::{
        row::Row,
        world::{Known, World},
    },
    overload::Level,
    upstream::backend::Availability,
};

const KEYS: &str = "q quit   l load   e errors   n name   ↑ ↓ scroll";
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const QUIET: Style = Style::new().add_modifier(Modifier::DIM);

/// Draws what is known.
pub(super) fn draw(frame: &mut Frame<'_>, world: &mut World) {
    let [head, figures, lines, table, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(top_line(world), head);
    if let Some(known) = world.known() {
        frame.render_widget(figures_line(known), figures);
        draw_lines(frame, lines, known);
    }
    draw_table(frame, table, world);
    let order = format!("   by {}", world.order.as_str());
    frame.render_widget(Line::from(vec![KEYS.into(), Span::styled(order, QUIET)]), foot);
}

fn top_line(world: &World) -> Line<'static> {
    let mut spans = vec![Span::styled("Crestline", Modifier::BOLD)];
    if let Some(known) = world.known() {
        let Known { program, pid, version, pulse, .. } = known;
        let up = span(pulse.uptime_seconds);
        let state = pulse.state.as_str();
        spans.push(format!(" {program}, process {pid}, up {up}, {state}, v{version}").into());
        if pulse.overload != Level::Calm {
            spans.push(Span::styled(format!(", overload: {}", pulse.overload.as_str()), BAD));
        }
        if let Some(why) = pulse.unready.first() {
            spans.push(Span::styled(format!(", not ready: {why}"), Color::Yellow));
        }
    }
    match (&world.lost, world.known()) {
        (Some(why), _) => {
            spans.push(Span::styled(format!("   not reached, asks again: {why}"), BAD));
        }
        (None, Some(_)) => spans.push(Span::styled("   live", Color::Green)),
        (None, None) => spans.push("   asks".into()),
    }
    Line::from(spans)
}

fn figures_line(known: &Known) -> Line<'static> {
    let Some(last) = known.history.back() else { return Line::default() };
    let flight = &known.pulse.in_flight;
    let failures = if last.failed_per_second <= 0.0 { Style::new() } else { BAD };
    let mut spans = vec![
        Span::styled(format!("{:.1}", last.requests_per_second), Modifier::BOLD),
        " requests/s   ".into(),
        Span::styled(format!("{:.1}", last.failed_per_second), failures),
        format!(" failures/s   {:.1} 5xx/s   ", last.errors_per_second).into(),
    ];
    for (name, took) in [("p50", last.p50_ms), ("p90", last.p90_ms), ("p99", last.p99_ms)] {
        spans.push(format!("{name} {}   ", millis(took)).into());
    }
    spans.push(format!("{} connections, {} in flight", flight.connections, flight.requests).into());
    Line::from(spans)
}

fn draw_lines(frame: &mut Frame<'_>, area: Rect, known: &Known) {
    let [requests, failures] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
    let draw = |frame: &mut Frame<'_>, area: Rect, of: fn(&Second) -> f64, color| {
        let width = usize::from(area.width);
        let skipped = known.history.len().saturating_sub(width);
        let shown = known.history.iter().skip(skipped);
        // In thousandths, so that rates below one are seen.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
        let amounts: Vec<u64> = shown.map(|second| (of(second) * 1_000.0) as u64).collect();
        frame.render_widget(Sparkline::default().data(amounts).fg(color), area);
    };
    draw(frame, requests, |second| second.requests_per_second, Color::Cyan);
    draw(frame, failures, |second| second.failed_per_second, Color::Red);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, world: &mut World) {
    let rows = world.rows();
    let height = usize::from(area.height).saturating_sub(1);
    world.above = world.above.min(rows.len().saturating_sub(height));
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(15),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Fill(3),
    ];
    let names = [
        "UPSTREAM, BACKEND",
        "STATE",
        "WEIGHT",
        "IN FLIGHT",
        "REQUESTS/S",
        "FAILED/S",
        "FAILED",
        "LAST ERROR",
    ];
    let shown = rows.iter().skip(world.above).take(height).map(cells);
    frame.render_widget(Table::new(shown, widths).header(Cells::new(names).style(QUIET)), area);
}

fn cells(row: &Row) -> Cells<'static> {
    let Row { name, state, in_service, weight, in_flight, failed, error, .. } = row;
    let rates = [row.per_second, row.failed_per_second].map(|rate| format!("{rate:.1}"));
    let [passed, failing] = rates;
    let (name, word, weight, style) = match state {
        None => {
            let (fit, all) = in_service;
            let word = format!("{fit} of {all}");
            (name.clone(), word, String::new(), Style::new().add_modifier(Modifier::BOLD))
        }
        Some(state) => {
            (format!("  {name}"), state.as_str().to_owned(), weight.to_string(), style(*state))
        }
    };
    let texts = [
        name,
        word,
        weight,
        in_flight.to_string(),
        passed,
        failing,
        failed.to_string(),
        error.clone(),
    ];
    Cells::new(texts.map(Cell::from)).style(style)
}

fn style(state: Availability) -> Style {
    match state {
        Availability::Ready => Style::new(),
        Availability::Trial | Availability::Full => Style::new().fg(Color::Yellow),
        Availability::Draining => QUIET,
        Availability::Unhealthy | Availability::Ejected => BAD,
    }
}

fn millis(took: Option<f64>) -> String {
    match took {
        None => "–".to_owned(),
        Some(took) if took < 1_000.0 => format!("{took:.1} ms"),
        Some(took) => format!("{:.2} s", took / 1_000.0),
    }
}

#[cfg(test)]
mod tests;
