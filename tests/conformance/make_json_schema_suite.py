"""Writes `data/json_schema_suite.json.gz` out of PyPI's `jsonschema`:

pip download --no-deps --no-binary :all: jsonschema==4.26.0, unpack it, then
python -m tests.conformance.make_json_schema_suite jsonschema-4.26.0

Kept here, 30 KB, rather than fetched: tests run without a network.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

DATA = Path(__file__).with_name("data") / "json_schema_suite.json.gz"
LICENCE = DATA.with_name("json_schema_suite.LICENSE")


def main() -> None:
    """Gather the groups of draft 2020-12, optional ones included."""
    suite = Path(sys.argv[1]) / "json"
    folder = suite / "tests" / "draft2020-12"
    groups = [
        {"file": path.relative_to(folder).as_posix(), **group}
        for path in sorted(folder.rglob("*.json"))
        for group in json.loads(path.read_text(encoding="utf-8"))
    ]
    text = json.dumps(groups, separators=(",", ":")).encode()
    DATA.write_bytes(gzip.compress(text, 9, mtime=0))
    LICENCE.write_bytes((suite / "LICENSE").read_bytes())


if __name__ == "__main__":
    main()
