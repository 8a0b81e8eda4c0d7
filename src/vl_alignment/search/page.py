"""One page that shows what a search found, with the pictures in it."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup, escape
from PIL import Image

from ..analysis.prediction import read_picture
from ..data.atomic_files import whole_file
from ..models.errors import DataError
from .scan_index import Match

__all__ = ["search_page"]

SHOWN_PIXELS = 256
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2230 }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; padding: 0 }
li { list-style: none; background: #f3f4f7; border-radius: 8px; padding: .6rem; overflow-wrap: anywhere }
img { width: 100%; border-radius: 4px; display: block }
.query img { width: 11rem }
.score { font-variant-numeric: tabular-nums; color: #5a6478 }
"""


def search_page(matches: Sequence[Match], query: str | Image.Image, path: Path) -> None:
    """Write a page of HTML that needs no other file.

    Args:
        matches: What was found, best first.
        query: A text or a picture.
        path: Of the page.

    Raises:
        DataError: It cannot be written.
    """
    asked = escape(query) if isinstance(query, str) else _picture(query, "the picture searched by")
    items = [
        Markup('<li>{}<p><span class="score">{}. {:+.4f}</span><br>{}</p></li>').format(
            _shown(match), rank, match.score, match.record.get("text", match.id)
        )
        for rank, match in enumerate(matches, start=1)
    ]
    page = Markup(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Search</title><style>{}</style>'
        '<h1>Search</h1><div class="query">{}</div><ol>{}</ol></html>\n'
    ).format(Markup(STYLE), asked, Markup("").join(items))
    with whole_file(path, DataError) as file:
        file.write(page.encode())


def _shown(match: Match) -> Markup:
    """The picture of a match, where its file is still there; data sets have none."""
    source = match.record.get("source")
    if source is None or not Path(source).is_file():
        return Markup("")
    return _picture(read_picture(Path(source)), match.id)


def _picture(picture: Image.Image, name: str) -> Markup:
    shown, content = picture.copy(), io.BytesIO()
    shown.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    shown.save(content, "WEBP", quality=85)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return Markup('<img alt="{}" src="data:image/webp;base64,{}">').format(name, data)
