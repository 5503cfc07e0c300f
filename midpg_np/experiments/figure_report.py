"""A figure with its numbers: pictures and sheets, as Markdown, JSON and one page of HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from midpg_np.experiments.table_report import Sheet, markdown_table
from midpg_np.pages import image, page, table
from midpg_np.training.checkpoint import replacing


class Picture(NamedTuple):
    """A picture (PNG), the name of its file, and a sentence or two on how to read it."""

    name: str
    png: bytes
    caption: str


class FigureReport(NamedTuple):
    """What an experiment has to show.

    Parameters
    ----------
    name : str
        Of its files: ``name.md``, ``name.json``.
    title : str
        Heading.
    verdict : str
        The outcome in a few sentences.
    notes : sequence of str
        What a reader should know: one paragraph each.
    command : str
        The command that gives the same again.
    pictures : sequence of Picture
    sheets : sequence of Sheet
    """

    name: str
    title: str
    verdict: str
    notes: Sequence[str]
    command: str
    pictures: Sequence[Picture]
    sheets: Sequence[Sheet]


def markdown(report: FigureReport) -> str:
    """Return the report as Markdown; its pictures are files beside it."""
    parts = [f"# {report.title}", report.verdict, f"```sh\n{report.command}\n```"]
    for picture in report.pictures:
        parts += [f"![{picture.caption}]({picture.name})", picture.caption]
    parts += report.notes
    for sheet in report.sheets:
        parts += [f"## {sheet.title}", sheet.caption, markdown_table(sheet)]
    return "\n\n".join(part for part in parts if part) + "\n"


def html(report: FigureReport) -> str:
    """Return the report as a page of HTML that holds its pictures; every text is escaped."""
    parts = []
    for picture in report.pictures:
        parts.append(image(picture.png, picture.caption))
        parts.append(f'<p class="caption">{escape(picture.caption)}</p>')
    parts += [f"<p>{escape(note)}</p>" for note in report.notes]
    parts.append(
        f'<p class="caption">The command:</p>\n<p><code>{escape(report.command)}</code></p>'
    )
    for sheet in report.sheets:
        parts.append(f"<h2>{escape(sheet.title)}</h2>")
        parts.append(table(sheet.title, sheet.caption, sheet.head, sheet.rows))
    return page(report.title, report.verdict, "\n".join(parts))


def write_figure(out: Path, report: FigureReport, content: Mapping[str, Any]) -> None:
    """Write the pictures, ``name.json``, ``name.md`` and ``report.html`` into a folder.

    Raises
    ------
    OSError
        If a file could not be written; the one before it is intact.
    """
    out.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(content, indent=2, allow_nan=False) + "\n"
    texts = {f"{report.name}.json": numbers, f"{report.name}.md": markdown(report)}
    files = {name: text.encode() for name, text in (texts | {"report.html": html(report)}).items()}
    for name, data in (files | {picture.name: picture.png for picture in report.pictures}).items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(data)
