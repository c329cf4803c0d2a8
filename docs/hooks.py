"""For mkdocs: where the pages are, and which of the navigation's there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent


def on_config(config: Any) -> Any:
    """Take the folder of this file, and of the navigation the pages that it has."""
    config.docs_dir = str(DOCS)
    config.nav = _existing(config.nav)
    return config


def _existing(entries: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for entry in entries:
        if isinstance(entry, str):
            kept += [entry] if (DOCS / entry).is_file() else []
        else:
            ((title, below),) = entry.items()
            kept.append({title: _existing(below)})
    return kept
