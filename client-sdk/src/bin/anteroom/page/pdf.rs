//! The page as a PDF: the same words and drawings, on sheets of paper.
//!
//! **Invariant:** the same page gives the same bytes. What is on the page is in the PDF, in its order; what does not fit on a sheet goes
//! on with the next one, the heads of tables said again.

mod face;
mod sheet;

use pdf_writer::{
    Content,
    types::{StructRole, TableHeaderScope},
};

use super::{
    Page, Part,
    drawing::{Drawing, Ink, Shape},
};
use crate::policy::shown;
use face::{Face, letters, lines};
use sheet::{MARGIN, ROOM, Sheet, WIDTH, points, show};

/// Size of what is said, and from line to line.
const SIZE: f32 = 9.5;
const LEADING: f32 = 13.0;
/// The same in tables.
const CELL_SIZE: f32 = 8.0;
const CELL_LEADING: f32 = 10.0;
/// Between columns.
const GAP: f32 = 8.0;

/// The page as a PDF; `made_by` names the software.
pub(crate) fn render(page: &Page, made_by: &str) -> Vec<u8> {
    let mut sheet = Sheet::new();
    text(&mut sheet, StructRole::H1, Face::Bold, (16.0, 20.0), 0.0, &page.title);
    for section in &page.sections {
        sheet.room(90.0);
        sheet.down(14.0);
        sheet.heading(&section.title);
        text(&mut sheet, StructRole::H2, Face::Bold, (12.0, 16.0), 0.0, &section.title);
        rule(&mut sheet, 1.0);
        sheet.down(8.0);
        section.parts.iter().for_each(|part| the_part(&mut sheet, part));
    }
    sheet.finish(&page.title, made_by)
}

fn the_part(sheet: &mut Sheet, part: &Part) {
    match part {
        Part::Words(words) => {
            text(sheet, StructRole::P, Face::Plain, (SIZE, LEADING), 0.0, words);
            sheet.down(5.0);
        }
        Part::Points(points) => {
            sheet.open(StructRole::L);
            for point in points {
                sheet.open(StructRole::LI);
                sheet.room(LEADING);
                let y = sheet.y() - SIZE;
                sheet.open(StructRole::Lbl);
                sheet.mark(|content| {
                    ink(content);
                    show(content, Face::Plain, SIZE, (MARGIN, y), b"-");
                });
                sheet.close();
                text(sheet, StructRole::LBody, Face::Plain, (SIZE, LEADING), 10.0, point);
                sheet.down(2.0);
                sheet.close();
            }
            sheet.close();
            sheet.down(5.0);
        }
        Part::Pairs(caption, pairs) => {
            let rows: Vec<Vec<String>> = pairs.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
            table(sheet, caption, None, &rows);
        }
        Part::Table(caption, head, rows) => table(sheet, caption, Some(head), rows),
        Part::Rules(rules) => {
            for line in shown::rules(rules, true).lines() {
                // What stands further in belongs to what stands before it.
                let bare = line.trim_start();
                let deep = u16::try_from(line.len().saturating_sub(bare.len()).min(40)).unwrap_or(0);
                let indent = f32::from(deep) * 0.6 * CELL_SIZE;
                text(sheet, StructRole::P, Face::Fixed, (CELL_SIZE, CELL_LEADING), indent, bare);
            }
            sheet.down(5.0);
        }
        Part::Drawing(drawing) => figure(sheet, drawing),
    }
}

/// Words in lines, as one element.
fn text(sheet: &mut Sheet, role: StructRole, face: Face, (size, leading): (f32, f32), indent: f32, words: &str) {
    sheet.open(role);
    for line in lines(&letters(words), face, thousandths(WIDTH - indent, size)) {
        sheet.room(leading);
        let y = sheet.y() - size;
        sheet.mark(|content| {
            ink(content);
            show(content, face, size, (MARGIN + indent, y), &line);
        });
        sheet.down(leading);
    }
    sheet.close();
}

/// A line across.
fn rule(sheet: &mut Sheet, width: f32) {
    let y = sheet.y();
    sheet.ornament(|content| {
        content.set_stroke_rgb(0.75, 0.77, 0.8).set_line_width(width);
        content.move_to(MARGIN, y).line_to(MARGIN + WIDTH, y).stroke();
    });
}

fn ink(content: &mut Content) {
    content.set_fill_rgb(0.1, 0.11, 0.13);
}

/// How many thousandths of a size are so many points.
fn thousandths(points: f32, size: f32) -> u32 {
    (points.max(0.0) / size * 1_000.0) as u32
}

/// A column: where it begins, and how wide it is.
struct Column {
    x: f32,
    width: f32,
}

/// Widest word that a column makes room for, so that no instant is broken.
const WORD: f32 = 112.0;

