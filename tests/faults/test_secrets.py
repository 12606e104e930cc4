"""Secrets in any text field, variable or argument, in the shapes that people use: no file of a run holds one."""

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from finetune_monitor.base.redaction import REDACTED, redacted, without_secrets
from finetune_monitor.cli import main
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.record.history import read_run
from finetune_monitor.report.sink import ReportPage
from finetune_monitor.sinks.tensorboard import TensorBoardSink
from finetune_monitor.sinks.wandb import WandbSink
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support.scripted import Scripted, add_lora

CANARY = "CANARY0123456789abcdefABCDEFxyz7"
KEY = "AKIA" + "CANARY0123456789"[:16]

SHAPES = {
    "--token X": f"--token {CANARY}",
    "--hub-token=X": f"--hub-token={CANARY}",
    "secret_key": f"secret_key={CANARY}",
    "aws_secret_access_key": f"aws_secret_access_key = {CANARY}",
    "accessToken": f'"accessToken": "{CANARY}"',
    "private_key": f"private_key: {CANARY}",
    "pwd": f"pwd={CANARY}",
    "HF_TOKEN": f"HF_TOKEN={CANARY}",
    "Bearer": f"Authorization: Bearer {CANARY}",
    "bearer alone": f"bearer {CANARY}",
    "ghp_": f"ghp_{CANARY}1234",
    "github_pat_": f"github_pat_{CANARY}",
    "sk-": f"sk-{CANARY}",
    "sk-proj-": f"sk-proj-{CANARY}",
    "hf_": f"hf_{CANARY}",
    "glpat-": f"glpat-{CANARY[:24]}",
    "AKIA": KEY,
    "user:password@": f"https://ana:{CANARY}@example.org/model",
    "token@": f"https://{CANARY}@example.org/model",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----",
    "JWT": f"eyJhbGciOiJIUzI1NiJ9.eyJ{CANARY}.{CANARY}",
}

NAMES = ["token", "hub.token", "accessToken", "secret_key", "aws_secret_access_key", "private_key", "privateKey", "pwd"]
NAMES += ["password", "WANDB_API_KEY", "apiKey", "api-key", "client_secret", "credentials", "ssh_key", "passphrase"]

PLAIN = [
    "a photo of sks person",
    "a token of love",
    "a sword bearer standing in rain",
    "a secret: the door",
    "style: token, key: value",
    "password-protected diary on a desk, key light",
    "https://example.org/a?b=c#d",
    "runs/ana-2026-11-28/best",
    "stabilityai/stable-diffusion-2-1",
    "a" * 64,
    "placeholder tokens, basic shapes",
]


def holds_canary(folder: Path) -> list[str]:
    """The files whose content or name holds a part of the canary, in any encoding that is used."""
    parts = [CANARY[:12], CANARY[-12:]]
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(part.encode() in content or part.encode("utf-16-le") in content for part in parts):
            found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_removed_and_the_rest_stays(shape):
    said = without_secrets(f"a photo of {SHAPES[shape]} on a beach")
    assert CANARY[:12] not in said
    assert "CANARY" not in said
    assert said.startswith("a photo of ")
    assert said.endswith(" on a beach")
    assert REDACTED in said
    assert without_secrets(said) == said


@pytest.mark.parametrize("name", NAMES)
def test_every_name_hides_its_value(name):
    assert redacted({name: "anything", "nested": {name: "anything"}}) == {name: REDACTED, "nested": {name: REDACTED}}
    assert redacted({name: {"inner": ["anything", 3]}}) == {name: {"inner": [REDACTED, 3]}}


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text
    assert redacted({"prompt": text, "tokenizer": text, "max_tokens": 77, "key": text}) == {
        "prompt": text,
        "tokenizer": text,
        "max_tokens": 77,
        "key": text,
    }


@pytest.mark.slow
def test_long_texts_take_linear_time():
    """Regular expressions can take the square of the length, which would be minutes here."""
    for unit in ("word ", "a", "token", "-", "https://", "eyJ.", "key=", "A", "sk-", "a.", "eyJ"):
        text = unit * (100_000 // len(unit))
        start = time.process_time()
        without_secrets(text)
        assert time.process_time() - start < 20, unit


@pytest.mark.slow
def test_no_file_of_an_own_loop_holds_one(pipeline, tmp_path, monkeypatch):
    secret = " and ".join(SHAPES.values())
    monkeypatch.setenv("HF_TOKEN", f"hf_{CANARY}")
    monkeypatch.setenv("MY_PASSWORD", CANARY)
    monkeypatch.setattr("sys.argv", ["loop.py", "--token", CANARY])
    grid = PromptGrid(
        [f"a photo of sks person {secret}", "another"],
        seeds=(0,),
        steps=1,
        size=(32, 32),
        negative_prompt=secret,
        probe_prompts=[f"a person {secret}"],
        images_per_probe=1,
    )
    hparams = {"data.instance_prompt": secret, "note": secret, "hub.token": CANARY, "list": [secret, {"pwd": CANARY}]}
    sinks = [TensorBoardSink(), WandbSink("offline", notes=secret, tags=["a"]), ReportPage()]
    monitor = FinetuneMonitor(
        add_lora(pipeline),
        grid,
        [Scripted([0.1, 0.5])],
        tmp_path / "run",
        every=1,
        sinks=sinks,
        hparams=hparams,
        config_yaml=f"note: {json.dumps(secret)}\nhub: {{token: {CANARY}}}\n",
    ).start()
    monitor.on_step_end(1)
    monitor.close()
    assert main(["report", str(tmp_path / "run"), "-o", str(tmp_path / "page")]) == 0
    assert holds_canary(tmp_path) == []
    history = read_run(tmp_path / "run")
    assert REDACTED in history.evaluations[-1].images[0].cell.prompt
    assert REDACTED in history.grid.prompts[0]
    png = next((tmp_path / "run/images").rglob("p00-*.png"))
    with Image.open(png) as image:
        assert REDACTED in image.text["finetune_monitor.prompt"]


def test_the_search_finds_a_canary(tmp_path):
    (tmp_path / "file").write_text(f"x {CANARY}")
    assert holds_canary(tmp_path) == ["file"]


@pytest.mark.slow
def test_a_run_with_a_secret_in_a_prompt_resumes_and_says_why_it_cannot_be_rendered(pipeline, tmp_path, capsys):
    grid = PromptGrid([f"a photo {SHAPES['hf_']}"], seeds=(0,), steps=1, size=(32, 32))
    FinetuneMonitor(pipeline, grid, [Scripted([0.1])], tmp_path / "run", every=1).start().close()
    resumed = FinetuneMonitor(pipeline, grid, [Scripted([0.5])], tmp_path / "run", every=1, resume_step=0)
    resumed.on_step_end(1)
    resumed.close()
    assert main(["render", str(tmp_path / "run"), "--step", "0", "--cell", "p00-s0"]) == 2
    assert "secrets were removed from its prompts" in capsys.readouterr().err


@pytest.mark.slow
def test_no_file_of_a_training_holds_one_and_it_resumes(write_config, tmp_path):
    secret = SHAPES["ghp_"]
    overrides = [
        f"output_dir={tmp_path / 'run'}",
        f"data.instance_prompt=a photo of sks person {secret}",
        f"monitor.grid.prompts=[a photo of sks person {secret}]",
        f"monitor.grid.negative_prompt={secret}",
    ]
    for steps in (2, 4):
        assert run(load_config(write_config(), [*overrides, f"train.max_steps={steps}"])) == 0
    assert (tmp_path / "run/checkpoints").is_dir()
    assert holds_canary(tmp_path / "run") == []
