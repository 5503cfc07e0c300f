"""The catalogue for programs, and as the page docs/mistakes.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from midpg_np.models import MODELS
from midpg_np.verify.mistakes.mistake import Mistake

INTRODUCTION = """\
# Mistakes

The catalogue behind `midpg verify diagnose`, as `midpg verify mistakes --markdown` prints it. Every
entry is executable, and an independent version in PyTorch carries it too (`tests/torch_mistakes`).

*Shows*: in a value; in a gradient while all values are right; in serving, the prediction while
training is right; in state, what is kept after a step. Numbers in brackets are those of
[the derivations](derivations/index.md)."""


def mistake_dict(mistake: Mistake) -> dict[str, Any]:
    """Return one entry as JSON-able data."""
    keys = ("name", "equation", "wrong", "right", "shows", "fix")
    return {key: getattr(mistake, key) for key in keys} | {
        "models": list(mistake.models),
        "options": dict(mistake.options),
    }


def catalogue_page(mistakes: Sequence[Mistake]) -> str:
    """Return entries as a page of Markdown, grouped by the models that can have them."""
    groups: dict[tuple[str, ...], list[Mistake]] = {}
    for mistake in mistakes:
        groups.setdefault(mistake.models, []).append(mistake)
    lines = [INTRODUCTION]
    for models, members in groups.items():
        title = "Every model" if set(models) == set(MODELS) else ", ".join(models)
        lines += ["", f"## {title}", ""]
        lines += ["| mistake | wrong | right | shows | fix |", "|---|---|---|---|---|"]
        for m in members:
            cells = (f"{m.name} ({m.equation})", f"`{m.wrong}`", f"`{m.right}`", m.shows, m.fix)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)
