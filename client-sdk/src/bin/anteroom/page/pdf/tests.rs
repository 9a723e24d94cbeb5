#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use super::*;
use crate::page::Section;

fn page(parts: Vec<Part>) -> Page {
    let section = Section { id: "one".to_owned(), title: "What there is".to_owned(), parts };
    Page { title: "A page (with \\ marks)".to_owned(), sections: vec![section] }
}

/// The bytes as text, as they stand there: nothing is compressed.
fn written(page: &Page) -> String {
    String::from_utf8_lossy(&render(page, "anteroom 0")).into_owned()
}

fn long_table() -> Part {
    let rows = (0..200).map(|row| vec![format!("row {row}"), "x".repeat(300)]).collect();
    Part::Table("Many rows", vec!["name", "value"], rows)
}

#[test]
fn the_same_page_gives_the_same_bytes_without_clock_or_chance() {
    let parts = || vec![Part::Words("words".to_owned()), long_table(), Part::Points(vec!["a point".to_owned()])];
    assert_eq!(render(&page(parts()), "m"), render(&page(parts()), "m"));
    let text = written(&page(parts()));
    for none in ["CreationDate", "ModDate", "/ID", "Metadata", "/JavaScript", "/URI", "/OpenAction"] {
        assert!(!text.contains(none), "{none}");
    }
    for due in ["/Lang (en)", "/Title (A page (with \\\\ marks))", "/Marked true", "/DisplayDocTitle true"] {
        assert!(text.contains(due), "{due}");
    }
}

#[test]
fn tables_go_on_with_the_next_sheet_under_their_heads() {
    let text = written(&page(vec![long_table()]));
    let sheets = text.matches("/Type /Page\n").count();
    assert!(sheets > 5, "{sheets}");
    // Each sheet says the head, once as what is said and then as an ornament, and its own number.
    assert_eq!(text.matches("(value) Tj").count(), sheets);
    for sheet in 1..=sheets {
        assert!(text.contains(&format!("(Page {sheet} of {sheets}) Tj")), "{sheet}");
    }
    for row in 0..200 {
        assert!(text.contains(&format!("(row {row}) Tj")), "{row}");
    }
    assert_eq!(text.matches('x').count() - text.matches("xref").count() - text.matches("/Box").count(), {
        let none = written(&page(vec![Part::Table("Many rows", vec!["name", "value"], Vec::new())]));
        let letters = none.matches('x').count() - none.matches("xref").count() - none.matches("/Box").count();
        letters + 200 * 300 + text.matches("MediaBox").count() - none.matches("MediaBox").count()
    });
}

#[test]
fn a_cell_that_is_longer_than_a_sheet_loses_nothing() {
    let evil = "\u{5d0}".repeat(10_240);
    let text = written(&page(vec![Part::Table("One row", vec!["name"], vec![vec![evil]])]));
    let lines = text.split(") Tj").filter_map(|part| part.rsplit_once('(').map(|(_, line)| line));
    // Between the lines of two sheets stands the foot of the first.
    let shown: String = lines.filter(|line| line.chars().all(|c| "[U+05D]".contains(c))).collect();
    assert_eq!(shown.matches("[U+05D0]").count(), 10_240);
}

#[test]
fn each_mark_belongs_to_one_element_and_every_figure_says_what_it_shows() {
    let drawing = Drawing {
        width: 960,
        height: 100,
        title: "Three bars".to_owned(),
        caption: "They are bars.".to_owned(),
        shapes: vec![
            Shape::Bar(Ink::Done, 0, 0, 10, 10),
            Shape::Ring(Ink::Cut, 20, 20, 5),
            Shape::Mark(30, 0, 20),
            Shape::Label { x: 40, y: 40, ends: true, text: "(label)".to_owned() },
        ],
    };
    let rules = anteroom_policy::rules::english::baseline().unwrap();
    let pairs = Part::Pairs("Pairs", vec![("name".to_owned(), "value".to_owned())]);
    let text = written(&page(vec![pairs, Part::Drawing(drawing), Part::Rules(rules), long_table()]));
    assert!(text.contains("/Alt (Three bars)") && text.contains("((label)) Tj"));
    assert!(text.contains("/Scope /Row") && text.contains("/Scope /Column"));
    // On each sheet marks are numbered as they come, and as many stand in its list of elements.
    let mut listed = 0;
    for sheet in text.split("endstream").filter(|sheet| sheet.contains("/MCID")) {
        let marks: Vec<usize> = sheet
            .split(" BDC")
            .filter_map(|part| part.rsplit_once("/MCID ").map(|(_, number)| number))
            .filter_map(|number| number.split_whitespace().next().and_then(|number| number.parse().ok()))
            .collect();
        let marks = marks.get(..sheet.matches(" BDC").count()).unwrap().to_vec();
        assert_eq!(marks, (0..marks.len()).collect::<Vec<_>>());
        listed += marks.len();
    }
    let begun = text.matches(" BDC").count();
    assert_eq!(begun, listed);
    assert_eq!(begun, text.matches("/Type /MCR").count());
    assert_eq!(begun + text.matches("/Artifact BMC").count(), text.matches("EMC").count());
}
