from pathlib import Path

import pytest
import torch

from intentbench.runner.jobs import describe_error, is_whole


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("a\nb"), "ValueError: a"), (MemoryError(), "MemoryError")],
)
def test_error_is_told_in_one_line(error: Exception, line: str) -> None:
    assert describe_error(error) == line


def test_checkpoint_is_whole_only_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    assert not is_whole(path)
    torch.save({"state_dict": {"weight": torch.arange(5000.0)}}, path)
    assert is_whole(path)
    content = path.read_bytes()
    for kept in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        assert not is_whole(path)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    path.write_bytes(flipped)
    assert not is_whole(path)
    path.write_bytes(bytes(len(content)))  # as a file system may leave it after a power cut
    assert not is_whole(path)
