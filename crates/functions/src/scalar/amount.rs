//! Templates of numbers: to_char and to_number (PostgreSQL 15, table 9.28). Locale C: the point is `.`, the group separator `,`.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use millpond_types::{SqlError, SqlState, SqlType};

use super::{Texts, rows, texts};
use crate::kernel::Side;
use crate::text::Formatter;
use crate::text::number::parse_decimal128;

/// Digits after the point that to_number gives.
pub(super) const SCALE: i8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Nine,
    Zero,
    Point,
    Group,
    /// `S`, where it stands.
    Sign,
    Minus,
    Plus,
    PlusOrMinus,
    Text(char),
}

#[derive(Debug, Default)]
struct Template {
    parts: Vec<Part>,
    /// Places before and after the point.
    whole: usize,
    fraction: usize,
    /// The first place before the point that shows a zero, from the left.
    first_zero: Option<usize>,
    fill_mode: bool,
    scientific: bool,
    brackets: bool,
}

impl Template {
    fn parse(format: &str) -> Result<Self, SqlError> {
        let mut template = Self::default();
        let mut rest = format;
        let mut seen_point = false;
        let wrong = |text: &str| SqlError::new(SqlState::SYNTAX_ERROR, text);
        while let Some(c) = rest.chars().next() {
            let starts =
                |pattern: &str| rest.get(..pattern.len()).is_some_and(|t| t.eq_ignore_ascii_case(pattern));
            let (part, length) = match c {
                '"' => {
                    let text = &rest[1..];
                    let end = text.find('"').unwrap_or(text.len());
                    template.parts.extend(text[..end].chars().map(Part::Text));
                    rest = text.get(end + 1..).unwrap_or_default();
                    continue;
                }
                _ if starts("FM") => {
                    template.fill_mode = true;
                    rest = &rest[2..];
                    continue;
                }
                _ if starts("EEEE") => {
                    template.scientific = true;
                    rest = &rest[4..];
                    continue;
                }
                _ if starts("PR") => {
                    template.brackets = true;
                    rest = &rest[2..];
                    continue;
                }
                _ if starts("MI") => (Part::Minus, 2),
                _ if starts("PL") => (Part::Plus, 2),
                _ if starts("SG") => (Part::PlusOrMinus, 2),
                _ if starts("RN")
                    || starts("TH")
                    || c.eq_ignore_ascii_case(&'v')
                    || c.eq_ignore_ascii_case(&'l') =>
                {
                    let text = format!("the number pattern \"{c}\" in \"{format}\" is not supported");
                    return Err(SqlError::unsupported(text));
                }
                's' | 'S' => (Part::Sign, 1),
                '9' => (Part::Nine, 1),
                '0' => (Part::Zero, 1),
                '.' | 'd' | 'D' => (Part::Point, 1),
                ',' | 'g' | 'G' => (Part::Group, 1),
                other => (Part::Text(other), other.len_utf8()),
            };
            match part {
                Part::Point if seen_point => return Err(wrong("multiple decimal points")),
                Part::Point => seen_point = true,
                Part::Nine | Part::Zero if seen_point => template.fraction += 1,
                Part::Nine | Part::Zero => {
                    if part == Part::Zero && template.first_zero.is_none() {
                        template.first_zero = Some(template.whole);
                    }
                    template.whole += 1;
                }
                _ => {}
            }
            template.parts.push(part);
            rest = &rest[length..];
        }
        Ok(template)
    }

    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

/// A decimal number: digits before and after the point, without leading zeros.
struct Digits {
    negative: bool,
    whole: String,
    fraction: String,
}

impl Digits {
    /// From the text of a number; `None` for NaN and infinities.
    fn of(text: &str, places: usize) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || digits.iter().any(|d| !d.is_ascii_digit()) {
            return None;
        }
        let mut point = whole.len() as i32 + exponent;
        while point < 0 {
            digits.insert(0, b'0');
            point += 1;
        }
        let mut point = point as usize;
        digits.resize(digits.len().max(point), b'0');
        let keep = point + places;
        if digits.len() > keep {
            let up = digits[keep] >= b'5';
            digits.truncate(keep);
            if up && !increment(&mut digits) {
                digits.insert(0, b'1');
                point += 1;
            }
        }
        digits.resize(point + places, b'0');
        let text: String = digits.iter().map(|d| char::from(*d)).collect();
        let (whole, fraction) = text.split_at(point);
        let whole = whole.trim_start_matches('0').to_owned();
        let zero = whole.is_empty() && fraction.bytes().all(|d| d == b'0');
        Some(Self { negative: negative && !zero, whole, fraction: fraction.to_owned() })
    }
}

/// Adds one to the last place; false if all places were nines.
fn increment(digits: &mut [u8]) -> bool {
    for digit in digits.iter_mut().rev() {
        if *digit == b'9' {
            *digit = b'0';
        } else {
            *digit += 1;
            return true;
        }
    }
    false
}

