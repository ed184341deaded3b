//! `millpond log`: what the journal of a data directory and its segments hold, in plain words, while no server uses it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use millpond_env::Env;
use millpond_log::{
    Damage, FileSurvey, LogError, Offline, Record, SeenBody, SeenGroup, SeenPlace, SegmentSurvey, Survey,
    WriteKind,
};
use millpond_types::{Commit, RelationId};

use crate::config::Settings;

#[derive(Subcommand, Debug, Clone)]
pub enum LogCommand {
    /// List files and topics: commits, rows, sizes, and whether the headers are sound
    Ls,
    /// Show groups, frames, offsets, watermarks and checksums
    Inspect(InspectOptions),
    /// Read every byte and name what is damaged; fails if something is
    Verify,
    /// Give up the commits that are damaged, so that the server starts again; nothing is deleted
    Repair,
}

#[derive(Args, Debug, Clone)]
pub struct InspectOptions {
    /// Only this file (its name, or its path)
    pub file: Option<PathBuf>,
    /// Only from this commit on
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Only up to this commit
    #[arg(long, default_value_t = u64::MAX)]
    pub to: u64,
    /// Only groups with rows of this topic (its number, as `millpond log ls` shows it)
    #[arg(long)]
    pub topic: Option<u32>,
}

pub fn run(settings: &Settings, command: &LogCommand) -> Result<(), String> {
    let dir = settings.data_dir.join("journal");
    let env = Env::os();
    let journal = Offline::open(&env, &dir).map_err(|error| sentence(&error, &dir))?;
    let told = |error: LogError| sentence(&error, &dir);
    match command {
        LogCommand::Ls => {
            let survey = journal.survey(false, &mut |_| ()).map_err(told)?;
            print(&files(&survey))?;
            print(&segments(&survey))?;
            print(&topics(&survey))
        }
        LogCommand::Inspect(options) => {
            let mut failed = Ok(());
            let mut show = |seen: &SeenGroup<'_>| {
                if failed.is_ok() && is_wanted(seen, options) {
                    failed = print(&group(seen));
                }
            };
            let survey = journal.survey(true, &mut show).map_err(told)?;
            failed?;
            print(&damages(&survey))
        }
        LogCommand::Verify => {
            let survey = journal.survey(true, &mut |_| ()).map_err(told)?;
            print(&damages(&survey))?;
            let (damaged, commits, rows) = (survey.damaged_files(), lost(&survey), lost_rows(&survey));
            let groups = survey.files.iter().map(|file| file.groups);
            let groups: u64 = groups.chain(survey.spines.iter().map(|spine| spine.groups)).sum();
            let here: Vec<_> = survey.segments.iter().filter(|segment| segment.local).collect();
            let bytes = survey.files.iter().map(|file| file.bytes).chain(here.iter().map(|s| s.bytes));
            let bytes: u64 = bytes.chain(survey.spines.iter().map(|spine| spine.bytes)).sum();
            if damaged == 0 {
                print(&format!("{groups} commits in {} are sound: every checksum matches\n", size(bytes)))?;
                return match survey.segments.len() - here.len() {
                    0 => Ok(()),
                    away => {
                        print(&format!("{away} segments lie in the object store only, and were not read\n"))
                    }
                };
            }
            let files = survey.files.len() + survey.spines.len() + here.len();
            let rows = if rows > 0 { format!(", and {rows} rows of segments") } else { String::new() };
            Err(format!(
                "{damaged} of {files} files are damaged; {commits} commits{rows} cannot be read\n\
                 Bring the files back from a copy, or give that up with \"millpond log repair\"."
            ))
        }
        LogCommand::Repair => {
            let survey = journal.repair().map_err(told)?;
            print(&damages(&survey))?;
            if survey.damaged_files() == 0 {
                return print("nothing is damaged, nothing was changed\n");
            }
            let rows = match lost_rows(&survey) {
                0 => String::new(),
                rows => format!(", and {rows} rows of segments,"),
            };
            print(&format!(
                "{} commits{rows} were given up: readers leave them out from now on\n\
                 Nothing was deleted: a file *.skip beside a journal file says what is left out, a segment is now called *.damaged.\n",
                lost(&survey)
            ))
        }
    }
}

/// Writing to a pipe whose reader has gone is no crash.
fn print(text: &str) -> Result<(), String> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("cannot print: {error}")),
        _ => Ok(()),
    }
}

fn sentence(error: &LogError, dir: &Path) -> String {
    match error {
        LogError::Locked { dir } => {
            format!("\"{}\" is in use by a running server\nStop it first.", dir.display())
        }
        LogError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            format!("there is no journal in \"{}\"\nName the folder with --data-dir.", dir.display())
        }
        other => other.to_string(),
    }
}

fn lost(survey: &Survey) -> u64 {
    let damages = survey.files.iter().flat_map(|file| &file.damages);
    damages
        .filter_map(|damage| damage.commits.as_ref())
        .map(|commits| commits.end() - commits.start() + 1)
        .sum()
}

