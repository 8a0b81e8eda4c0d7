import pytest

from vl_alignment.data.inner_paths import inner_path


@pytest.mark.parametrize("name", ["a.jpg", "b/a.jpg", "b/../a.jpg", "./a.jpg", "..a.jpg", "b/.../a.jpg"])
def test_names_within_the_folder_are_joined(tmp_path, name):
    assert inner_path(tmp_path, name) == f"{tmp_path}/{name}"


@pytest.mark.parametrize(
    "name", ["", "..", "../a", "b/../../a", "b/../../folder/a", "/a", "\\a", "..\\a", "a\0", "x" * 256]
)
def test_all_others_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="leads out of the folder or is none"):
        inner_path(tmp_path, name)


def test_links_on_the_disk_are_the_users_own(tmp_path):
    (tmp_path / "elsewhere").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "elsewhere")
    with open(inner_path(tmp_path / "folder", "link")) as file:
        assert file.read() == "text"
