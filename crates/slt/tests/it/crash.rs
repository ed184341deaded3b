//! `kill -9` in the middle of writing, and writers in each other's way.

use std::sync::Arc;

use millpond_slt::file::{Mode, binary};
use millpond_slt::kills::{self, Kills, text};
use millpond_slt::server::Server;

use crate::{Outcome, block_on, connect, ensure, told};

pub fn acknowledged_rows_survive_ten_kills() -> Outcome {
    let report = kills::run(&binary()?, Kills { kills: 10, writers: 4 }, |_| ())?;
    ensure(report.acknowledged > 100, || {
        format!("only {} rows were acknowledged in ten rounds", report.acknowledged)
    })
}

/// `SET n = n + 1` by eight clients at once: each table has one serial writer, so nothing is lost, with no locks and no
/// retries of theirs. In each pause a client that wrote nothing sees all that the writers were told is committed.
pub fn no_increment_of_eight_clients_is_lost() -> Outcome {
    const ROUNDS: usize = 40;
    const EACH: usize = 25;
    let server = Server::start(&binary()?, &Mode::default())?;
    let config = server.config();
    block_on(async {
        let bystander = connect(&config).await?;
        let ddl =
            "CREATE TABLE counter (id int PRIMARY KEY, n bigint NOT NULL); INSERT INTO counter VALUES (1, 0);
                   CREATE MATERIALIZED VIEW shown AS SELECT sum(n) AS n FROM counter";
        bystander.batch_execute(ddl).await.map_err(told)?;
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(Arc::new(connect(&config).await?));
        }
        for round in 1..=ROUNDS {
            let increment = |client: Arc<tokio_postgres::Client>| async move {
                for _ in 0..EACH {
                    client.batch_execute("UPDATE counter SET n = n + 1 WHERE id = 1").await.map_err(told)?;
                }
                Ok::<_, String>(())
            };
            let writers: Vec<_> =
                clients.iter().map(|client| tokio::spawn(increment(Arc::clone(client)))).collect();
            for writer in writers {
                writer.await.map_err(|e| e.to_string())??;
            }
            let expected = vec![vec![Some((8 * EACH * round).to_string())]];
            for sql in ["SELECT n FROM counter", "SELECT n FROM shown"] {
                let found = text(&bystander, sql).await?;
                ensure(found == expected, || format!("{sql}: {found:?}, not {expected:?}"))?;
            }
        }
        Ok(())
    })
}
