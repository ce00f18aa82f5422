"""The two commands a visitor runs first, as a visitor runs them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from py_engine.tooling.site import Site
from py_engine.tooling.steps import ROOT

pytestmark = pytest.mark.browser

BUILD = [sys.executable, str(ROOT / "build.py")]


def test_demo_streams_an_answer_and_its_statistics(site: Site) -> None:
    question = "Tell me a story about a cat."
    shown = subprocess.run(
        [*BUILD, "demo", "--prompt", question],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr + shown.stdout
    answer, statistics = shown.stdout.partition(f"> {question}\n\n")[2].rsplit("\n\n", 1)
    assert len(answer.split()) > 10
    assert re.search(r"first token after [\d.]+ s", statistics)
    assert re.search(r"decode [\d.]+ tokens/s", statistics)


def listen_to_ctrl_c() -> None:
    """Undo what a shell does to the commands that it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_serve_serves_the_site_until_ctrl_c(site: Site) -> None:
    command = [*BUILD, "serve", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "http://" in line)
            url = line.split()[1]
            with urllib.request.urlopen(url, timeout=10) as response:
                assert b"<title>PyWebLLM</title>" in response.read()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 130
        finally:
            process.kill()
