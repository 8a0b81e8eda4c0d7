import json

import pytest
from tests.search.tiny import tiny_scan, write_pictures

from vl_alignment import cli

pytest.importorskip("faiss", reason="needs faiss: pip install 'vl-alignment[index]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, pictures, captions, and an index of them."""
    folder = tmp_path_factory.mktemp("search")
    model, processor = tiny_scan()
    for part in (model, processor):
        part.save_pretrained(folder / "model")
    write_pictures(folder / "photos", 6)
    (folder / "captions.txt").write_text("a dog runs\n\ntwo dogs\n")
    assert cli.main(index_command(folder, "--images", "photos", "--captions", "captions.txt")) == 0
    return folder


def index_command(folder, *options):
    paths = [option if option.startswith("-") else str(folder / option) for option in options]
    return ["index", str(folder / "model"), "--output", str(folder / "index"), *paths]


def search(folder, *options):
    return cli.main(["search", str(folder / "index"), *map(str, options)])


def test_text_finds_pictures(folder, capsys):
    assert search(folder, "two dogs", "--top", 3, "--page", folder / "page.html") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].split()[0] == "1" and "photos/" in lines[0]
    page = (folder / "page.html").read_text()
    assert page.count("<img") == 3 and "two dogs" in page


def test_page_shows_no_markup_of_the_query(folder, capsys):
    assert search(folder, "<script>dogs</script>", "--page", folder / "page.html") == 0
    assert "unknown words" in capsys.readouterr().err
    assert "<script>" not in (folder / "page.html").read_text()


def test_picture_finds_captions_and_pictures(folder, capsys):
    photo = folder / "photos" / "002.png"
    assert search(folder, "--image", photo, "--captions", "--json") == 0
    assert sorted(row["text"] for row in json.loads(capsys.readouterr().out)) == ["a dog runs", "two dogs"]
    assert search(folder, "--image", photo, "--json", "--top", 1) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["source"] == str(folder / row["id"])


def test_indexing_again_adds_nothing(folder, capsys):
    assert cli.main(index_command(folder, "--images", "photos")) == 0
    assert "6 pictures (0 new), 2 captions (0 new)" in capsys.readouterr().out


def test_split_of_a_preset_is_indexed_with_its_captions(folder, tmp_path, capsys):
    command = ["index", str(folder / "model"), "--preset", "blocks", "--sizes", "train=2", "validation=2", "test=3"]
    assert cli.main([*command, "--output", str(tmp_path / "blocks")]) == 0
    assert "3 pictures (3 new), 15 captions (15 new)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["search", "{folder}/index"], "give a text"),
        (["search", "{folder}/index", "dogs", "--captions"], "found by picture"),
        (["search", "{folder}/photos", "dogs"], "no index here"),
        (["search", "{folder}/index", "..."], "no words"),
        (["search", "{folder}/index", "dogs", "--top", "0"], "top=0"),
        (["search", "{folder}/index", "--image", "{folder}/captions.txt"], "captions.txt"),
        (["index", "{folder}/model", "--output", "{folder}/other"], "--images"),
        (["index", "{folder}/model", "--output", "{folder}/other", "--images", "{folder}/model"], "no picture"),
        (["index", "{folder}/model", "--output", "{folder}/index", "--images", "{folder}/none"], "no such folder"),
        (["index", "{folder}/model", "--output", "{folder}/a", "--images", "{folder}", "--split", "test"], "--preset"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(arguments, named, folder, capsys):
    assert cli.main([argument.format(folder=folder) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and named in error