/// `text` is the number as it prints.
fn write(template: &Template, text: &str, out: &mut String) {
    if template.scientific {
        return write_scientific(template, text, out);
    }
    if text == "NaN" && template.whole >= text.len() {
        let width = if template.fill_mode { 0 } else { template.whole + 1 };
        out.push_str(&format!("{text:>width$}"));
        return;
    }
    let digits = Digits::of(text, template.fraction);
    let too_long = digits.as_ref().is_none_or(|d| d.whole.len() > template.whole);
    let negative = digits.as_ref().map_or(text.starts_with('-'), |d| d.negative);
    let (whole, fraction) = match &digits {
        Some(digits) if !too_long => (digits.whole.clone(), digits.fraction.clone()),
        _ => ("#".repeat(template.whole), "#".repeat(template.fraction)),
    };
    // A zero before the point is shown where nothing else is.
    let whole = match whole.is_empty() && template.fraction == 0 && !template.has(Part::Point) {
        true => "0".repeat(template.whole.min(1)),
        false => whole,
    };
    // FM leaves at least one digit of a zero.
    let nothing = digits.as_ref().is_some_and(|d| d.fraction.bytes().all(|digit| digit == b'0'));
    let whole = match whole.is_empty() && template.fill_mode && nothing {
        true => "0".repeat(template.whole.min(1)),
        false => whole,
    };
    let signed = [Part::Sign, Part::Minus, Part::Plus, Part::PlusOrMinus].iter().any(|p| template.has(*p));
    let blank = template.whole - whole.len();
    let first_shown = blank.min(template.first_zero.unwrap_or(usize::MAX));
    // FM leaves out zeros that a 9 behind the point stands for.
    let kept_fraction = match template.fill_mode && !too_long {
        false => template.fraction,
        true => {
            let after = template.parts.iter().skip_while(|p| **p != Part::Point);
            let places: Vec<Part> = after.filter(|p| matches!(p, Part::Nine | Part::Zero)).copied().collect();
            let forced = places.iter().rposition(|p| *p == Part::Zero).map_or(0, |at| at + 1);
            fraction.trim_end_matches('0').len().max(forced)
        }
    };
    // The sign before the first digit: a plain one, or that of S at the beginning.
    let sign_first = template.parts.iter().position(|p| *p == Part::Sign).is_some_and(|at| {
        template.parts[..at].iter().all(|p| !matches!(p, Part::Nine | Part::Zero | Part::Point))
    });
    let lead = match (template.brackets, sign_first, signed) {
        (true, ..) => {
            if negative {
                "<"
            } else {
                " "
            }
        }
        (_, true, _) => {
            if negative {
                "-"
            } else {
                "+"
            }
        }
        (_, _, false) => {
            if negative {
                "-"
            } else {
                " "
            }
        }
        _ => "",
    };
    let lead = if template.fill_mode && lead == " " { "" } else { lead };
    let mut place = 0;
    let mut places_after = 0;
    let mut led = lead.is_empty();
    let mut point = false;
    for part in &template.parts {
        match part {
            Part::Nine | Part::Zero if !point => {
                if !led && place == first_shown {
                    out.push_str(lead);
                    led = true;
                }
                if place >= blank {
                    out.push_str(&whole[place - blank..=place - blank]);
                } else if place >= first_shown {
                    out.push('0');
                } else if !template.fill_mode {
                    out.push(' ');
                }
                place += 1;
            }
            Part::Nine | Part::Zero => {
                if places_after < kept_fraction {
                    out.push_str(&fraction[places_after..=places_after]);
                }
                places_after += 1;
            }
            Part::Point => {
                if !led {
                    out.push_str(lead);
                    led = true;
                }
                point = true;
                out.push('.');
            }
            Part::Group if place > first_shown => out.push(','),
            Part::Group => out.push_str(if template.fill_mode { "" } else { " " }),
            Part::Sign if sign_first => {}
            Part::Sign | Part::PlusOrMinus => out.push(if negative { '-' } else { '+' }),
            Part::Minus => match (negative, template.fill_mode) {
                (true, _) => out.push('-'),
                (false, false) => out.push(' '),
                (false, true) => {}
            },
            Part::Plus => match (negative, template.fill_mode) {
                (false, _) => out.push('+'),
                (true, false) => out.push(' '),
                (true, true) => {}
            },
            Part::Text(c) => out.push(*c),
        }
    }
    if !led {
        out.push_str(lead);
    }
    if template.brackets {
        match (negative, template.fill_mode) {
            (true, _) => out.push('>'),
            (false, false) => out.push(' '),
            (false, true) => {}
        }
    }
}

fn write_scientific(template: &Template, text: &str, out: &mut String) {
    let value = text.parse::<f64>().unwrap_or(f64::NAN);
    let blank = if template.fill_mode { "" } else { " " };
    if !value.is_finite() {
        let places = "#".repeat(template.fraction);
        out.push_str(&format!("{blank}{}{places}.####", "#".repeat(template.whole)));
        return;
    }
    let written = format!("{:.*e}", template.fraction, value.abs());
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    out.push_str(if value < 0.0 { "-" } else { blank });
    out.push_str(&format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()));
}

