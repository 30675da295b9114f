"""Minutes of coverage-guided fuzzing: a client's bytes never crash the VMM, and never hang it."""

import json
import os
import re
from pathlib import Path

import pytest

import own_environment
from vmm_corpus import BODIES, requests
from wrennd.linux import process
from wrennd.qemu_vmm import state_file

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

TESTS = Path(__file__).parents[1]
ATHERIS = "atheris==3.0.0"
SECONDS = int(os.environ.get("WRENN_FUZZ_SECONDS", "150"))
SEED = int(os.environ.get("WRENN_FUZZ_SEED", "1"))
ONE_INPUT_S = 5  # more is a hang
RSS_MIB = 1024


def seeds():
    """Inputs to begin with: a byte that chooses the target, then its data."""
    for data in requests():
        yield b"\x00\x07" + data
        yield b"\x00\x00" + data + requests()[0]
    for _, _, body in BODIES:
        yield b"\x01" + json.dumps(body).encode()
        yield b"\x02" + json.dumps({"drives": [body]}).encode()
    description = state_file.Description(qemu=(7, 2, 0), accel="tcg", config={}, macs=("a",))
    yield b"\x03" + state_file.encode(description, b"stream")[:-8]


def test_no_bytes_of_a_client_crash_or_hang_it(tmp_path):
    python = own_environment.make(tmp_path / "environment", ATHERIS)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds()):
        (corpus / f"{number:03}").write_bytes(data)
    print(f"seed {SEED}, {SECONDS} s; WRENN_FUZZ_SEED and WRENN_FUZZ_SECONDS choose others")
    done = process.run(
        [
            python,
            Path(__file__).with_name("vmm_api_target.py"),
            f"-seed={SEED}",
            f"-max_total_time={SECONDS}",
            f"-timeout={ONE_INPUT_S}",
            f"-rss_limit_mb={RSS_MIB}",
            "-max_len=4096",
            "-print_final_stats=1",
            f"-artifact_prefix={tmp_path}/finding-",
            corpus,
        ],
        env={
            **process.CLEAN_ENVIRONMENT,
            "PYTHONPATH": f"{TESTS.parent / 'src'}:{TESTS}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        timeout_s=SECONDS + 200,
        check=False,
    )
    findings = {path.name: path.read_bytes() for path in tmp_path.glob("finding-*")}
    assert (done.returncode, findings) == (0, {}), done.stderr[-4000:]
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    assert runs is not None, done.stderr[-2000:]
    print(f"{runs.group(1)} inputs, {len(list(corpus.iterdir()))} in the corpus")
    assert int(runs.group(1)) > 1000
