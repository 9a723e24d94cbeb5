"""Verifies a closing bundle with Python's standard library and the `cryptography` package; nothing else is asked or run.

    python3 verify.py [--key VKEY] [--witness VKEY] [FOLDER]

Checked are: every file against manifest.json, and no file beside them; the signature under the log's checkpoint, and how its key came
from the one given if that handed over to another; the root of the
log's tree from its entries, and each tile; that each record here opens to the entry at its place in that tree, with its own path and
checkpoint, follows the one before it, and that the tree holds no further record of the same scope; and that report.json is of this log, grant and number of
calls. Not checked are the parties' signatures under terms and statements, and the report's other figures: `anteroom audit verify
--bundle` does. It prints what it checked; on any fault it names the file and ends with exit code 1.
"""

import base64
import hashlib
import hmac
import json
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CALL_ADMITTED, CALL_FINISHED = 40, 43


class Fault(Exception):
    """What is wrong, beginning with the file."""


def demand(holds, file, why):
    if not holds:
        raise Fault(f"{file}: {why}")


# The manifest.


def sha256_of(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_manifest(folder):
    name = "manifest.json"
    text = (folder / name).read_text(encoding="utf-8")
    manifest = json.loads(text)
    spelt = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    demand(spelt == text, name, "it is not in its one spelling")
    due = {said["file"]: said for said in manifest["files"]}
    demand(len(due) == len(manifest["files"]), name, "it lists a file twice")
    for path in sorted(folder.rglob("*")):
        file = path.relative_to(folder).as_posix()
        demand(not path.is_symlink(), file, "it is a link")
        if path.is_dir() or file == name:
            continue
        said = due.pop(file, None)
        demand(said is not None, file, "the manifest does not list it")
        demand(path.stat().st_size == said["bytes"], file, f"it has not the {said['bytes']} bytes that the manifest says")
        demand(sha256_of(path) == said["sha256"], file, "it has not the SHA-256 that the manifest says")
    demand(not due, next(iter(due), ""), "it is missing")
    return manifest


# Keys and notes: C2SP signed-note, tlog-checkpoint and tlog-cosignature.


def key(vkey, algorithm, where):
    name, key_id, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    demand(len(raw) == 33 and raw[0] == algorithm, where, f"`{vkey}` is no key of algorithm {algorithm}")
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    demand(expected.hex() == key_id, where, f"`{vkey}` has another id than {expected.hex()}")
    return name, expected, Ed25519PublicKey.from_public_bytes(raw[1:])


def signed(public, signature, message, where, who):
    try:
        public.verify(signature, message)
    except InvalidSignature:
        raise Fault(f"{where}: the signature of {who} fails") from None


def parted(note, where):
    """A note's text, and its signatures by name and key id."""
    text, _, lines = note.rpartition("\n\n")
    text += "\n"
    signatures = {}
    for line in lines.removesuffix("\n").split("\n"):
        dash, name, encoded = line.split(" ")
        demand(dash == "\u2014", where, "a signature line does not begin with a dash")
        raw = base64.b64decode(encoded, validate=True)
        signatures[name, raw[:4]] = raw[4:]
    return text, signatures


def by_log(log, text, signatures, where):
    name, key_id, public = log
    demand((name, key_id) in signatures, where, f"the log did not sign it with its key {key_id.hex()}")
    signed(public, signatures[name, key_id], text.encode(), where, name)


def log_keys(path, kept):
    """The log's keys as text, and each with the size from which on it signs: a later one follows by a note that both signed."""
    file = "mirror/anteroom/log.keys"
    if not path.exists():
        return [kept], [(0, key(kept, 1, "mirror/anteroom/log.vkey"))]
    parts = path.read_text(encoding="utf-8").removesuffix("\n").split("\n\n")
    demand(len(parts) % 2 == 0, file, "it is not notes with an empty line between them")
    vkeys, keys = [], []
    for body, lines in zip(parts[::2], parts[1::2]):
        text, signatures = parted(f"{body}\n\n{lines}\n", file)
        word, origin, size, old, new, end = text.split("\n")
        if not keys:
            vkeys, keys = [old], [(0, key(old, 1, file))]
        follows = word == "anteroom/log-key/v1" and end == "" and old == vkeys[-1] and new not in vkeys
        demand(follows and str(int(size)) == size and int(size) > keys[-1][0], file, "a key does not follow the one before it")
        vkeys.append(new)
        keys.append((int(size), key(new, 1, file)))
        for _, log in keys[-2:]:
            demand(log[0] == origin, file, "a key is another log's")
            by_log(log, text, signatures, file)
    demand(kept in vkeys, file, "the key in log.vkey is none of them")
    return vkeys, keys


def checkpoint(note, keys, where):
    """Size, root, signed text, and signatures by name and key id."""
    text, signatures = parted(note, where)
    origin, size, root, end = text.split("\n")
    demand(end == "" and str(int(size)) == size, where, "its text is no checkpoint")
    log = [log for since, log in keys if since <= int(size)][-1]
    by_log(log, text, signatures, where)
    demand(origin == log[0], where, "its text is no checkpoint of this log")
    return int(size), base64.b64decode(root, validate=True), text, signatures


# The tree: RFC 6962 with SHA-256, in C2SP tlog-tiles.


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(hashes):
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256().digest()
    at = 1 << (len(hashes) - 1).bit_length() - 1
    return node(root_of(hashes[:at]), root_of(hashes[at:]))


def tile_path(kind, index, width):
    groups = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03}")
    return f"mirror/tile/{kind}/" + "/".join(groups) + ("" if width == 256 else f".p/{width}")


