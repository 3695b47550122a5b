"""The real libraries, with what this package gives them, against a real PostgreSQL that lets in the live tokens of the role only: over
three lives of a token each of them connects anew twice a second, and none may ever be refused."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import churn

MODES = [mode.__name__ for mode in churn.MODES]

#: How long they take to their first try, all at once on two processors.
START = 8
BEGAN = time.monotonic()


@pytest.fixture(scope="session", autouse=True)
def begun():
    """They begin with the first test, and go on beside all others."""
    if "STAGE_LIFE" not in os.environ:
        yield {}
        return
    script = str(Path(__file__).with_name("churn.py"))
    start = lambda mode: subprocess.Popen(
        [sys.executable, script, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    running = {mode: start(mode) for mode in MODES}
    yield running
    for one in running.values():
        one.kill()
        one.wait()


@pytest.fixture(scope="session")
def said(begun, stage, request):
    """What each has said from its first try on, after three lives."""
    first = {mode: begun[mode].stdout.readline() for mode in MODES}
    time.sleep(max(0.0, BEGAN + START + 3 * int(stage["STAGE_LIFE"]) - time.monotonic()))
    result = {}
    for mode, one in begun.items():
        ended = one.poll()
        one.terminate()
        out, err = one.communicate()
        assert ended is None, f"{mode} ended: {err}"
        result[mode] = (first[mode] + out).splitlines()
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print()
        for mode, lines in result.items():
            print(f"{mode}: {len(lines)} tries, {sum(line.startswith('failed') for line in lines)} refused")
    return result


@pytest.mark.parametrize("mode", MODES[:-1])
def test_nobody_is_refused_in_three_lives_of_a_token(mode, said, stage):
    failed = [line for line in said[mode] if not line.startswith("ok ")]
    assert not failed, f"{len(failed)} of {len(said[mode])} tries: {failed[0]}"
    sessions = {line.split()[1] for line in said[mode]}
    lives = {line.split()[2] for line in said[mode]}
    assert len(sessions) > len(said[mode]) * 2 // 3 and len(sessions) > 10, f"{len(sessions)} sessions"
    assert len(lives) >= 3, f"only {len(lives)} passwords were used"


def test_whoever_keeps_a_password_is_refused_in_three_lives_of_a_token(said):
    assert any(line.startswith("failed") for line in said[MODES[-1]])
