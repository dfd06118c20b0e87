"""Where the repository is, for tests of what is not in the package: documents, tools, benchmarks, examples."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "tests" / "helpers"
