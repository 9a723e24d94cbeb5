"""Verifies a mirror from the C2SP specifications: signed-note, tlog-checkpoint, tlog-tiles, tlog-proof, tlog-cosignature.

    verify_mirror.py DIR VKEY [-old CHECKPOINT] [-witness VKEY] [PROOF...]

Signatures are checked by the `cryptography` package; everything else is here. Where a proof carries an opening, the record's digest
is computed from it, too, and compared with the entry. It prints one line of what it found, or why the mirror does not hold, with
exit code 1.
"""

import base64
import hashlib
import hmac
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def fail(why):
    sys.exit(f"verify_mirror: {why}")


def leaf(entry):
    return hashlib.sha256(b"\x00" + entry).digest()


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size):
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def root_of(hashes):
    """MTH of RFC 6962 over leaf hashes."""
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    at = split(len(hashes))
    return node(root_of(hashes[:at]), root_of(hashes[at:]))


def included(index, size, leaf_hash, path, root):
    """Follows an inclusion proof by its definition, from the top of the list down."""
    path = list(path)

    def walk(index, size):
        if size == 1:
            return leaf_hash
        if not path:
            fail("a proof is too short")
        sibling, at = path.pop(), split(size)
        return node(walk(index, at), sibling) if index < at else node(sibling, walk(index - at, size - at))

    return index < size and walk(index, size) == root and not path


def key(vkey, algorithm):
    name, key_id, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    if len(raw) != 33 or raw[0] != algorithm:
        fail(f"`{vkey}` is no key of algorithm {algorithm}")
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if expected.hex() != key_id:
        fail(f"`{vkey}` has another id than {expected.hex()}")
    return name, expected, Ed25519PublicKey.from_public_bytes(raw[1:])


def verify(public, signature, message, what):
    try:
        public.verify(signature, message)
    except InvalidSignature:
        fail(f"the signature of {what} fails")


def checkpoint(note, log):
    """Size, root and signed text of a note, and the signature lines by name and key id."""
    text, _, lines = note.rpartition("\n\n")
    text += "\n"
    signatures = {}
    for line in lines.removesuffix("\n").split("\n"):
        dash, name, encoded = line.split(" ")
        raw = base64.b64decode(encoded, validate=True)
        if dash != "\u2014":
            fail("a signature line does not begin with a dash")
        signatures[name, raw[:4]] = raw[4:]
    name, key_id, public = log
    if (name, key_id) not in signatures:
        fail("the log did not sign")
    verify(public, signatures[name, key_id], text.encode(), name)
    origin, size, root, end = text.split("\n")
    if origin != name or end != "" or str(int(size)) != size:
        fail(f"the checkpoint's text is {text!r}")
    return int(size), base64.b64decode(root, validate=True), text, signatures


def tile_path(kind, index, width):
    groups = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03}")
    return f"tile/{kind}/" + "/".join(groups) + ("" if width == 256 else f".p/{width}")


def tiles(count):
    """Index and width of each tile over `count` things."""
    return [(n, min(256, count - n * 256)) for n in range((count + 255) // 256)]


def fields(message):
    """Numbers and values of a protobuf message of varints and bytes."""
    at = 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        else:
            length = varint()
            at += length
            yield tag >> 3, message[at - length : at]


def digest(opening):
    """The record's digest, from an opening of some of its fields."""
    commitments = {}
    for number, value in fields(opening):
        if number == 2:
            part = dict(fields(value))
            commitments[part[1]] = hmac.new(part[2], part.get(3, b""), hashlib.sha256).digest()
        elif number == 3:
            part = dict(fields(value))
            commitments[part[1]] = part[2]
    listed = b"".join(struct.pack(">I", number) + commitments[number] for number in sorted(commitments))
    return hashlib.sha256(b"\x01" + listed).digest()


def main(arguments):
    folder, log, rest = Path(arguments[0]), key(arguments[1], 1), arguments[2:]
    old = witness = None
    while rest and rest[0].startswith("-"):
        if rest[0] == "-old":
            old = rest[1]
        else:
            witness = rest[1]
        rest = rest[2:]
    size, root, text, signatures = checkpoint((folder / "checkpoint").read_text(), log)

    entries = []
    for index, width in tiles(size):
        name = tile_path("entries", index, width)
        bundle = (folder / name).read_bytes()
        for _ in range(width):
            if len(bundle) < 2:
                fail(f"{name} ends in entry {len(entries)}")
            end = 2 + struct.unpack(">H", bundle[:2])[0]
            if len(bundle) < end:
                fail(f"{name} ends in entry {len(entries)}")
            entries.append(bundle[2:end])
            bundle = bundle[end:]
        if bundle:
            fail(f"{name} goes on after its entries")
    leaves = [leaf(entry) for entry in entries]
    if root_of(leaves) != root:
        fail("the entries lead to another root than the checkpoint says")

    count, level, hashes = 0, 0, leaves
    while hashes:
        for index, width in tiles(len(hashes)):
            name = tile_path(level, index, width)
            if (folder / name).read_bytes() != b"".join(hashes[index * 256 : index * 256 + width]):
                fail(f"{name} is not what the entries make of it")
            count += 1
        whole = len(hashes) // 256
        hashes = [root_of(hashes[n * 256 : n * 256 + 256]) for n in range(whole)]
        level += 1

    for name in rest:
        head, _, note = Path(name).read_text().partition("\n\n")
        lines = head.split("\n")
        if lines.pop(0) != "c2sp.org/tlog-proof@v1":
            fail(f"{name} is no tlog-proof")
        extra = base64.b64decode(lines.pop(0)[6:], validate=True) if lines[0].startswith("extra ") else None
        index = int(lines.pop(0).removeprefix("index "))
        at, at_root, _, _ = checkpoint(note, log)
        if index >= size or at > size:
            fail(f"{name} is about more than the mirror has")
        path = [base64.b64decode(line, validate=True) for line in lines]
        if not included(index, at, leaves[index], path, at_root):
            fail(f"{name} does not lead to its checkpoint's root")
        if root_of(leaves[:at]) != at_root:
            fail(f"{name} is under a checkpoint of another log")
        if extra is not None and digest(extra) != entries[index][16:]:
            fail(f"{name} carries an opening of another record")

    before = 0
    if old is not None:
        before, old_root, _, _ = checkpoint(Path(old).read_text(), log)
        if before > size or root_of(leaves[:before]) != old_root:
            fail("the mirror does not extend the older checkpoint")

    cosigned = False
    if witness is not None:
        name, key_id, public = key(witness, 4)
        line = signatures.get((name, key_id))
        if line is not None:
            (time,) = struct.unpack(">Q", line[:8])
            verify(public, line[8:], f"cosignature/v1\ntime {time}\n{text}".encode(), name)
            cosigned = True
    told = base64.b64encode(root).decode()
    print(f"size={size} root={told} tiles={count} proofs={len(rest)} extends={before} cosigned={str(cosigned).lower()}")


main(sys.argv[1:])