/// Columns that have the room they want where that is possible; the widest share what is left, but for their longest words.
fn columns(head: Option<&Vec<&'static str>>, rows: &[Vec<String>]) -> Vec<Column> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0).max(head.map_or(0, Vec::len)).max(1);
    let (mut wanted, mut words) = (vec![0.0_f32; count], vec![0.0_f32; count]);
    let mut want = |place: usize, face: Face, text: &str| {
        // A text that goes on for ever wants no more than all there is.
        let short: String = text.chars().take(400).collect();
        let wide = |text: &str| points(face.wide(&letters(text)).saturating_add(20), CELL_SIZE);
        if let (Some(most), Some(word)) = (wanted.get_mut(place), words.get_mut(place)) {
            *most = most.max(wide(&short));
            *word = short.split(' ').map(wide).fold(*word, f32::max).min(WORD);
        }
    };
    for (place, name) in head.into_iter().flatten().enumerate() {
        want(place, Face::Bold, name);
    }
    for row in rows {
        for (place, cell) in row.iter().enumerate() {
            want(place, if place == 0 && head.is_none() { Face::Bold } else { Face::Plain }, cell);
        }
    }
    let mut left = WIDTH - GAP * f32::from(u16::try_from(count - 1).unwrap_or(0));
    // Where not even those fit, words are broken.
    let fit = words.iter().sum::<f32>() <= left;
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|one, other| wanted.get(*one).unwrap_or(&0.0).total_cmp(wanted.get(*other).unwrap_or(&0.0)));
    let mut waiting = count;
    for place in order {
        let word = if fit { words.get(place).copied().unwrap_or(0.0) } else { 0.0 };
        let share = left / f32::from(u16::try_from(waiting).unwrap_or(1).max(1));
        if let Some(width) = wanted.get_mut(place) {
            *width = width.min(share.max(word));
            left -= *width;
        }
        waiting = waiting.saturating_sub(1);
    }
    let mut x = MARGIN;
    wanted
        .into_iter()
        .map(|width| {
            let column = Column { x, width };
            x += width + GAP;
            column
        })
        .collect()
}

fn table(sheet: &mut Sheet, caption: &str, head: Option<&Vec<&'static str>>, rows: &[Vec<String>]) {
    let columns = columns(head, rows);
    sheet.room(LEADING + 4.0 * CELL_LEADING);
    sheet.open(StructRole::Table);
    text(sheet, StructRole::Caption, Face::Plain, (CELL_SIZE, LEADING), 0.0, caption);
    if let Some(head) = head {
        sheet.open(StructRole::THead);
        the_head(sheet, &columns, head, false);
        sheet.close();
    }
    sheet.open(StructRole::TBody);
    for row in rows {
        the_row(sheet, &columns, head, row);
    }
    sheet.close();
    sheet.close();
    sheet.down(8.0);
}

