//! The pages of a PDF: what stands on them, and what each thing is for those who have the page read to them.
//!
//! **Invariant:** everything that says something belongs to an element of the structure; what repeats on each page is marked as such.
//! Nothing is in the file but what it was made from: no clock, nothing random.

use pdf_writer::{
    Content, Finish as _, Name, Pdf, Rect, Ref, Str, TextStr,
    types::{StructRole, TableHeaderScope},
    writers::StructTreeRoot,
};

use super::face::{Face, letters};

/// A4 in points.
pub(super) const PAGE_WIDTH: f32 = 595.0;
const PAGE_HEIGHT: f32 = 842.0;
/// Space at the sides.
pub(super) const MARGIN: f32 = 50.0;
/// Room for what is said.
pub(super) const WIDTH: f32 = PAGE_WIDTH - 2.0 * MARGIN;
const TOP: f32 = PAGE_HEIGHT - 50.0;
const FOOT: f32 = 56.0;
/// What a page has room for.
pub(super) const ROOM: f32 = TOP - FOOT;

/// A page under way.
struct Leaf {
    content: Content,
    /// The element that each mark on it belongs to.
    marks: Vec<usize>,
}

/// An element of the structure.
struct Node {
    role: StructRole,
    parent: usize,
    kids: Vec<Kid>,
    alt: Option<String>,
    scope: Option<TableHeaderScope>,
}

/// What is below an element.
enum Kid {
    Node(usize),
    Mark { page: usize, mark: i32 },
}

/// A place on a page.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    page: usize,
    y: f32,
}

/// Pages under way.
pub(super) struct Sheet {
    leaves: Vec<Leaf>,
    nodes: Vec<Node>,
    /// The elements that are open.
    open: Vec<usize>,
    /// Headings, by which readers jump: words, page, height.
    headings: Vec<(String, usize, f32)>,
    y: f32,
}

impl Sheet {
    pub(super) fn new() -> Self {
        let root = Node { role: StructRole::Document, parent: 0, kids: Vec::new(), alt: None, scope: None };
        let mut sheet = Self { leaves: Vec::new(), nodes: vec![root], open: vec![0], headings: Vec::new(), y: TOP };
        sheet.turn();
        sheet
    }

    /// Begins a page.
    fn turn(&mut self) {
        self.leaves.push(Leaf { content: Content::new(), marks: Vec::new() });
        self.y = TOP;
    }

    /// How far down the page is free from here.
    pub(super) const fn y(&self) -> f32 {
        self.y
    }

    /// Goes down.
    pub(super) fn down(&mut self, points: f32) {
        self.y -= points;
    }

    /// Whether so much fits here.
    pub(super) fn fits(&self, points: f32) -> bool {
        self.y - points >= FOOT
    }

    /// Begins a page unless so much fits on this one; whether it did.
    pub(super) fn room(&mut self, points: f32) -> bool {
        // What fits on no page is not helped by another one.
        let turns = !self.fits(points) && self.y < TOP;
        if turns {
            self.turn();
        }
        turns
    }

