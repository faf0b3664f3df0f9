"""A producer in bash, with redis-cli and printf only, against a real server and a real worker."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PRODUCER = Path(__file__).parent / "shell" / "producer.sh"
RUN_S = 60

EXPECTED = {
    "numbers": "FP32[2] 2 -4",
    "embedding": "FP32[8] 1 -2 0 0 0 0 0 0",
    "text": "BYTES[] GRÖSSE",
    "urgent": "FP32[2] 2 -4",
    "wrong byte count": "invalid_request retryable=false inputs.x.data must hold 12 bytes for FP32 [3]; got 8",
    "wrong version of the protocol": "invalid_request retryable=false v must be 1; got 2",
    "unknown model": "model_not_found retryable=false no model 'nobody' is served here",
    "unknown field": "invalid_request retryable=false unknown field 'colour'",
    "bad reply_to": "invalid_request retryable=false reply_to must start with 'iw:{",
}


def test_a_producer_in_bash_gets_its_results_and_clear_errors(redis_url: str, served_pool: str, redis_cli: str) -> None:
    printed = subprocess.run(
        [str(PRODUCER), redis_url, served_pool],
        env={**os.environ, "REDIS_CLI": redis_cli},
        timeout=RUN_S,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )

    assert printed.returncode == 0, printed.stdout + printed.stderr
    answers = dict(line.split(": ", 1) for line in printed.stdout.splitlines())
    assert answers.keys() == EXPECTED.keys()
    for case, answer in EXPECTED.items():
        assert answers[case].startswith(answer), case
