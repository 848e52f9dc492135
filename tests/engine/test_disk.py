# SPDX-License-Identifier: Apache-2.0
"""What is said where the system refuses to write."""

import errno
import os

import pytest

from body4d_engine import disk
from body4d_engine.errors import TakeError


@pytest.mark.skipif(os.name == "nt", reason="Windows says it otherwise")
def test_a_path_that_is_too_long_is_refused_before_there_is_anything_to_lose(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 4000:
        folder = folder / ("long" * 20)
    folder = folder / ("x" * (4085 - len(str(folder))))
    os.makedirs(folder)
    (folder / "file").touch()  # as short a name is possible
    with pytest.raises(TakeError, match="is longer than this system lets paths be. Choose a folder with a shorter path") as error:
        disk.try_names(folder)
    assert error.value.code == "path_too_long"
    disk.try_names(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["long" * 20]


def test_windows_says_only_that_there_is_no_such_file(tmp_path):
    gone, long = FileNotFoundError(errno.ENOENT, "No such file or directory"), tmp_path / ("x" * 250)
    assert disk.is_too_long(gone, long, windows=True)
    assert not disk.is_too_long(gone, tmp_path, windows=True) and not disk.is_too_long(gone, long, windows=False)
    assert not disk.is_too_long(PermissionError(errno.EACCES, "Access denied"), long, windows=True)
