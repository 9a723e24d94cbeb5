"""Alters bytes of a bundle's records one at a time and demands that the bundle's own verifier finds each, whatever the manifest says.

    alter_bundle.py BUNDLE STEP

It prints how many bytes were altered.
"""

import importlib.util
import json
import sys
from pathlib import Path

folder, step = Path(sys.argv[1]), int(sys.argv[2])
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("verify", folder / "verify.py")
verify = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify)

kept = (folder / "mirror/anteroom/log.vkey").read_text().strip()
_, keys = verify.log_keys(folder / "mirror/anteroom/log.keys", kept)
size, root, _, _ = verify.checkpoint((folder / "mirror/checkpoint").read_text(), keys, "checkpoint")
entries, leaves, _ = verify.check_tree(folder, size, root)
count = 0
for said in json.loads((folder / "report.json").read_text())["scopes"]:
    scope = said["scope"]
    path = folder / f"mirror/anteroom/slices/{scope}.records"
    honest = path.read_bytes()
    shared = verify.Log(keys, entries, leaves)
    verify.check_slice(folder, scope, 0, shared)
    for at in range(count % step, len(honest), step):
        altered = bytearray(honest)
        altered[at] ^= 1 << at % 8
        path.write_bytes(altered)
        try:
            verify.check_slice(folder, scope, 0, shared)
        except (verify.Fault, ArithmeticError, LookupError, TypeError, ValueError):
            count += 1
        else:
            sys.exit(f"byte {at} of {scope} was altered and nothing was found")
    path.write_bytes(honest)
print(count)
