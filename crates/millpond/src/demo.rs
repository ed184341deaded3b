//! `millpond demo`: the main job in one command, shown live in the terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use millpond_engine::{Engine, Session, SessionInfo, rows};
use millpond_env::Env;
use millpond_types::SqlError;

use crate::config::{DemoOptions, Settings};
use crate::serve::{Server, wait_for_signal};

const VIEWS: [(&str, &str); 3] = [
    (
        "big_bids",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS big_bids AS \
         SELECT auction, bidder, price, channel, date_time FROM bid WHERE price > 10000000",
    ),
    (
        "per_minute",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS per_minute AS \
         SELECT window_start, auction, count(*) AS bids, sum(price) AS total, max(price) AS top \
         FROM TUMBLE(bid, date_time, INTERVAL '1 minute') GROUP BY window_start, auction",
    ),
    (
        "by_channel",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS by_channel AS \
         SELECT channel, count(*) AS bids, avg(price) AS average, max(price) AS top FROM bid GROUP BY channel",
    ),
];

pub async fn demo(mut settings: Settings, options: DemoOptions) -> Result<(), String> {
    if !settings.data_dir_given {
        settings.data_dir = "./millpond-data/demo".into();
    }
    let server = Server::start(&settings).await?;
    let result = show(&server, &options).await.map_err(|e| e.to_string());
    server.stop().await;
    result
}

async fn show(server: &Server, options: &DemoOptions) -> Result<(), SqlError> {
    let info = SessionInfo { user: "millpond".into(), database: "millpond".into(), ..SessionInfo::default() };
    let mut session = server.engine.session(info)?;
    let rate = options.rate;
    let source = format!(
        "CREATE SOURCE IF NOT EXISTS bid (auction bigint, bidder bigint, price bigint, channel text, url text, \
         date_time timestamp, extra text, WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') \
         WITH (connector = 'nexmark', nexmark.table.type = 'bid', rate = {rate})"
    );
    rows(&mut session, &source).await?;
    for (_, statement) in VIEWS {
        rows(&mut session, statement).await?;
    }
    let addr = server.postgres.local_addr();
    println!(
        "Millpond is running: a generated stream of auction bids, kept in the log, and three live views on it."
    );
    println!("Ask it from another terminal:\n");
    println!("    psql -h {} -p {} -U millpond", addr.ip(), addr.port());
    println!("    SELECT * FROM per_minute ORDER BY total DESC LIMIT 10;\n");
    println!("Ctrl-C stops it; the data stays, and the next start goes on where this one ended.\n");

    let mut screen = Screen::new();
    let clock = Env::os().clock;
    let start = clock.monotonic();
    let mut last = (clock.monotonic(), server.engine.status().rows_in);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        tokio::select! {
            () = wait_for_signal() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let now = clock.monotonic();
        let total = server.engine.status().rows_in;
        let seconds = now.saturating_sub(last.0).as_secs_f64();
        let events_per_second = (total - last.1) as f64 / seconds.max(1e-9);
        last = (now, total);
        let text = frame(&server.engine, &mut session, total, events_per_second).await?;
        screen.draw(&text);
        if options.seconds.is_some_and(|s| now.saturating_sub(start) >= Duration::from_secs(s)) {
            return Ok(());
        }
    }
}

/// One picture: the rate, the size of each view, and the busiest windows.
async fn frame(engine: &Engine, session: &mut Session, total: u64, rate: f64) -> Result<String, SqlError> {
    let status = engine.status();
    let mut text = format!(
        "{:>12} events, {:>10} events/s, epoch {}, {} MB of state\n\n",
        thousands(total),
        thousands(rate as u64),
        status.published,
        status.state_bytes >> 20
    );
    for relation in status.relations.iter().filter(|r| r.kind == "materialized view") {
        text += &format!("  {:<12} {:>12} rows\n", relation.name, thousands(relation.rows));
    }
    let top = "SELECT window_start, auction, bids, total, top FROM per_minute ORDER BY window_start DESC, total DESC LIMIT 5";
    text += "\n  window_start          auction     bids            total          top\n";
    for row in rows(session, top).await? {
        text += &format!("  {:<19} {:>9} {:>8} {:>16} {:>12}\n", row[0], row[1], row[2], row[3], row[4]);
    }
    let channels = "SELECT channel, bids, round(average, 2), top FROM by_channel ORDER BY bids DESC LIMIT 4";
    text += "\n  channel                    bids          average          top\n";
    for row in rows(session, channels).await? {
        text += &format!("  {:<19} {:>11} {:>16} {:>12}\n", row[0], row[1], row[2], row[3]);
    }
    Ok(text)
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Draws over the last picture in a terminal; elsewhere prints one below the other.
struct Screen {
    lines: usize,
    terminal: bool,
}

impl Screen {
    fn new() -> Self {
        Self { lines: 0, terminal: std::io::stdout().is_terminal() }
    }

    fn draw(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        if self.terminal && self.lines > 0 {
            // Up to the first line of the last picture, then clear to the end of the screen.
            let _ = write!(out, "\x1b[{}A\x1b[J", self.lines);
        }
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
        self.lines = text.lines().count();
    }
}