    /// Begins an element within the one that is open.
    pub(super) fn open(&mut self, role: StructRole) {
        let (parent, place) = (self.top(), self.nodes.len());
        self.nodes.push(Node { role, parent, kids: Vec::new(), alt: None, scope: None });
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.kids.push(Kid::Node(place));
        }
        self.open.push(place);
    }

    /// Ends the element that is open.
    pub(super) fn close(&mut self) {
        if self.open.len() > 1 {
            self.open.pop();
        }
    }

    fn top(&self) -> usize {
        self.open.last().copied().unwrap_or(0)
    }

    /// Says in words what the open element shows.
    pub(super) fn alt(&mut self, text: &str) {
        let top = self.top();
        if let Some(node) = self.nodes.get_mut(top) {
            node.alt = Some(text.to_owned());
        }
    }

    /// Says what the open cell is the head of.
    pub(super) fn heads(&mut self, scope: TableHeaderScope) {
        let top = self.top();
        if let Some(node) = self.nodes.get_mut(top) {
            node.scope = Some(scope);
        }
    }

    /// Has readers jump here.
    pub(super) fn heading(&mut self, words: &str) {
        let page = self.leaves.len().saturating_sub(1);
        self.headings.push((words.to_owned(), page, self.y + 4.0));
    }

    /// Where the next thing would stand.
    pub(super) fn here(&self) -> Spot {
        Spot { page: self.leaves.len().saturating_sub(1), y: self.y }
    }

    /// Draws what belongs to the open element.
    pub(super) fn mark(&mut self, draw: impl FnOnce(&mut Content)) {
        self.mark_at(self.here(), |content, _| draw(content));
    }

    /// Draws what belongs to the open element at a place that was passed.
    pub(super) fn mark_at(&mut self, Spot { page, y }: Spot, draw: impl FnOnce(&mut Content, f32)) {
        let top = self.top();
        let (Some(node), Some(leaf)) = (self.nodes.get_mut(top), self.leaves.get_mut(page)) else { return };
        let mark = i32::try_from(leaf.marks.len()).unwrap_or(i32::MAX);
        leaf.marks.push(top);
        node.kids.push(Kid::Mark { page, mark });
        leaf.content.begin_marked_content_with_properties(node.role.to_name()).properties().identify(mark);
        draw(&mut leaf.content, y);
        leaf.content.end_marked_content();
    }

    /// Draws what says nothing, or says it again.
    pub(super) fn ornament(&mut self, draw: impl FnOnce(&mut Content)) {
        let Some(leaf) = self.leaves.last_mut() else { return };
        aside(&mut leaf.content, draw);
    }

    /// Writes it all down.
    pub(super) fn finish(mut self, title: &str, made_by: &str) -> Vec<u8> {
        self.footers(title);
        let mut pdf = Pdf::new();
        let refs = Refs { pages: self.leaves.len(), nodes: self.nodes.len() };
        self.catalog(&mut pdf);
        for (place, face) in Face::ALL.into_iter().enumerate() {
            let mut font = pdf.type1_font(Refs::face(place));
            font.base_font(face.names().1).encoding_predefined(Name(b"WinAnsiEncoding"));
        }
        pdf.document_info(Refs::info()).title(TextStr(title)).creator(TextStr(made_by)).producer(TextStr(made_by));
        self.structure(&mut pdf, &refs);
        self.outline(&mut pdf, &refs);
        let kids: Vec<Ref> = (0..self.leaves.len()).map(Refs::page).collect();
        pdf.pages(Refs::tree()).count(number(kids.len())).kids(kids);
        for (place, leaf) in self.leaves.into_iter().enumerate() {
            let mut page = pdf.page(Refs::page(place));
            page.parent(Refs::tree()).media_box(Rect::new(0.0, 0.0, PAGE_WIDTH, PAGE_HEIGHT));
            page.contents(Refs::content(place)).struct_parents(number(place));
            page.tab_order(pdf_writer::types::TabOrder::StructureOrder);
            let mut resources = page.resources();
            let mut fonts = resources.fonts();
            for (place, face) in Face::ALL.into_iter().enumerate() {
                fonts.pair(face.names().0, Refs::face(place));
            }
            fonts.finish();
            resources.finish();
            page.finish();
            pdf.stream(Refs::content(place), leaf.content.finish().as_slice());
        }
        pdf.finish()
    }

    /// Each page's foot: whose it is, which it is, of how many.
    fn footers(&mut self, title: &str) {
        let all = self.leaves.len();
        let title: Vec<u8> = letters(title).into_iter().take(90).collect();
        for (place, leaf) in self.leaves.iter_mut().enumerate() {
            let page = format!("Page {} of {all}", place.saturating_add(1)).into_bytes();
            let at = PAGE_WIDTH - MARGIN - points(Face::Plain.wide(&page), 8.0);
            aside(&mut leaf.content, |content| {
                content.set_fill_rgb(0.3, 0.3, 0.3);
                show(content, Face::Plain, 8.0, (MARGIN, 32.0), &title);
                show(content, Face::Plain, 8.0, (at, 32.0), &page);
            });
        }
    }

    fn catalog(&self, pdf: &mut Pdf) {
        let mut catalog = pdf.catalog(Refs::catalog());
        catalog.pages(Refs::tree()).lang(TextStr("en"));
        catalog.pair(Name(b"StructTreeRoot"), Refs::root());
        catalog.mark_info().marked(true);
        catalog.viewer_preferences().display_doc_title(true);
        if !self.headings.is_empty() {
            catalog.outlines(Refs::outline());
        }
    }

    fn structure(&self, pdf: &mut Pdf, refs: &Refs) {
        let mut root: StructTreeRoot<'_> = pdf.indirect(Refs::root()).start();
        root.child(refs.node(0));
        let mut tree = root.parent_tree();
        let mut parents = tree.nums();
        for page in 0..self.leaves.len() {
            parents.insert(number(page), Refs::marks(page));
        }
        parents.finish();
        tree.finish();
        root.parent_tree_next_key(number(self.leaves.len()));
        root.finish();
        for (page, leaf) in self.leaves.iter().enumerate() {
            pdf.indirect(Refs::marks(page)).array().items(leaf.marks.iter().map(|node| refs.node(*node)));
        }
        for (place, node) in self.nodes.iter().enumerate() {
            let mut element = pdf.struct_element(refs.node(place));
            element.kind(node.role).parent(if place == 0 { Refs::root() } else { refs.node(node.parent) });
            if let Some(alt) = &node.alt {
                element.alt(TextStr(alt));
            }
            if let Some(scope) = node.scope {
                element.attributes().push().table().scope(scope);
            }
            let mut kids = element.children();
            for kid in &node.kids {
                match kid {
                    Kid::Node(node) => {
                        kids.struct_element(refs.node(*node));
                    }
                    Kid::Mark { page, mark } => {
                        kids.marked_content_ref().page(Refs::page(*page)).marked_content_id(*mark);
                    }
                }
            }
        }
    }

    fn outline(&self, pdf: &mut Pdf, refs: &Refs) {
        let Some(last) = self.headings.len().checked_sub(1) else { return };
        let mut outline = pdf.outline(Refs::outline());
        outline.first(refs.heading(0)).last(refs.heading(last)).count(number(self.headings.len()));
        outline.finish();
        for (place, (words, page, top)) in self.headings.iter().enumerate() {
            let mut item = pdf.outline_item(refs.heading(place));
            item.title(TextStr(words)).parent(Refs::outline());
            if let Some(before) = place.checked_sub(1) {
                item.prev(refs.heading(before));
            }
            if place < last {
                item.next(refs.heading(place.saturating_add(1)));
            }
            item.dest().page(Refs::page(*page)).xyz(0.0, *top, None);
        }
    }
}

