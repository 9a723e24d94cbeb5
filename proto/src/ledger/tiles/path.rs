//! What tiles are called.
//!
//! **Invariant:** a tile has one path and a path names one tile.

use std::fmt;

use super::super::text;
use super::{TILE_WIDTH, Tile, TileKind};

/// The tile's path below the log's prefix.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        f.write_str(&groups.join("/"))?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

/// Reads a path; nothing if it has no tile's form. A position is also read from paths with superfluous groups, so the caller
/// compares the result's own path.
pub(super) fn parse(path: &str) -> Option<Tile> {
    let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes { level: u8::try_from(text::decimal(level)?).ok()? },
    };
    let (groups, width) = match rest.split_once(".p/") {
        Some((groups, width)) => (groups, text::decimal(width).filter(|width| *width < TILE_WIDTH)?),
        None => (rest, TILE_WIDTH),
    };
    let mut index: u64 = 0;
    for group in groups.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        let three = digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
        let value: u64 = digits.parse().ok().filter(|_| three)?;
        index = index.checked_mul(1000)?.checked_add(value)?;
    }
    Tile::new(kind, index, width).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::super::super::tree::TREE_SIZE_MAX;
    use super::super::TileError;
    use super::*;

    const LEAVES: TileKind = TileKind::Hashes { level: 0 };

    #[test]
    fn a_tile_has_one_path() {
        let check = |kind, index, width, path: &str| {
            let tile = Tile::new(kind, index, width).unwrap();
            assert_eq!(tile.to_string(), path);
            assert_eq!(Tile::parse(path).unwrap(), tile);
        };
        check(LEAVES, 0, 256, "tile/0/000");
        check(LEAVES, 0, 1, "tile/0/000.p/1");
        check(LEAVES, 999, 255, "tile/0/999.p/255");
        check(TileKind::Hashes { level: 63 }, 1000, 256, "tile/63/x001/000");
        check(TileKind::Entries, 1_234_067, 256, "tile/entries/x001/x234/067");
        check(TileKind::Entries, 1_234_067, 17, "tile/entries/x001/x234/067.p/17");
        check(LEAVES, TREE_SIZE_MAX / 256, 255, "tile/0/x036/x028/x797/x018/x963/967.p/255");
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000",
            "tile/0/x000/001",
            "tile/0/001/000",
            "tile/0/x001",
            "tile/0/x001/x000",
            "tile/0/X001/000",
            "tile/0/000/",
            "/tile/0/000",
            "tile//000",
            "tile/64/000",
            "tile/256/000",
            "tile/00/000",
            "tile/+0/000",
            "tile/-1/000",
            "tile/data/000",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/1.p/1",
            "tile/0/000.p/1/",
            "tile/0/+01",
            "tile/0/x036/x028/x797/x018/x963/968",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/0/000 ",
            "tile/0/../000",
            "tile/entries/٠٠٠",
        ] {
            assert_eq!(Tile::parse(path), Err(TileError::Path(path.to_owned())), "`{path}`");
        }
    }
}
