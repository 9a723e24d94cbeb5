#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use anteroom_proto::ledger::checkpoint::Checkpoint;
use anteroom_proto::ledger::note::Note;
use anteroom_proto::ledger::tiles::tiles_between;
use anteroom_proto::ledger::tree::{Tree, inclusion_proof};
use serde::Deserialize;

use super::super::disk::RealDisk;
use super::super::disk::lossy::LossyDisk;
use super::*;

#[derive(Deserialize)]
struct PublishedLog {
    entries: Vec<String>,
    leaf_hashes: Vec<String>,
    checkpoints: Vec<String>,
}

fn entry(index: u64) -> Vec<u8> {
    index.to_string().into_bytes()
}

/// Puts full tiles as they come and, at each of `sizes`, the partial ones.
fn publish(disk: &Arc<dyn Disk>, sizes: &[u64]) -> Edge {
    let (mut edge, mut shelf) = (Edge::default(), Shelf::new(Arc::clone(disk)));
    for size in sizes {
        while edge.size() < *size {
            let bytes = entry(edge.size());
            edge.push(&bytes, &mut |tile, bytes| Ok::<_, TilesError>(shelf.put(&tile, &bytes)?)).unwrap();
        }
        for (tile, bytes) in edge.partials().unwrap() {
            shelf.put(&tile, &bytes).unwrap();
        }
    }
    shelf.sync().unwrap();
    edge
}

fn tree(size: u64) -> Tree {
    let mut tree = Tree::new();
    for index in 0..size {
        tree.push(leaf_hash(&entry(index))).unwrap();
    }
    tree
}

fn compared(disk: &Arc<dyn Disk>, size: u64) -> Result<Counted, CompareError> {
    let mut compare = Compare::new(Arc::clone(disk), size);
    for index in 0..size {
        compare.push(&entry(index))?;
    }
    compare.finish()
}

