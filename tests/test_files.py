import os
import stat

import pytest

from densescan.errors import InputError
from densescan.files import atomic_write, check_writable


def test_writes_whole_files_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "scene.ply"
    target.write_text("old")
    with atomic_write(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".ply"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["scene.ply"]


def test_new_files_have_the_usual_permissions(tmp_path):
    plain, written = tmp_path / "plain", tmp_path / "written"
    plain.write_text("")
    with atomic_write(written) as temporary:
        temporary.write_text("")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_failures_keep_the_old_file_and_leave_no_other(tmp_path, failure):
    target = tmp_path / "scene.ply"
    target.write_text("old")

    def fail_half_way():
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        fail_half_way()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["scene.ply"]


def test_full_disk_is_an_input_error_and_leaves_no_file(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with (
            pytest.raises(InputError, match=r"cannot write .*scene\.ply: File too large; free some space"),
            atomic_write(tmp_path / "scene.ply") as temporary,
        ):
            temporary.write_bytes(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_links_are_written_through(tmp_path):
    real, link = tmp_path / "real.ply", tmp_path / "link.ply"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_paths_that_cannot_be_written(tmp_path):
    folder = tmp_path / "folder.ply"
    folder.mkdir()
    with pytest.raises(InputError, match=r"folder\.ply: it is a directory"):
        check_writable(folder)
    with pytest.raises(InputError, match=r"the folder .*absent does not exist; create it first"):
        check_writable(tmp_path / "absent" / "scene.ply")
    with pytest.raises(InputError, match=r"unknown file ending; name a file ending in \.ply, \.npy"):
        check_writable(tmp_path / "scene.txt", (".ply", ".npy"))
    check_writable(tmp_path / "scene.txt")
    check_writable(tmp_path / "SCENE.PLY", (".ply",))
    with pytest.raises(InputError, match="not a regular file"):
        check_writable("/dev/null")
    with pytest.raises(InputError, match="does not exist"), atomic_write(tmp_path / "absent" / "a"):
        pytest.fail("the block must not run")


def test_permissions(tmp_path, monkeypatch):
    target = tmp_path / "scene.ply"
    target.write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: path != target.resolve())
    with pytest.raises(InputError, match="the file is write-protected"):
        check_writable(target)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path.resolve())
    with pytest.raises(InputError, match="no permission in"):
        check_writable(target)