/// In segments of which there is no other copy.
fn lost_rows(survey: &Survey) -> u64 {
    let lost = survey.segments.iter().filter(|segment| segment.damage.is_some() && !segment.uploaded);
    lost.map(|segment| segment.rows).sum()
}

fn segments(survey: &Survey) -> String {
    if survey.segments.is_empty() {
        return String::new();
    }
    let rows = survey.segments.iter().map(|segment| {
        vec![
            name(&segment.path),
            format!("{} to {}", segment.commits.start(), segment.commits.end()),
            format!("{} to {}", segment.offsets.start, segment.offsets.end),
            segment.frames.to_string(),
            segment.rows.to_string(),
            size(segment.bytes),
            segment_state(segment),
        ]
    });
    let heads = ["segment", "commits", "offsets", "frames", "rows", "size", "state"];
    format!("\n{}", table(&heads, rows.collect(), &[3, 4, 5]))
}

fn segment_state(segment: &SegmentSurvey) -> String {
    let mut parts = vec![match (segment.local, segment.uploaded) {
        _ if segment.damage.is_some() => "damaged",
        (true, true) => "sound, uploaded",
        (true, false) => "sound",
        (false, _) => "in the object store",
    }];
    if segment.compacted {
        parts.push("compacted");
    }
    parts.join(", ")
}

fn files(survey: &Survey) -> String {
    let rows = survey.files.iter().map(|file| {
        let commits = match file.last {
            Some(last) => format!("{} to {last}", file.first),
            None => format!("from {}", file.first),
        };
        [
            name(&file.path),
            commits,
            file.groups.to_string(),
            file.frames.to_string(),
            file.rows.to_string(),
            size(file.bytes),
            state(file),
        ]
    });
    let heads = ["file", "commits", "groups", "frames", "rows", "size", "state"];
    table(&heads, rows.map(|row| row.to_vec()).collect(), &[2, 3, 4, 5])
}

fn state(file: &FileSurvey) -> String {
    let mut parts = Vec::new();
    for damage in &file.damages {
        parts.push(format!("damaged at {}", damage.offset));
    }
    if !file.given_up.is_empty() {
        parts.push("repaired".to_owned());
    }
    match &file.torn {
        Some(torn) => parts.push(format!("{} unfinished bytes", torn.bytes.end - torn.bytes.start)),
        None if file.sealed => parts.push("closed in order".to_owned()),
        None if parts.is_empty() => parts.push("sound".to_owned()),
        None => {}
    }
    parts.join(", ")
}

fn topics(survey: &Survey) -> String {
    if survey.topics.is_empty() {
        return String::new();
    }
    let names = millpond_engine::relation_names(&survey.ddl);
    let rows = survey.topics.iter().map(|(id, topic)| {
        let offsets =
            topic.partitions.iter().map(|(p, range)| format!("{p}: {} to {}", range.start, range.end));
        vec![
            id.to_string(),
            names.get(id).cloned().unwrap_or_default(),
            topic.rows.to_string(),
            topic.frames.to_string(),
            size(topic.bytes),
            format!("{} to {}", topic.first_commit, topic.last_commit),
            topic.watermark.map_or_else(|| "-".to_owned(), |w| time(w.0)),
            offsets.collect::<Vec<_>>().join(", "),
        ]
    });
    let heads = ["topic", "name", "rows", "frames", "payload", "commits", "watermark", "partition: offsets"];
    format!("\n{}", table(&heads, rows.collect(), &[0, 2, 3, 4]))
}

fn sealed_damages(survey: &Survey) -> String {
    let spines = survey.spines.iter().map(|spine| (spine.damage.as_ref(), spine.uploaded));
    let segments = survey.segments.iter().map(|segment| (segment.damage.as_ref(), segment.uploaded));
    let damaged = spines.chain(segments).filter_map(|(damage, uploaded)| Some((damage?, uploaded)));
    damaged.fold(String::new(), |text, (damage, uploaded)| {
        let copy = if uploaded { "; the object store has another copy" } else { "" };
        format!("{text}{damage}{copy}\n")
    })
}

fn damages(survey: &Survey) -> String {
    let mut text = sealed_damages(survey);
    let mut tell = |file: &FileSurvey, kind: &str, damage: &Damage| {
        let lost = match &damage.commits {
            Some(commits) if commits.start() == commits.end() => {
                format!("; commit {} is lost", commits.start())
            }
            Some(commits) => format!("; commits {} to {} are lost", commits.start(), commits.end()),
            None => String::new(),
        };
        let (path, offset) = (file.path.display(), damage.offset);
        let _ = writeln!(text, "{path}: {kind} at offset {offset}: {}{lost}", damage.what);
    };
    for file in &survey.files {
        file.given_up.iter().for_each(|damage| tell(file, "left out", damage));
        file.damages.iter().for_each(|damage| tell(file, "damaged", damage));
        if let Some(torn) = &file.torn {
            tell(file, "unfinished (the next start cuts it off, nothing acknowledged is in it)", torn);
        }
    }
    text
}