/// Which object has which number.
struct Refs {
    pages: usize,
    nodes: usize,
}

impl Refs {
    fn catalog() -> Ref {
        object(0)
    }
    fn tree() -> Ref {
        object(1)
    }
    fn info() -> Ref {
        object(2)
    }
    fn root() -> Ref {
        object(3)
    }
    fn outline() -> Ref {
        object(4)
    }
    fn face(place: usize) -> Ref {
        object(place.saturating_add(5))
    }
    fn page(page: usize) -> Ref {
        object(page.saturating_mul(3).saturating_add(10))
    }
    fn content(page: usize) -> Ref {
        object(page.saturating_mul(3).saturating_add(11))
    }
    fn marks(page: usize) -> Ref {
        object(page.saturating_mul(3).saturating_add(12))
    }
    fn node(&self, node: usize) -> Ref {
        object(self.pages.saturating_mul(3).saturating_add(10).saturating_add(node))
    }
    fn heading(&self, place: usize) -> Ref {
        self.node(self.nodes.saturating_add(place))
    }
}

/// Objects are numbered from one on.
fn object(place: usize) -> Ref {
    Ref::new(number(place).saturating_add(1))
}

fn number(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX - 1)
}

/// Thousandths of a size in points.
pub(super) fn points(thousandths: u32, size: f32) -> f32 {
    f32::from(u16::try_from(thousandths / 16).unwrap_or(u16::MAX)) * 0.016 * size
}

/// Draws what is no part of what is said.
fn aside(content: &mut Content, draw: impl FnOnce(&mut Content)) {
    content.begin_marked_content(Name(b"Artifact"));
    draw(content);
    content.end_marked_content();
}

/// Writes letters on a base line.
pub(super) fn show(content: &mut Content, face: Face, size: f32, (x, y): (f32, f32), letters: &[u8]) {
    content.begin_text().set_font(face.names().0, size).next_line(x, y).show(Str(letters)).end_text();
}
