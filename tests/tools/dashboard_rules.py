"""Writes every question of a Grafana dashboard as a recording rule, so that `promtool check rules` reads each.

    dashboard_rules.py deploy/grafana/anteroom.json out.yml
"""

import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    panels = json.load(file)["panels"]
asked = [target["expr"] for panel in panels for target in panel["targets"]]
rules = [{"record": f"dashboard:{number}", "expr": expr} for number, expr in enumerate(asked)]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    # JSON is YAML.
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