pub(super) fn to_char(sides: &[Side]) -> Result<ArrayRef, SqlError> {
    let ty = SqlType::of_arrow(sides[0].data_type())?;
    let numbers = Formatter::new(&sides[0].array, &ty)?;
    let formats = Texts::of(&sides[1]);
    let mut known: Option<(&str, Template)> = None;
    texts(sides, |row, out| {
        let at = if sides[0].constant { 0 } else { row };
        let (Some(text), Some(format)) = (numbers.text(at), formats.get(row)) else { return Ok(false) };
        if known.as_ref().is_none_or(|(of, _)| *of != format) {
            known = Some((format, Template::parse(format)?));
        }
        if let Some((_, template)) = &known {
            write(template, &text, out);
        }
        Ok(true)
    })
}

/// The digits, the sign and the point of a text, as many as the template has places for; what else it has is skipped.
pub(super) fn to_number(sides: &[Side], _: &SqlType) -> Result<ArrayRef, SqlError> {
    let (values, formats) = (Texts::of(&sides[0]), Texts::of(&sides[1]));
    let mut known: Option<(&str, Template)> = None;
    let mut numbers = Decimal128Builder::with_capacity(rows(sides));
    for row in 0..rows(sides) {
        let (Some(text), Some(format)) = (values.get(row), formats.get(row)) else {
            numbers.append_null();
            continue;
        };
        if known.as_ref().is_none_or(|(of, _)| *of != format) {
            known = Some((format, Template::parse(format)?));
        }
        if let Some((_, template)) = &known {
            numbers.append_value(read(template, text)?);
        }
    }
    Ok(Arc::new(numbers.finish().with_data_type(DataType::Decimal128(38, SCALE))))
}

fn read(template: &Template, text: &str) -> Result<i128, SqlError> {
    if template.scientific {
        return Err(SqlError::unsupported("\"EEEE\" not supported for input"));
    }
    let negative = text.contains('-') || text.trim_start().starts_with('<');
    let mut number = String::from(if negative { "-" } else { "" });
    let (mut digits, mut pointed) = (0, false);
    for c in text.chars() {
        match c {
            '0'..='9' => {
                let places = template.whole + if pointed { template.fraction } else { 0 };
                if digits == places {
                    break;
                }
                number.push(c);
                digits += 1;
            }
            '.' if !pointed && template.has(Part::Point) => {
                // Places before the point that were not needed are not there behind it.
                (pointed, digits) = (true, template.whole);
                number.push(c);
            }
            _ => {}
        }
    }
    if !number.contains(|c: char| c.is_ascii_digit()) {
        return Err(crate::text::number::invalid("numeric", text));
    }
    parse_decimal128(&number, 38, SCALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_their_templates() {
        let one = 10i128.pow(SCALE as u32);
        for (text, format, expected) in [
            ("12,454.8-", "99G999D9S", -124_548 * one / 10),
            ("-34", "S99", -34 * one),
            ("1.55555", "9999.99", 155 * one / 100),
            ("$ 1,234.5", "L9,999.9".trim_start_matches('L'), 12_345 * one / 10),
            ("<42>", "99PR", -42 * one),
            (".5", "9.9", one / 2),
        ] {
            assert_eq!(read(&Template::parse(format).unwrap(), text), Ok(expected), "{text} by {format}");
        }
        assert_eq!(read(&Template::parse("99").unwrap(), "none").unwrap_err().state().as_str(), "22P02");
    }

    #[test]
    fn numbers_fill_their_templates() {
        // As PostgreSQL 15 answers.
        for (number, format, expected) in [
            ("0", "999G999", "       0"),
            ("1234", "999G999", "   1,234"),
            ("-1234", "999,999", "  -1,234"),
            ("1234567", "999G999", " ###,###"),
            ("100", "S0999", "+0100"),
            ("-1", "S0999", "-0001"),
            ("1.5", "FM999.99", "1.5"),
            ("1", "FM999.99", "1."),
            ("0", "FM9990.00", "0.00"),
            ("0", "FM999.99", "0."),
            ("-46.95", "FM9990.00", "-46.95"),
            ("0.1", "99.9", "   .1"),
            ("0.1", "0.9", " 0.1"),
            ("12", "9", " #"),
            ("485", "999S", "485+"),
            ("-485", "999MI", "485-"),
            ("485", "999MI", "485 "),
            ("-485", "999PR", "<485>"),
            ("485", "999PR", " 485 "),
            ("485", "\"Good number:\"999", "Good number: 485"),
            ("12345", "9.99EEEE", " 1.23e+04"),
            ("0.0004859", "9.99EEEE", " 4.86e-04"),
            ("-0.1", "FM9.99", "-.1"),
            ("148.5", "FM999.990", "148.500"),
            ("Infinity", "FM999.99", "###.##"),
            ("1e10", "99", " ##"),
        ] {
            let mut out = String::new();
            write(&Template::parse(format).unwrap(), number, &mut out);
            assert_eq!(out, expected, "to_char({number}, '{format}')");
        }
    }
}
