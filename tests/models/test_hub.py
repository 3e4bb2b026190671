"""A network goes to a folder or to the hub and comes back the same; the hub is played by folders."""

import inspect
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models.spike.hub import CARD, FILE
from models.spike.network import Network
from sdn.errors import UserError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network(
        {
            "model": {"d_model": 8, "n_layers": 1, "layer": {"d_state": 4}},
            "encoder": {"kind": "linear", "d_input": 1},
            "decoder": {"kind": "sequence", "d_output": 3},
            "facts": {"dataset": "pulses", "accuracy": 0.5, "note": "a|b", "classes": ["x", "y", "z"]},
        }
    ).eval()


def _same(one: Network, other: Network) -> bool:
    x = torch.randn(2, 9, 1)
    return torch.equal(one(x), other(x)) and one.spec == other.spec


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """huggingface_hub with repositories in ``tmp_path/hub``; every call must fit the real one's signature."""
    real = pytest.importorskip("huggingface_hub")
    address, absent = real.RepoUrl, real.errors.EntryNotFoundError  # imported at first use, so before the patch
    api, fetch = real.HfApi, real.hf_hub_download
    root = tmp_path / "hub"

    class Api:
        def __init__(self, **options):
            inspect.signature(api).bind(**options)

        def create_repo(self, repo_id, **options):
            inspect.signature(api.create_repo).bind(self, repo_id, **options)
            (root / repo_id).mkdir(parents=True, exist_ok=True)
            return address(f"https://huggingface.co/{repo_id}")

        def file_exists(self, repo_id, name, **options):
            inspect.signature(api.file_exists).bind(self, repo_id, name, **options)
            return (root / repo_id / name).is_file()

        def upload_folder(self, **options):
            inspect.signature(api.upload_folder).bind(self, **options)
            if options["repo_id"].startswith("full/"):
                raise OSError("the disk of the hub is full\nsecond line")
            for file in Path(options["folder_path"]).iterdir():
                if file.name not in (options["ignore_patterns"] or ()):
                    shutil.copy(file, root / options["repo_id"])

    def download(repo_id, filename, **options):
        inspect.signature(fetch).bind(repo_id, filename, **options)
        if not (root / repo_id / filename).is_file():
            raise absent(f"404: {repo_id}")
        return str(root / repo_id / filename)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Api, hf_hub_download=download))
    return root


def test_a_folder_and_back(network, tmp_path):
    network.save_pretrained(tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {FILE, CARD}
    assert _same(network, Network.from_pretrained(tmp_path / "mine"))
    text = (tmp_path / "mine" / CARD).read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: spikingssm\n")
    assert "| accuracy | 0.5 |" in text
    assert "a\\|b" in text
    (tmp_path / "mine" / CARD).write_text("my own words")
    network.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / CARD).read_text() == "my own words"


def test_the_hub_and_back(network, hub):
    assert network.push_to_hub("me/pulses", private=True) == "https://huggingface.co/me/pulses"
    assert _same(network, Network.from_pretrained("me/pulses", revision="main"))
    (hub / "me/pulses" / CARD).write_text("my own words")
    network.push_to_hub("me/pulses")
    assert (hub / "me/pulses" / CARD).read_text() == "my own words"


def test_what_goes_wrong_is_one_sentence(network, hub, tmp_path):
    with pytest.raises(UserError, match=r"no folder me/none, and .* cannot be had: 404"):
        Network.from_pretrained("me/none")
    with pytest.raises(
        UserError, match=r"^the network cannot be pushed to the hub's full/x: the disk of the hub is full$"
    ):
        network.push_to_hub("full/x")
    with pytest.raises(UserError, match="no network file"):
        Network.from_pretrained(tmp_path)


def test_a_file_of_the_hub_is_never_unpickled(hub):
    (hub / "bad/one").mkdir(parents=True)
    torch.save({"weights": torch.zeros(2)}, hub / "bad/one" / FILE)
    with pytest.raises(UserError, match="safetensors"):
        Network.from_pretrained("bad/one")


def test_a_file_of_the_hub_may_not_name_classes(network, hub):
    network.spec["model"]["layer"]["neuron"] = {"_name_": "os.path.Mine"}
    network.push_to_hub("bad/two")
    with pytest.raises(UserError, match=r"os\.path\.Mine"):
        Network.from_pretrained("bad/two")


def test_without_the_package(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        Network.from_pretrained("me/pulses")
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        network.push_to_hub("me/pulses")