def tiles(count):
    return [(number, min(256, count - number * 256)) for number in range((count + 255) // 256)]


def included(index, size, leaf, path, root):
    """Follows an inclusion proof by its definition, from the top of the list down."""
    path = list(path)

    def walk(index, size):
        if size < 2:
            return leaf
        sibling, at = path.pop(), 1 << (size - 1).bit_length() - 1
        return node(walk(index, at), sibling) if index < at else node(sibling, walk(index - at, size - at))

    return index < size and walk(index, size) == root and not path


def check_tree(folder, size, root):
    entries = []
    for index, width in tiles(size):
        file = tile_path("entries", index, width)
        bundle, at = (folder / file).read_bytes(), 0
        for _ in range(width):
            demand(bundle[at : at + 2] == b"\x00\x30", file, f"entry {len(entries)} has not 48 bytes")
            entries.append(bundle[at + 2 : at + 50])
            at += 50
        demand(at == len(bundle), file, "it does not end with its entries")
    leaves = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    demand(root_of(leaves) == root, "mirror/checkpoint", "the entries lead to another root")
    count, level, hashes = 0, 0, leaves
    while hashes:
        for index, width in tiles(len(hashes)):
            file = tile_path(level, index, width)
            made = b"".join(hashes[index * 256 : index * 256 + width])
            demand((folder / file).read_bytes() == made, file, "it is not what the entries make of it")
            count += 1
        hashes = [root_of(hashes[n * 256 : n * 256 + 256]) for n in range(len(hashes) // 256)]
        level += 1
    return entries, leaves, count


# Records: protobuf of varints and bytes, read by hand.


def varint(message, at):
    value, shift = 0, 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def spans(message):
    """Each field's number, value, and bytes with its tag."""
    at = 0
    while at < len(message):
        start = at
        tag, at = varint(message, at)
        if tag & 7 == 0:
            value, at = varint(message, at)
        else:
            length, at = varint(message, at)
            value, at = message[at : at + length], at + length
            if tag & 7 != 2 or len(value) != length:
                raise ValueError("no message of varints and bytes")
        yield tag >> 3, value, message[start:at]


def fields(message, known):
    """The values of a message's fields by number, each as often as it is there; others than `known` are none of this version."""
    found = {}
    for number, value, _ in spans(message):
        if number not in known:
            raise ValueError(f"field {number} is unknown")
        found.setdefault(number, []).append(value)
    return found


def hmac_sha256(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def digest_of(commitments):
    listed = b"".join(struct.pack(">I", number) + commitments[number] for number in sorted(commitments))
    return hashlib.sha256(b"\x01" + listed).digest()


def opened(opening):
    """The index it claims, the opened fields by number, the numbers of all, and the record's digest."""
    parts, commitments, found = fields(opening, (1, 2, 3)), {}, {}
    for part in parts.get(2, []):
        one = fields(part, (1, 2, 3))
        (number,), (salt,), (wire,) = one[1], one[2], one.get(3, [b""])
        commitments[number] = hmac_sha256(salt, wire)
        found[number] = [value for at, value, _ in spans(wire) if at == number]
    for part in parts.get(3, []):
        one = fields(part, (1, 2))
        (commitments[one[1][0]],) = one[2]
    return parts.get(1, [0])[0], found, sorted(commitments), digest_of(commitments)


def digest_of_whole(record, seed, numbers):
    """The digest of a record whose every byte is here, from its seed."""
    wires = dict.fromkeys(numbers, b"")
    for number, _, wire in spans(record):
        wires[number] += wire
    return digest_of({n: hmac_sha256(hmac_sha256(seed, struct.pack(">I", n)), wires[n]) for n in numbers})


def tag(tag_key, position):
    return hmac_sha256(tag_key, struct.pack(">Q", position))[:16]


class Log:
    """The log as its checkpoint and entries have it."""

    def __init__(self, keys, entries, leaves):
        self.keys, self.entries, self.leaves, self.seen = keys, entries, leaves, {}
        self.tags = {entry[:16] for entry in entries}

    def checkpoint(self, note, where):
        """Size and root of a checkpoint that came with a record. One that is no newer must be of this very tree."""
        if note not in self.seen:
            size, root, _, _ = checkpoint(note, self.keys, where)
            if size <= len(self.leaves):
                demand(root_of(self.leaves[:size]) == root, where, f"its checkpoint of {size} entries is of another tree")
            self.seen[note] = (size, root)
        return self.seen[note]


def check_slice(folder, scope, destroyed, log):
    """How many records of each kind there are. The last `destroyed` ones are told of and not here."""
    file, name = f"mirror/anteroom/slices/{scope}.records", f"mirror/anteroom/slices/{scope}.tag"
    words = (folder / name).read_text().split(" ")
    demand(words[1] == scope, name, "it is the key of another scope")
    tag_key = bytes.fromhex(words[2])
    kinds, position, at, previous = {}, 0, 0, bytes(48)
    slices = (folder / file).read_bytes()
    while at < len(slices):
        where = f"record {position} at byte {at}"
        length, at = varint(slices, at)
        reply = fields(slices[at : at + length], (1, 2, 3, 4))
        at += length
        proven = fields(reply[1][0], (1, 2, 3))
        claimed, found, numbers, digest = opened(proven[1][0])
        (kind,), (index,), (before,) = found[1], found[2] or [0], found[6] or [bytes(48)]
        demand((found[5] or [0]) == [position], file, f"{where} is not the next of its scope")
        demand(claimed == index < len(log.entries), file, f"{where} has no place under the checkpoint")
        entry = tag(tag_key, position) + digest
        demand(log.entries[index] == entry, file, f"{where} is not entry {index} of the tree")
        demand(before == previous, file, f"{where} does not follow the one before it")
        size, root = log.checkpoint(proven[3][0].decode(), file)
        path = proven.get(2, [])
        demand(included(index, size, log.leaves[index], path, root), file, f"{where} has a path that leads elsewhere")
        demand(reply.get(4, [tag_key]) == [tag_key], file, f"{where} names another key of its scope's tags")
        if 2 in reply or 3 in reply:
            whole = digest_of_whole(reply[3][0], reply[2][0], numbers)
            demand(whole == digest, file, f"{where} has a whole record that is not the one opened")
        kinds[kind] = kinds.get(kind, 0) + 1
        position, previous = position + 1, entry
    demand(at == len(slices), file, "it ends in the middle of a record")
    after = position + destroyed
    demand(tag(tag_key, after) not in log.tags, file, f"the tree holds record {after} of `{scope}`, which is not here")
    return kinds


def check_report(folder, manifest, kinds):
    file = "report.json"
    report = json.loads((folder / file).read_text(encoding="utf-8"))
    log = report["log"]
    named = (log["origin"], log["key"], log["entries"], log["root"], report["made_by"])
    listed = tuple(manifest[name] for name in ("origin", "log_key", "entries", "root", "made_by"))
    demand(named == listed, "manifest.json", f"it names other things than {file}: log, checkpoint or software")
    demand([grant["grant"] for grant in report["grants"]] == [manifest["grant"]], file, "it is of another grant")
    terms = hashlib.sha256((folder / "terms.json").read_bytes()).hexdigest()
    demand(report["grants"][0]["terms"] == terms, "terms.json", "they are not those of the report")
    sums = report["grants"][0]["sums"]
    demand(sums["calls"] == kinds.get(CALL_ADMITTED, 0), file, "it counts other calls than the records")
    ended = sums["completed"] + sums["cut"]
    demand(ended <= kinds.get(CALL_FINISHED, 0), file, "it counts more ends of calls than the records")
    return sums["calls"]


def main(arguments):
    log_key, witness, folder = None, None, Path(__file__).resolve().parent
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("--key", "--witness") and rest:
            log_key, witness = (rest.pop(0), witness) if word == "--key" else (log_key, rest.pop(0))
        elif word.startswith("-"):
            sys.exit(__doc__)
        else:
            folder = Path(word)
    step = "manifest.json"
    try:
        manifest = check_manifest(folder)
        print(f"files: {len(manifest['files'])}, each as the manifest says, and none beside them")
        step = "mirror/anteroom/log.vkey"
        kept = (folder / step).read_text().strip()
        vkeys, keys = log_keys(folder / "mirror/anteroom/log.keys", kept)
        demand(log_key in (None, *vkeys), step, "it is another key than the one given")
        demand(manifest["log_key"] == kept, "manifest.json", "it names another key of the log")
        step = "mirror/checkpoint"
        note = (folder / step).read_text(encoding="utf-8")
        size, root, text, signatures = checkpoint(note, keys, step)
        told = (manifest["entries"], manifest["root"], manifest["origin"])
        there = (size, base64.b64encode(root).decode(), text.split("\n")[0])
        demand(told == there, "manifest.json", "it names another checkpoint than the one here")
        whose = "the key given" if log_key else "the key in this bundle, which proves nothing about who made it"
        handed = f", one of the {len(keys)} that this log had" if len(keys) > 1 else ""
        print(f"checkpoint: {size} entries, signed under {whose}{handed}")
        if witness is not None:
            name, key_id, public = key(witness, 4, "--witness")
            line = signatures.get((name, key_id))
            demand(line is not None, step, f"{name} did not cosign it")
            (time,) = struct.unpack(">Q", line[:8])
            signed(public, line[8:], f"cosignature/v1\ntime {time}\n{text}".encode(), step, name)
            print(f"witness: {name} cosigned it")
        step = "mirror/tile"
        entries, leaves, count = check_tree(folder, size, root)
        print(f"tree: {len(entries)} entries lead to the signed root, and {count} tiles follow from them")
        log = Log(keys, entries, leaves)
        step, kinds = "report.json", {}
        scopes = json.loads((folder / step).read_text(encoding="utf-8"))["scopes"]
        demand([said["scope"] for said in scopes] == manifest["scopes"], "manifest.json", f"it names other scopes than {step}")
        for said in scopes:
            scope, destroyed = said["scope"], said["destroyed"]
            step = f"mirror/anteroom/slices/{scope}.records"
            kinds[scope] = check_slice(folder, scope, destroyed, log)
            gone = f", and {destroyed} more are told to be destroyed" if destroyed else ""
            print(f"records of {scope}: {sum(kinds[scope].values())}, each in the tree, and no further one is{gone}")
        step = "report.json"
        calls = check_report(folder, manifest, kinds.get(manifest["grant"], {}))
        print(f"report: of this log and grant, with its {calls} calls")
        print("not checked here: the parties' signatures, and the report's other figures")
    except Fault as fault:
        sys.exit(f"verify.py: {fault}")
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError, struct.error) as why:
        sys.exit(f"verify.py: {step}: it cannot be read: {why!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
