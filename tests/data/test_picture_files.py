import subprocess
from io import BytesIO

import pytest
from PIL import Image

from vl_alignment.data.picture_files import PICTURE_FORMATS, decode_picture


def encoded(kind, size=(6, 4), **options):
    content = BytesIO()
    Image.new("RGB", size, (200, 10, 90)).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", PICTURE_FORMATS)
def test_pictures_of_every_format_come_back_in_rgb(kind, tmp_path):
    (tmp_path / "picture").write_bytes(encoded(kind))
    of_bytes = decode_picture({"bytes": encoded(kind), "path": None})
    of_path = decode_picture({"bytes": None, "path": str(tmp_path / "picture")})
    assert of_bytes.mode == of_path.mode == "RGB" and of_bytes.size == of_path.size == (6, 4)
    assert of_bytes.tobytes() == of_path.tobytes()


def test_a_picture_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture({"bytes": encoded("JPEG", exif=exif), "path": None}).size == (4, 6)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"bytes": None, "path": None},
        {"bytes": b"", "path": None},
        {"bytes": encoded("PNG")[:40], "path": None},
        {"bytes": None, "path": "/nowhere/picture.png"},
    ],
)
def test_what_is_no_picture_is_one_kind_of_error(value):
    with pytest.raises(ValueError, match="."):
        decode_picture(value)


def test_postscript_starts_no_program(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match="cannot identify"):
        decode_picture({"bytes": encoded("EPS"), "path": None})