fn is_wanted(seen: &SeenGroup<'_>, options: &InspectOptions) -> bool {
    let of_file = options.file.as_ref().is_none_or(|file| seen.file == file || seen.file.ends_with(file));
    let of_topic = options.topic.is_none_or(|wanted| {
        let wanted = RelationId(wanted);
        seen.items.iter().any(|item| matches!(&item.what, SeenBody::Frame { topic, .. } if *topic == wanted))
    });
    (Commit(options.from)..=Commit(options.to)).contains(&seen.commit) && of_file && of_topic
}

fn group(seen: &SeenGroup<'_>) -> String {
    let bytes = seen.bytes.as_ref().map(|bytes| format!("bytes {} to {} of ", bytes.start, bytes.end));
    let mut text = format!(
        "commit {}, {}, {}{}\n",
        seen.commit,
        time(seen.ingest_time.0),
        bytes.unwrap_or_default(),
        name(seen.file)
    );
    for item in &seen.items {
        let what = match &item.what {
            SeenBody::Frame {
                topic,
                partition,
                base_offset,
                rows,
                kind,
                schema_id,
                schema_version,
                watermark,
                event_time,
                producers,
                position_bytes,
            } => {
                let kind = match kind {
                    WriteKind::Append => "rows",
                    WriteKind::Upsert => "changes",
                };
                let mut text = format!(
                    "frame of topic {topic}, partition {partition}: {rows} {kind} from offset {base_offset}, schema {schema_id} \
                     of version {schema_version}"
                );
                let mut add = |what: &str, value: Option<String>| {
                    if let Some(value) = value {
                        let _ = write!(text, ", {what} {value}");
                    }
                };
                add("watermark before it", watermark.map(|w| time(w.0)));
                add("newest event", event_time.map(|t| time(t.0)));
                add("writes with a producer:", (*producers > 0).then(|| producers.to_string()));
                add("position of bytes:", (*position_bytes > 0).then(|| position_bytes.to_string()));
                text
            }
            SeenBody::Schema { topic, id, columns } => {
                format!("schema {id} of topic {topic}: {}", columns.join(", "))
            }
            SeenBody::Record(record) => match record {
                Record::Ddl(bytes) => format!("DDL, {} bytes", bytes.len()),
                Record::Tick(now) => format!("tick: now is {}", time(now.0)),
                Record::AdvanceWatermark { topic, to } => {
                    format!("watermark of topic {topic} is at least {}", time(to.0))
                }
                Record::PartitionIdle { topic, partition } => {
                    format!("partition {partition} of topic {topic} is idle")
                }
            },
        };
        let _ = match &item.place {
            SeenPlace::Journal { offset, header_bytes, payload_bytes, header_crc, payload_crc } => writeln!(
                text,
                "  {offset:>10}  {what}; header {header_bytes} bytes crc {header_crc:08x}, \
                 payload {payload_bytes} bytes crc {payload_crc:08x}"
            ),
            SeenPlace::Spine => writeln!(text, "              {what}"),
            SeenPlace::Segment { file, first_row } => {
                writeln!(text, "              {what}; from row {first_row} of {}", name(file))
            }
        };
    }
    for (topic, watermark) in seen.watermarks {
        let _ = writeln!(text, "              watermark of topic {topic} after it: {}", time(watermark.0));
    }
    text
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Microseconds since 1970 as UTC.
fn time(micros: i64) -> String {
    const DAY: i64 = 86_400_000_000;
    if micros == i64::MAX {
        return "infinity".to_owned();
    }
    let (days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    // Days are counted from 0000-03-01, in eras of 400 years, so that a leap day ends its year.
    let (era, day) = ((days + 719_468).div_euclid(146_097), (days + 719_468).rem_euclid(146_097));
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06} UTC")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Columns side by side; those in `right` are aligned to the right.
fn table(heads: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            let _ = match right.contains(&column) {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        line.trim_end().to_owned() + "\n"
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    line(heads.to_vec()) + &body.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "7".to_owned()]];
        assert_eq!(table(&["name", "n"], rows, &[1]), "name   n\na     10\nlong   7\n");
    }

    #[test]
    fn times_are_dates() {
        for (micros, expected) in [
            (0, "1970-01-01 00:00:00.000000 UTC"),
            (-1, "1969-12-31 23:59:59.999999 UTC"),
            (951_782_400_000_000, "2000-02-29 00:00:00.000000 UTC"),
            (1_772_323_199_500_000, "2026-02-28 23:59:59.500000 UTC"),
            (i64::MAX, "infinity"),
        ] {
            assert_eq!(time(micros), expected);
        }
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(
            [size(0), size(9_999), size(12_345), size(12_345_678)],
            ["0 B", "9999 B", "12.3 kB", "12.3 MB"]
        );
    }
}
