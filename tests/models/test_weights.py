"""Weights come from a cache or a checked download; what is missing or wrong is an error in seconds, in plain words."""

import hashlib
import http.server
import json
import pickle
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from safetensors.torch import save_file

from finetune_monitor.base.errors import UserError
from finetune_monitor.models import weights
from finetune_monitor.models.clip import resolve_clip
from finetune_monitor.models.diffusers_hub import resolve_hub_model
from finetune_monitor.models.weights import PublishedFile, find_weights, read_state_dict

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT in good and bad ways, and a hub that knows one model."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self.send_response(200 if self.path == "/api/models/owner/known" else 404)
            self.end_headers()
            return
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write({"/cut": CONTENT[:1000], "/other": CONTENT[::-1]}.get(self.path, CONTENT))

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Empty caches, and no hub."""
    monkeypatch.setenv("FINETUNE_MONITOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOWHERE)
    return tmp_path / "cache"


def source(url: str, digest: str | None = DIGEST) -> PublishedFile:
    return PublishedFile("some.pt", url, "the weights of the test", digest)


def test_a_download_is_checked_kept_and_not_repeated(server, cache):
    assert find_weights(source(f"{server}/good")) == cache / "some.pt"
    assert (cache / "some.pt").read_bytes() == CONTENT
    assert find_weights(source(f"{NOWHERE}/good")) == cache / "some.pt"
    assert [path.name for path in cache.iterdir()] == ["some.pt"]


@pytest.mark.parametrize(
    ("path", "digest", "reason"),
    [
        ("/cut", DIGEST, "ended after 1000 of 102400 bytes"),
        ("/cut", None, "ended after 1000 of 102400 bytes"),
        ("/other", DIGEST, f"expected {DIGEST}"),
        ("/gone", DIGEST, "404"),
    ],
)
def test_a_bad_download_is_an_error_and_leaves_nothing(server, cache, path, digest, reason):
    with pytest.raises(UserError, match=reason):
        find_weights(source(server + path, digest))
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_failure_to_write_leaves_nothing(server, cache, monkeypatch):
    monkeypatch.setattr(weights, "fsync", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left"):
        find_weights(source(f"{server}/good"))
    assert list(cache.iterdir()) == []


def test_without_a_hash_the_length_is_checked_and_the_file_taken(server, cache):
    assert find_weights(source(f"{server}/good", None)).read_bytes() == CONTENT


def test_without_a_network_the_error_comes_at_once_and_says_what_to_do(cache):
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        find_weights(source(f"{NOWHERE}/some.pt"))
    assert time.monotonic() - began < weights.PROBE_SECONDS + 1
    for part in ("the weights of the test", f"{NOWHERE}/some.pt", f"put it at: {cache / 'some.pt'}", DIGEST):
        assert part in str(caught.value)


@pytest.mark.slow
def test_a_server_that_is_silent_does_not_hold_up(monkeypatch):
    """Such as one whose name is being looked up, for which there is no time limit."""
    over = threading.Event()

    def silent(*request, **options):
        over.wait(60)
        raise OSError("no such host")

    monkeypatch.setattr(weights, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr("urllib.request.urlopen", silent)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"no answer within 0\.5 s"):
        find_weights(source("http://silent.invalid/some.pt"))
    assert time.monotonic() - began < 2
    over.set()


@pytest.mark.parametrize("folder", ["cache", "torch/checkpoints"])
def test_what_facenet_has_downloaded_is_used(tmp_path, folder):
    pinned = replace(source(f"{NOWHERE}/some.pt"), torch_cache=True)
    file = tmp_path / folder / "some.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert find_weights(pinned) == file
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=rf"{file}: not the weights of the test: found sha256 .* delete it"):
        find_weights(pinned)


def test_cache_folders_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("FINETUNE_MONITOR_CACHE")
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "finetune_monitor"
    assert weights.torch_checkpoints() == tmp_path / "torch/checkpoints"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.cache_folder() == Path.home() / ".cache/finetune_monitor"


def test_addresses_of_the_published_files():
    from facenet_pytorch.models import inception_resnet_v1

    library = Path(inception_resnet_v1.__file__).read_text()
    assert all(weights.RECOGNIZERS[name].url in library for name in ("vggface2", "casia-webface"))


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state.pth", "state.safetensors"])
def test_a_state_dict_is_read(tmp_path, name):
    state = {"weight": torch.arange(4.0)}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    assert torch.equal(read_state_dict(tmp_path / name)["weight"], state["weight"])


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_code_in_a_pickle_does_not_run(tmp_path):
    marker = tmp_path / "it ran"
    torch.save({"weight": torch.zeros(2), "extra": Payload(marker)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload(marker)))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(UserError, match=f"{name}: refused"):
            read_state_dict(tmp_path / name)
    assert not marker.exists()
    torch.load(tmp_path / "zip.pth", weights_only=False)
    assert marker.exists()  # the payload works where code is allowed


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "list.pth", "nested.pth"])
def test_damaged_and_other_files_are_refused_by_name(tmp_path, name):
    file = tmp_path / name
    state = {"weight": torch.zeros(1000)}
    if name.startswith("cut"):
        (save_file if name.endswith("safetensors") else torch.save)(state, file)
        file.write_bytes(file.read_bytes()[:500])
    elif name.startswith("empty"):
        file.touch()
    else:
        torch.save([1] if name.startswith("list") else {"state_dict": state}, file)
    with pytest.raises(UserError, match=name):
        read_state_dict(file)


# --- models in diffusers layout -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory) -> Path:
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = UNet2DModel(8, norm_num_groups=4, **blocks)
    folder = tmp_path_factory.mktemp("model")
    DDIMPipeline(unet, DDIMScheduler()).save_pretrained(folder)
    return folder


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def test_a_complete_folder_loads(saved_model):
    found = resolve_hub_model(saved_model)
    assert found == saved_model
    assert isinstance(DDIMPipeline.from_pretrained(found).unet, UNet2DModel)


@pytest.mark.parametrize(
    "missing",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ],
)
def test_an_incomplete_folder_is_refused(saved_model, tmp_path, missing):
    folder = copy(saved_model, tmp_path / "model")
    (folder / missing).unlink()
    named = missing if not missing.endswith("safetensors") else "unet/weights"
    with pytest.raises(UserError, match=f"missing or damaged: {named}"):
        resolve_hub_model(str(folder))


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_index_is_refused(saved_model, tmp_path, content):
    folder = copy(saved_model, tmp_path / "model")
    (folder / "model_index.json").write_text(content)
    with pytest.raises(UserError, match=r"missing or damaged: model_index\.json"):
        resolve_hub_model(folder)


def test_a_missing_shard_is_named(saved_model, tmp_path):
    folder = copy(saved_model, tmp_path / "model")
    index = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "second.safetensors"}}
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"missing or damaged: unet/second\.safetensors$"):
        resolve_hub_model(folder)


def test_the_safety_checker_may_be_missing(saved_model, tmp_path):
    folder = copy(saved_model, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert resolve_hub_model(folder) == folder


def in_hub_cache(folder: Path, repository: str, tmp_path: Path) -> Path:
    """Lay a folder out as the Hugging Face cache does."""
    place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("0123abc")
    return copy(folder, place / "snapshots/0123abc")


def test_a_cached_model_needs_no_hub(saved_model, tmp_path):
    snapshot = in_hub_cache(saved_model, "owner/cached", tmp_path)
    assert resolve_hub_model("owner/cached") == snapshot
    (snapshot / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"where unet/weights .* is missing(?s:.*)hf download owner/cached"):
        resolve_hub_model("owner/cached")


def test_a_revision_is_found_in_the_cache(saved_model, tmp_path):
    place = in_hub_cache(saved_model, "owner/cached", tmp_path).parent
    (place.parent / "refs/v2").write_text("4567def")
    other = copy(saved_model, place / "4567def")
    assert resolve_hub_model("owner/cached", "v2") == resolve_hub_model("owner/cached", "4567def") == other
    with pytest.raises(UserError, match="owner/cached: the model is required"):
        resolve_hub_model("owner/cached", "v3")


def test_a_model_on_the_hub_is_left_to_from_pretrained(server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server)
    assert resolve_hub_model("owner/known") == "owner/known"
    with pytest.raises(UserError, match="no such model, or it is private"):
        resolve_hub_model("owner/unknown")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        resolve_hub_model("owner/known")


def test_an_unreachable_hub_is_an_error_in_seconds():
    began = time.monotonic()
    with pytest.raises(UserError, match=r"owner/model: the model is required(?s:.*)hf download owner/model"):
        resolve_hub_model("owner/model")
    assert time.monotonic() - began < weights.PROBE_SECONDS + 1


def test_what_is_neither_folder_nor_id_is_refused(tmp_path):
    (tmp_path / "model.safetensors").touch()
    for name, reason in [("runs/a/b", "no such folder"), (tmp_path / "model.safetensors", "from_single_file")]:
        with pytest.raises(UserError, match=reason):
            resolve_hub_model(name)


@pytest.mark.slow
def test_a_token_is_sent_to_the_hub_alone(server, monkeypatch):
    seen = {}

    class Recording(Handler):
        def do_GET(self) -> None:
            seen["hub"] = self.headers.get("Authorization")
            self.send_response(302)
            self.send_header("Location", f"{server}/elsewhere")
            self.end_headers()

    original = Handler.do_GET
    monkeypatch.setattr(
        Handler,
        "do_GET",
        lambda handler: (seen.update(other=handler.headers.get("Authorization")), original(handler))[1],
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recording) as hub:
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
        resolve_hub_model("owner/moved")
        hub.shutdown()
    assert seen == {"hub": "Bearer secret", "other": None}


# --- CLIP ---------------------------------------------------------------------------------------------------------


def cached_clip(tmp_path: Path, repository: str, name: str) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / name).touch()
    return in_hub_cache(folder, repository, tmp_path) / name


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_cached_clip_weights_are_named_by_file(tmp_path, name):
    file = cached_clip(tmp_path, "timm/vit_large_patch14_clip_224.openai", name)
    found = resolve_clip("ViT-L-14-quickgelu", "openai")
    assert (found.id, found.tag, found.file) == ("ViT-L-14-quickgelu/openai", "openai", file)
    assert found.arguments["pretrained"] == str(file)


def test_preprocessing_is_that_of_the_weights(tmp_path):
    cached_clip(tmp_path, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "open_clip_model.safetensors")
    assert resolve_clip("ViT-L-14", "laion2b_s32b_b82k").arguments["image_mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("clip", "tag", "reason"),
    [
        ("ViT-L-14", "openai", "openai need QuickGELU, which ViT-L-14 lacks; use ViT-L-14-quickgelu"),
        ("ViT-B-32", "laion400m_e32", "use ViT-B-32-quickgelu"),
        ("ViT-L-14-quickgelu", "laion2b_s32b_b82k", "laion2b_s32b_b82k belongs to clip: ViT-L-14$"),
        ("ViT-L-14-quickgelu", "openia", "found 'openia', expected for ViT-L-14-quickgelu one of openai,"),
        ("ViT-L-14-quickgelu", None, "found None"),
        ("ViT-L-14-quikgelu", "openai", "did you mean ViT-L-14-quickgelu"),
        ("ViT-B-16", "laion2b_s34b_b88k", "hf download laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    ],
)
def test_a_wrong_or_missing_clip_is_refused(clip, tag, reason):
    with pytest.raises(UserError, match=reason):
        resolve_clip(clip, tag)


@pytest.mark.slow
def test_a_clip_folder(tmp_path):
    (tmp_path / "open_clip_config.json").touch()
    with pytest.raises(UserError, match=r"missing: open_clip_model\.safetensors"):
        resolve_clip(str(tmp_path), None)
    (tmp_path / "open_clip_model.safetensors").touch()
    found = resolve_clip(str(tmp_path), None)
    assert found.arguments == {"model_name": f"local-dir:{tmp_path}"}
    assert (found.id, found.tag) == (str(tmp_path), None)