/// The head of a table; `again` on a later sheet, where it is no part of what is said.
fn the_head(sheet: &mut Sheet, columns: &[Column], head: &[&'static str], again: bool) {
    let mut tall = 0.0_f32;
    if !again {
        sheet.open(StructRole::TR);
    }
    let top = sheet.y();
    for (column, name) in columns.iter().zip(head) {
        let found = lines(&letters(name), Face::Bold, thousandths(column.width, CELL_SIZE));
        let draw = |content: &mut Content| {
            let mut y = top - CELL_SIZE;
            ink(content);
            for line in &found {
                show(content, Face::Bold, CELL_SIZE, (column.x, y), line);
                y -= CELL_LEADING;
            }
        };
        if again {
            sheet.ornament(draw);
        } else {
            sheet.open(StructRole::TH);
            sheet.heads(TableHeaderScope::Column);
            sheet.mark(draw);
            sheet.close();
        }
        tall = tall.max(CELL_LEADING * f32::from(u16::try_from(found.len()).unwrap_or(1)));
    }
    if !again {
        sheet.close();
    }
    sheet.down(tall + 2.0);
    rule(sheet, 0.8);
    sheet.down(2.0);
}

/// A row, a line of all its cells at a time, so that one that is longer than a sheet goes on with the next.
fn the_row(sheet: &mut Sheet, columns: &[Column], head: Option<&Vec<&'static str>>, row: &[String]) {
    let faces = |place: usize| if place == 0 && head.is_none() { Face::Bold } else { Face::Plain };
    let cells: Vec<Vec<Vec<u8>>> = columns
        .iter()
        .zip(row)
        .enumerate()
        .map(|(place, (column, cell))| lines(&letters(cell), faces(place), thousandths(column.width, CELL_SIZE)))
        .collect();
    let most = cells.iter().map(Vec::len).max().unwrap_or(0);
    let tall = CELL_LEADING * f32::from(u16::try_from(most).unwrap_or(u16::MAX)) + 4.0;
    let turn = |sheet: &mut Sheet, points: f32| {
        if sheet.room(points)
            && let Some(head) = head
        {
            the_head(sheet, columns, head, true);
        }
    };
    if tall < ROOM / 2.0 {
        turn(sheet, tall);
    }
    sheet.open(StructRole::TR);
    // Each cell is one element, whatever sheets its lines stand on.
    let mut starts = Vec::new();
    for _ in 0..most {
        turn(sheet, CELL_LEADING);
        starts.push(sheet.here());
        sheet.down(CELL_LEADING);
    }
    for (place, (column, found)) in columns.iter().zip(&cells).enumerate() {
        if place == 0 && head.is_none() {
            sheet.open(StructRole::TH);
            sheet.heads(TableHeaderScope::Row);
        } else {
            sheet.open(StructRole::TD);
        }
        for (line, start) in found.iter().zip(&starts) {
            sheet.mark_at(*start, |content, y| {
                ink(content);
                show(content, faces(place), CELL_SIZE, (column.x, y - CELL_SIZE), line);
            });
        }
        sheet.close();
    }
    sheet.close();
    sheet.down(2.0);
    rule(sheet, 0.4);
    sheet.down(2.0);
}

fn figure(sheet: &mut Sheet, drawing: &Drawing) {
    let whole = |units: i64| f32::from(i16::try_from(units).unwrap_or(i16::MAX));
    let scale = WIDTH / whole(drawing.width.max(1));
    let tall = whole(drawing.height) * scale;
    sheet.room(tall + 3.0 * CELL_LEADING);
    let top = sheet.y();
    let (x, y) = (move |units: i64| MARGIN + whole(units) * scale, move |units: i64| top - whole(units) * scale);
    sheet.open(StructRole::Figure);
    sheet.alt(&drawing.title);
    sheet.mark(|content| {
        for shape in &drawing.shapes {
            match shape {
                Shape::Bar(ink, left, upper, width, height) => {
                    content.rect(
                        x(*left),
                        y(upper.saturating_add(*height)),
                        whole(*width) * scale,
                        whole(*height) * scale,
                    );
                    colour(content, *ink);
                }
                Shape::Ring(ink, left, upper, r) => {
                    ring(content, (x(*left), y(*upper)), whole(*r) * scale);
                    colour(content, *ink);
                }
                Shape::Mark(at, upper, foot) => {
                    content.set_stroke_rgb(0.1, 0.11, 0.13).set_line_width(0.8);
                    content.move_to(x(*at), y(*upper)).line_to(x(*at), y(*foot)).stroke();
                }
                Shape::Label { x: at, y: base, ends, text } => {
                    let text = letters(text);
                    let wide = if *ends { points(Face::Plain.wide(&text), 7.0) } else { 0.0 };
                    content.set_fill_rgb(0.1, 0.11, 0.13);
                    show(content, Face::Plain, 7.0, (x(*at) - wide, y(*base)), &text);
                }
            }
        }
    });
    sheet.down(tall + 2.0);
    text(sheet, StructRole::Caption, Face::Plain, (CELL_SIZE, CELL_LEADING), 0.0, &drawing.caption);
    sheet.close();
    sheet.down(6.0);
}

/// Fills and strokes what was drawn.
fn colour(content: &mut Content, ink: Ink) {
    match ink {
        Ink::Frame => content.set_fill_rgb(0.95, 0.96, 0.97).set_stroke_rgb(0.6, 0.62, 0.66),
        Ink::Done => content.set_fill_rgb(0.21, 0.33, 0.49).set_stroke_rgb(0.21, 0.33, 0.49),
        Ink::Cut => content.set_fill_rgb(1.0, 1.0, 1.0).set_stroke_rgb(0.21, 0.33, 0.49),
        Ink::Held => content.set_fill_rgb(0.72, 0.53, 0.04).set_stroke_rgb(0.72, 0.53, 0.04),
    };
    content.set_line_width(0.5).fill_nonzero_and_stroke();
}

/// A circle, as curves that come within a thousandth of it.
fn ring(content: &mut Content, (x, y): (f32, f32), r: f32) {
    let bend = 0.552_285 * r;
    content.move_to(x + r, y);
    content.cubic_to(x + r, y + bend, x + bend, y + r, x, y + r);
    content.cubic_to(x - bend, y + r, x - r, y + bend, x - r, y);
    content.cubic_to(x - r, y - bend, x - bend, y - r, x, y - r);
    content.cubic_to(x + bend, y - r, x + r, y - bend, x + r, y);
    content.close_path();
}

#[cfg(test)]
mod tests;
