// Verifies a mirror with golang.org/x/mod/sumdb: its checkpoint's note, every hash tile from the entries, tlog-proof files, the way
// from an older checkpoint, and a witness's cosignature by crypto/ed25519.
//
//	verify_mirror DIR VKEY [-old CHECKPOINT] [-witness VKEY] [PROOF...]
//
// It prints one line of what it found, or why the mirror does not hold, with exit code 1.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func check(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// path is a tile's path in C2SP's layout, which leaves the height out and calls bundles `entries`.
func path(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), "tile/8/")
	return filepath.Join("tile", strings.Replace(path, "data/", "entries/", 1))
}

// checkpoint reads a signed checkpoint under the log's key.
func checkpoint(msg []byte, log note.Verifier) (tlog.Tree, *note.Note) {
	opened, err := note.Open(msg, note.VerifierList(log))
	check(err, "the checkpoint's note")
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != log.Name() || lines[3] != "" {
		fail("the checkpoint's text is %q", opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err, "the checkpoint's size")
	root, err := tlog.ParseHash(lines[2])
	check(err, "the checkpoint's root")
	return tlog.Tree{N: size, Hash: root}, opened
}

// cosigned tells whether a witness's cosignature/v1 is on the note.
func cosigned(opened *note.Note, vkey string) bool {
	parts := strings.SplitN(vkey, "+", 3)
	key, err := base64.StdEncoding.DecodeString(parts[2])
	check(err, "the witness's key")
	if len(key) != 33 || key[0] != 4 {
		fail("the witness's key is no cosignature/v1 key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	id := binary.BigEndian.Uint32(sum[:])
	if fmt.Sprintf("%08x", id) != parts[1] {
		fail("the witness's key id is %08x", id)
	}
	for _, line := range opened.UnverifiedSigs {
		if line.Name != parts[0] || line.Hash != id {
			continue
		}
		bytes, err := base64.StdEncoding.DecodeString(line.Base64)
		check(err, "the cosignature")
		if len(bytes) != 4+8+64 {
			fail("the cosignature has %d bytes", len(bytes))
		}
		time := binary.BigEndian.Uint64(bytes[4:])
		message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, opened.Text)
		if !ed25519.Verify(ed25519.PublicKey(key[1:]), []byte(message), bytes[12:]) {
			fail("the cosignature fails")
		}
		return true
	}
	return false
}

// tiles reads a mirror's hash tiles.
type tiles struct{ dir string }

func (t tiles) Height() int                     { return height }
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		bytes, err := os.ReadFile(filepath.Join(t.dir, path(tile)))
		if err != nil {
			return nil, err
		}
		all = append(all, bytes)
	}
	return all, nil
}

func main() {
	if len(os.Args) < 3 {
		fail("usage: verify_mirror DIR VKEY [-old CHECKPOINT] [-witness VKEY] [PROOF...]")
	}
	dir, rest := os.Args[1], os.Args[3:]
	log, err := note.NewVerifier(os.Args[2])
	check(err, "the log's key")
	var old, witness string
	for len(rest) >= 2 && strings.HasPrefix(rest[0], "-") {
		if rest[0] == "-old" {
			old = rest[1]
		} else {
			witness = rest[1]
		}
		rest = rest[2:]
	}
	msg, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	check(err, "the checkpoint")
	tree, opened := checkpoint(msg, log)

	// Every hash of the tree, from the entries alone.
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, index := range indexes {
			hashes = append(hashes, stored[index])
		}
		return hashes, nil
	})
	var entries [][]byte
	for n := int64(0); n*256 < tree.N; n++ {
		width := tree.N - n*256
		if width > 256 {
			width = 256
		}
		name := path(tlog.Tile{H: height, L: -1, N: n, W: int(width)})
		bundle, err := os.ReadFile(filepath.Join(dir, name))
		check(err, name)
		for i := int64(0); i < width; i++ {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				fail("%s ends in entry %d", name, n*256+i)
			}
			length := 2 + int(binary.BigEndian.Uint16(bundle))
			entry := bundle[2:length]
			bundle = bundle[length:]
			hashes, err := tlog.StoredHashes(n*256+i, entry, reader)
			check(err, name)
			stored = append(stored, hashes...)
			entries = append(entries, entry)
		}
		if len(bundle) != 0 {
			fail("%s goes on after its entries", name)
		}
	}
	root, err := tlog.TreeHash(tree.N, reader)
	check(err, "the tree's root")
	if root != tree.Hash {
		fail("the entries lead to %v, the checkpoint says %v", root, tree.Hash)
	}

	// Every hash tile is what the entries make of it.
	count := 0
	for level := 0; tree.N>>uint(level*height) > 0; level++ {
		hashes := tree.N >> uint(level*height)
		for n := int64(0); n*256 < hashes; n++ {
			width := hashes - n*256
			if width > 256 {
				width = 256
			}
			tile := tlog.Tile{H: height, L: level, N: n, W: int(width)}
			computed, err := tlog.ReadTileData(tile, reader)
			check(err, path(tile))
			held, err := os.ReadFile(filepath.Join(dir, path(tile)))
			check(err, path(tile))
			if !bytes.Equal(computed, held) {
				fail("%s is not what the entries make of it", path(tile))
			}
			count++
		}
	}

	// Proofs, once as they stand in their files and once made from the tiles alone.
	byTiles := tlog.TileHashReader(tree, tiles{dir})
	for _, name := range rest {
		text, err := os.ReadFile(name)
		check(err, name)
		parts := strings.SplitN(string(text), "\n\n", 2)
		lines := strings.Split(parts[0], "\n")
		if len(parts) != 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
			fail("%s is no tlog-proof", name)
		}
		lines = lines[1:]
		if strings.HasPrefix(lines[0], "extra ") {
			lines = lines[1:]
		}
		index, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
		check(err, name)
		var proof tlog.RecordProof
		for _, line := range lines[1:] {
			hash, err := tlog.ParseHash(line)
			check(err, name)
			proof = append(proof, hash)
		}
		at, _ := checkpoint([]byte(parts[1]), log)
		if index >= tree.N || at.N > tree.N {
			fail("%s is about more than the mirror has", name)
		}
		leaf := tlog.RecordHash(entries[index])
		check(tlog.CheckRecord(proof, at.N, at.Hash, index, leaf), name)
		made, err := tlog.ProveRecord(tree.N, index, byTiles)
		check(err, name)
		check(tlog.CheckRecord(made, tree.N, tree.Hash, index, leaf), name)
		between, err := tlog.ProveTree(tree.N, at.N, byTiles)
		check(err, name)
		check(tlog.CheckTree(between, tree.N, tree.Hash, at.N, at.Hash), name)
	}
	before := int64(0)
	if old != "" {
		msg, err := os.ReadFile(old)
		check(err, old)
		earlier, _ := checkpoint(msg, log)
		between, err := tlog.ProveTree(tree.N, earlier.N, byTiles)
		check(err, old)
		check(tlog.CheckTree(between, tree.N, tree.Hash, earlier.N, earlier.Hash), old)
		before = earlier.N
	}
	byWitness := witness != "" && cosigned(opened, witness)
	fmt.Printf("size=%d root=%v tiles=%d proofs=%d extends=%d cosigned=%t\n", tree.N, tree.Hash, count, len(rest), before, byWitness)
}
