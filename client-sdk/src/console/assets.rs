//! The page's files, which are in the program: nothing is loaded from anywhere else.

/// A file of the page: its path, its type, its text.
type Asset = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

const ASSETS: [Asset; 9] = [
    ("/", HTML, include_str!("assets/index.html")),
    ("/style.css", CSS, include_str!("assets/style.css")),
    ("/app.js", JS, include_str!("assets/app.js")),
    ("/api.js", JS, include_str!("assets/api.js")),
    ("/dom.js", JS, include_str!("assets/dom.js")),
    ("/words.js", JS, include_str!("assets/words.js")),
    ("/plots.js", JS, include_str!("assets/plots.js")),
    ("/grants.js", JS, include_str!("assets/grants.js")),
    ("/calls.js", JS, include_str!("assets/calls.js")),
];

/// The type and text of a path.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static str)> {
    ASSETS.iter().find(|(known, ..)| *known == path).map(|(_, kind, text)| (*kind, *text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_texts() {
        for (path, _, text) in ASSETS {
            for foreign in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\"", "onclick="]
            {
                assert!(!text.contains(foreign), "{path} holds `{foreign}`");
            }
            let namespace = "http://www.w3.org/2000/svg";
            let elsewhere = text.replace(namespace, "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path} names another place");
        }
    }

    #[test]
    fn every_module_that_is_imported_is_there() {
        for (path, _, text) in ASSETS {
            for name in text.split(" from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(find(&format!("/{name}")).is_some(), "{path} imports {name}");
            }
        }
    }
}