#[test]
fn tiles_on_disk_are_those_of_the_published_test_log() {
    let log: PublishedLog = serde_json::from_str(include_str!("../../../../proto/testdata/tessera-log.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder.path()).unwrap());
    let (mut edge, mut shelf) = (Edge::default(), Shelf::new(disk));
    let (mut bundle, mut hashes) = (Vec::new(), Vec::new());
    for (index, text) in log.entries.iter().enumerate() {
        edge.push(text.as_bytes(), &mut |_, _| Err(TilesError::Entry(0))).unwrap();
        for (tile, bytes) in edge.partials().unwrap() {
            shelf.put(&tile, &bytes).unwrap();
        }
        bundle.extend((text.len() as u16).to_be_bytes());
        bundle.extend(text.as_bytes());
        hashes.extend(*Hash::from_base64(log.leaf_hashes.get(index).unwrap()).unwrap().as_bytes());
        let file = |path: &str| std::fs::read(folder.path().join(format!("{path}.p/{}", index + 1))).unwrap();
        assert_eq!((file("tile/entries/000"), file("tile/0/000")), (bundle.clone(), hashes.clone()));
        let note = Note::parse(log.checkpoints.get(index + 1).unwrap().as_bytes()).unwrap();
        assert_eq!(*Checkpoint::parse(note.text()).unwrap().root(), edge.root());
    }
}

#[test]
fn files_are_exactly_the_tiles_of_the_size_and_an_edge_read_back_goes_on() {
    for size in [1, 255, 256, 257, 600, 65_536, 66_000] {
        let lossy = LossyDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(lossy.again());
        let edge = publish(&disk, &[size]);
        assert_eq!(edge.root(), tree(size).root());
        let mut expected: Vec<String> = tiles_between(0, size).map(|tile| tile.to_string()).collect();
        expected.sort();
        assert_eq!(lossy.names(), expected, "{size}");
        let read = Edge::read(&Shelf::new(Arc::clone(&disk)), size).unwrap().unwrap();
        assert_eq!(read, edge, "{size}");
        assert_eq!(compared(&disk, size).unwrap(), Counted { whole: expected.len() as u64, unpublished: 0 });
    }
}

#[test]
fn an_edge_without_its_tiles_is_told_from_a_damaged_one() {
    let lossy = LossyDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(lossy.again());
    publish(&disk, &[600]);
    let shelf = Shelf::new(Arc::clone(&disk));
    assert!(Edge::read(&shelf, 601).unwrap().is_none());
    let bundle = lossy.contents("tile/entries/002.p/88").unwrap();
    let mut altered = bundle.clone();
    *altered.last_mut().unwrap() ^= 1;
    lossy.tamper("tile/entries/002.p/88", altered);
    assert!(matches!(Edge::read(&shelf, 600), Err(TilesError::Damaged(_))));
    lossy.tamper("tile/entries/002.p/88", bundle);
    lossy.tamper("tile/1/000.p/2", vec![0; 63]);
    assert!(matches!(Edge::read(&shelf, 600), Err(TilesError::Damaged(_))));
}

#[test]
fn every_flipped_byte_of_every_tile_is_named() {
    let lossy = LossyDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(lossy.again());
    publish(&disk, &[3, 257, 300]);
    assert_eq!(compared(&disk, 300).unwrap().unpublished, 0);
    for name in lossy.names() {
        let whole = lossy.contents(&name).unwrap();
        for at in 0..whole.len() {
            // Each byte of the small files, some of the large ones.
            if whole.len() > 512 && at % 97 != 0 {
                continue;
            }
            let mut altered = whole.clone();
            *altered.get_mut(at).unwrap() ^= 0x20;
            lossy.tamper(&name, altered);
            match compared(&disk, 300) {
                Err(CompareError::Differs { file, at: found }) => assert_eq!((&file, found), (&name, at)),
                other => unreachable!("{name} at {at}: {other:?}"),
            }
        }
        lossy.tamper(&name, [whole.as_slice(), b"x"].concat());
        assert!(matches!(compared(&disk, 300), Err(CompareError::Differs { at, .. }) if at == whole.len()), "{name}");
        lossy.tamper(&name, whole);
    }
    lossy.tamper("tile/0/note", Vec::new());
    assert!(matches!(compared(&disk, 300), Err(CompareError::Stray(file)) if file == "tile/0/note"));
}

#[test]
fn missing_tiles_are_named_and_unpublished_ones_counted() {
    let lossy = LossyDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(lossy.again());
    publish(&disk, &[260, 300]);
    assert_eq!(compared(&disk, 260).unwrap().unpublished, 2);
    disk.folder("tile").unwrap().folder("0").unwrap().remove("000").unwrap();
    assert!(matches!(compared(&disk, 300), Err(CompareError::Missing(file)) if file == "tile/0/000"));
    disk.folder("tile").unwrap().folder("entries").unwrap().folder("001.p").unwrap().remove("44").unwrap();
    publish(&disk, &[256]);
    assert!(matches!(compared(&disk, 300), Err(CompareError::Missing(file)) if file == "tile/entries/001.p/44"));
}

#[test]
fn partial_tiles_go_with_their_folder_and_a_crash_leaves_them_findable() {
    let lossy = LossyDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(lossy.again());
    publish(&disk, &[3, 200, 300]);
    let mut shelf = Shelf::new(Arc::clone(&disk));
    let superseded = shelf.superseded(300).unwrap();
    let names: Vec<String> = superseded.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["tile/entries/000", "tile/0/000"]);
    for full in &superseded {
        shelf.remove_partials(full).unwrap();
        shelf.remove_partials(full).unwrap();
    }
    let mut expected: Vec<String> = tiles_between(0, 300).map(|tile| tile.to_string()).collect();
    expected.sort();
    assert_eq!(lossy.names(), expected);
}

#[test]
fn proofs_from_disk_are_those_from_memory_and_a_flipped_bit_gives_none() {
    const SIZE: u64 = 66_048;
    let lossy = LossyDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(lossy.again());
    let edge = publish(&disk, &[SIZE]);
    let tree = tree(SIZE);
    let reader = TileReader::new(Arc::clone(&disk));
    struct Source<'a>(&'a TileReader, &'a Frontier);
    impl anteroom_proto::ledger::tree::NodeSource for Source<'_> {
        fn node(&self, level: u8, index: u64) -> Option<Hash> {
            self.0.node(self.1, level, index)
        }
    }
    let prove = |reader: &TileReader, index| inclusion_proof(&Source(reader, edge.frontier()), index, SIZE);
    for index in [0, 255, 256, 40_000, 65_535, 65_536, SIZE - 1] {
        assert_eq!(prove(&reader, index), tree.inclusion_proof(index, SIZE), "{index}");
    }
    assert_eq!(reader.damaged(), 0);
    for name in ["tile/0/000", "tile/1/000", "tile/2/000.p/1"] {
        let whole = lossy.contents(name).unwrap();
        let mut altered = whole.clone();
        *altered.get_mut(31).unwrap() ^= 1;
        lossy.tamper(name, altered);
        assert!(prove(&TileReader::new(Arc::clone(&disk)), 1).is_err(), "{name}");
        assert!(prove(&reader, 1).is_ok(), "what was checked is kept");
        lossy.tamper(name, whole);
    }
}

#[test]
fn names_that_were_synced_survive_with_their_folders() {
    for seed in 0..40 {
        let lossy = LossyDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(lossy.again());
        publish(&disk, &[300]);
        let mut shelf = Shelf::new(Arc::clone(&disk));
        shelf.put(&Tile::parse("tile/3/x001/000.p/7").unwrap(), b"unsynced").unwrap();
        lossy.crash(seed);
        assert_eq!(compared(&disk, 300).unwrap().whole, 5, "{seed}");
        // An interrupted process left the folder, unsynced; the next one makes it durable all the same.
        let mut shelf = Shelf::new(Arc::clone(&disk));
        shelf.put(&Tile::parse("tile/3/x001/000.p/7").unwrap(), b"synced").unwrap();
        shelf.sync().unwrap();
        lossy.crash(seed);
        assert_eq!(lossy.contents("tile/3/x001/000.p/7").as_deref(), Some(b"synced".as_slice()));
    }
}
