"""Commands and webhooks in a config: checked before training, told of a run, and recorded without their secret."""

import sys

import pytest
import yaml

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.redaction import hidden_address, redacted, without_secrets
from finetune_monitor.cli import main
from finetune_monitor.monitor.hooks.webhook import Webhook
from finetune_monitor.training.config import load_config, recorded_config
from finetune_monitor.training.run import run
from support.hooked import receiving

SECRET = "S3CRET"


@pytest.mark.slow
def test_a_run_tells_its_webhook_and_keeps_its_address_to_itself(write_config, run_folder, capfd, caplog):
    with receiving(200) as server:
        hooks = f"monitor.hooks=[{{hook: webhook, url: {server.url!r}, events: [end]}}]"
        changes = ["train.max_steps=3", "monitor.sinks={tensorboard: {}, wandb: {}, report: {}}", hooks]
        config = load_config(write_config(), changes)
        assert run(config) == 0
        assert run(load_config(write_config(), [*changes, "train.max_steps=4"])) == 0  # reads what was recorded
    assert [event["event"] for event in server.received] == ["end", "end"]
    files = [path for path in run_folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err + caplog.text
    recorded, unknown = recorded_config(run_folder / "config.yaml")
    assert unknown == []
    assert recorded.monitor.made_hooks == []
    content = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert content["monitor"]["hooks"][0]["url"] == f"http://127.0.0.1:{server.server_port}/<redacted>"
    with pytest.raises(UserError, match="as records have it; write the complete address"):
        load_config(run_folder / "config.yaml")


def test_hooks_of_all_kinds_are_made(write_config):
    command = f"{{hook: command, run: [{sys.executable}, -V], timeout: 3}}"
    hooks = f"monitor.hooks=[{{hook: webhook, url: https://x.org/S3CRET}}, {command}]"
    config = load_config(write_config(), [hooks])
    first, second = config.monitor.made_hooks
    assert (first.url, list(first.events), first.timeout) == ("https://x.org/S3CRET", ["alarm", "best", "end"], 10.0)
    assert (list(second.run), second.timeout) == ([sys.executable, "-V"], 3.0)


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        (
            "[{hook: webhok}]",
            "monitor.hooks.0: found 'webhok', expected module:name, or a section with hook: command",
        ),
        ("[{url: https://x.org/S3CRET}]", "monitor.hooks.0: found None, expected module:name"),
        ("[7]", "monitor.hooks.0: found 7"),
        ("[{hook: webhook}]", "monitor.hooks.0.url"),
        ("[{hook: webhook, url: x.org/S3CRET}]", "expected an address such as https://example.org/hook"),
        ("[{hook: webhook, url: https://x.org/S3CRET, on: [end]}]", "monitor.hooks.0"),
        ("[{hook: webhook, url: https://x.org/S3CRET, events: [ends]}]", "monitor.hooks.0.events.0"),
        ("[{hook: webhook, url: https://x.org/S3CRET, timeout: -1}]", "timeout: found -1"),
        ("[{hook: command, run: []}]", "expected a list: a program and its arguments"),
        ("[{hook: command, run: [no-such-program]}]", "found no program 'no-such-program'"),
    ],
)
def test_a_hook_that_cannot_be_is_said_before_training(hooks, said, write_config, capsys):
    assert main(["train", "--config", str(write_config()), f"monitor.hooks={hooks}"]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert "https://x.org/S3CRET" not in found


def test_an_address_is_hidden_wherever_it_stands():
    url = "https://discord.com/api/webhooks/1/S3CRET?wait=true#x"
    hidden = "https://discord.com/<redacted>"
    assert hidden_address(url) == hidden
    assert redacted({"hooks": [{"hook": "webhook", "url": url}]}) == {"hooks": [{"hook": "webhook", "url": hidden}]}
    for text in (f"url: {url}", f"[{{'hook': 'webhook', 'url': '{url}', 'timeout': 1}}]", f"monitor.hooks.0.url={url}"):
        assert "S3CRET" not in without_secrets(text)
    assert hidden_address("https://user:pass@x.org/a") == "https://<redacted>@x.org/<redacted>"
    assert hidden_address("https://x.org") == "https://x.org"
    assert without_secrets("see https://x.org/docs") == "see https://x.org/docs"
    assert "S3CRET" not in repr(Webhook("https://x.org/S3CRET"))
