"""Where things are in the repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOWS = ROOT / "flows"
SUPPORT = ROOT / "tests" / "support"
MISTAKES = SUPPORT / "data" / "mistakes.csv"
EXAMPLES = ROOT / "examples"
