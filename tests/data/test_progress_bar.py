from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios

import pytest

from study.data.progress_bar import progress


@pytest.mark.slow
def test_a_terminal_shows_how_far_it_is_and_is_left_clean(tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    done = subprocess.Popen(
        [sys.executable, "-m", "study.data", "tiny"],
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "STUDY_CACHE_DIR": str(tmp_path), "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    out, _ = done.communicate(timeout=60)
    os.close(ours)
    assert done.returncode == 0
    assert b"decoding synthetic, once per machine" in shown
    assert b"/40" in shown
    assert "decoding" not in out


@pytest.mark.parametrize(("num_images", "line"), [(3, "decoding: 3 images\n"), (2, "")])
def test_elsewhere_one_line_is_said_of_many_images(capsys, num_images, line):
    with progress("decoding", num_images, many=3) as advance:
        for _ in range(num_images):
            advance()
    assert capsys.readouterr().err == line
