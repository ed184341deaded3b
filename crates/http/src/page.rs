//! The page for people: plain HTML, no assets, no script; it loads itself again every five seconds.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use millpond_engine::Status;
use millpond_engine::status::{RelationState, RelationStatus};

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Millpond</title>\
<meta http-equiv=\"refresh\" content=\"5\"><style>\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #ddd}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{background:#f3f3f3;padding:.1rem .3rem}\
.bad{color:#b00020}</style></head><body><h1>Millpond</h1>";

pub(crate) fn render(status: &Status, postgres: Option<SocketAddr>) -> String {
    let mut page = HEAD.to_owned();
    write_page(&mut page, status, postgres).expect("writing to a string does not fail");
    page
}

fn write_page(page: &mut String, status: &Status, postgres: Option<SocketAddr>) -> fmt::Result {
    match postgres {
        Some(addr) => {
            let host = if addr.ip().is_unspecified() { "127.0.0.1".to_owned() } else { addr.ip().to_string() };
            let port = addr.port();
            write!(page, "<p>Connect with <code>psql -h {host} -p {port} -U millpond</code>.</p>")?;
        }
        None => page.push_str(
            "<p>Connect with any PostgreSQL client, as in <code>psql -h 127.0.0.1 -p 5433 -U millpond</code>; \
             the port is the one of <code>--pg-addr</code>.</p>",
        ),
    }
    if !status.healthy {
        let why = status.failure.as_deref().unwrap_or("the log refuses writes");
        write!(page, "<p class=\"bad\">Not healthy: {}</p>", Escaped(why))?;
    }
    write!(
        page,
        "<p>Up {}; {} connections; {} rows in {} epochs; commit {} is on disk, {} is published; {} of state.</p>",
        Span(status.uptime_seconds),
        status.connections,
        Count(status.rows_in),
        Count(status.epochs),
        status.durable,
        status.published,
        Bytes(status.state_bytes as u64),
    )?;
    if let Some(checkpoint) = &status.checkpoint {
        write!(
            page,
            "<p>Checkpoint {} holds everything up to commit {}: {} in {:.1} ms.</p>",
            checkpoint.number,
            checkpoint.cut,
            Bytes(checkpoint.bytes),
            checkpoint.seconds * 1e3,
        )?;
    }
    if status.relations.is_empty() {
        page.push_str("<p>There is no source, table or view yet.</p>");
    } else {
        page.push_str(
            "<table><tr><th>Name<th>Kind<th>State<th class=\"n\">Rows<th class=\"n\">State\
             <th class=\"n\">Late<th class=\"n\">Errors<th class=\"n\">Behind</tr>",
        );
        for relation in &status.relations {
            write_row(page, status, relation)?;
        }
        page.push_str("</table>");
    }
    page.push_str("<p><a href=\"/metrics\">metrics</a> · <a href=\"/health\">health</a></p></body></html>\n");
    Ok(())
}

fn write_row(page: &mut String, status: &Status, relation: &RelationStatus) -> fmt::Result {
    let (schema, name) = (Escaped(&relation.schema), Escaped(&relation.name));
    write!(page, "<tr><td>{schema}.{name}<td>{}<td>", Escaped(relation.kind))?;
    match &relation.state {
        RelationState::Failed(why) => write!(page, "<span class=\"bad\">failed: {}</span>", Escaped(why))?,
        RelationState::Building { rows_done } => write!(page, "building, {} rows done", Count(*rows_done))?,
        RelationState::Paused(why) => write!(page, "<span class=\"bad\">paused: {}</span>", Escaped(why))?,
        RelationState::Following => page.push_str("following"),
        RelationState::Running => page.push_str("running"),
    }
    writeln!(
        page,
        "<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}</tr>",
        Count(relation.rows),
        Bytes(relation.state_bytes as u64),
        Count(relation.late_rows),
        Count(relation.error_rows),
        Count(status.published.0.saturating_sub(relation.epoch.0)),
    )
}

/// A text that a user chose, in HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A number with its thousands set apart.
struct Count(u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let (mut value, mut unit) = (self.0 as f64 / 1024.0, 0);
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", units[unit])
    }
}

/// A length of time in its two largest units.
struct Span(f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.max(0.0) as u64;
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {} s", seconds % 60),
            (0, _, _) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} d {hours} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(|n| Count(n).to_string()),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([5, 1536, 3 << 40].map(|n| Bytes(n).to_string()), ["5 B", "1.5 KiB", "3.0 TiB"]);
        let spans = [5.9, 65.0, 3_700.0, 90_000.0].map(|s| Span(s).to_string());
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }
}
