"""Files as the released code makes them, made here by classes of our own in its layout; no code of theirs is run."""

import collections
import os
import pickle
import sys
import types
import zipfile

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sdn import load_reduced, make_neuron
from sdn.errors import UserError
from sdn.fitting import convert, data
from sdn.lif import lif_reference
from sdn.released import is_torchscript, read_checkpoint, read_network, tau_of
from sdn.weights import PRETRAINED


class PredModel(nn.Module):
    """Three convolutions, 72 + 72 + 9 numbers."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(1, 8, 8, padding=8)
        self.conv2 = nn.Conv1d(8, 8, 1)
        self.conv3 = nn.Conv1d(8, 1, 1)

    def forward(self, x):
        a = F.relu(self.conv1(x)[..., : x.shape[-1]])
        return self.conv3(F.relu(self.conv2(a) + a)).squeeze()


class Fitted(nn.Module):
    """Its network before the reduction; ``norm`` is a batch norm that has seen something."""

    def __init__(self, layers):
        super().__init__()
        self.encoder = nn.Conv1d(1, 4, 1, bias=False)
        self.spatial_layers, self.feature_layers = nn.ModuleList(), nn.ModuleList()
        for i in range(layers):
            self.spatial_layers.append(_normed(nn.Conv1d(4, 4, 5, padding=5 - (i > 0), groups=4)))
            self.feature_layers.append(_normed(nn.Conv1d(4, 4, 1)))
        self.decoder = nn.Conv1d(4, 1, 1)

    def forward(self, x):
        h = self.encoder(x)
        for spatial, feature in zip(self.spatial_layers, self.feature_layers, strict=True):
            h = F.relu(spatial(h)[..., : x.shape[-1]])
            h = F.relu(feature(h) + h)
        return self.decoder(h)


def _normed(conv):
    norm = nn.BatchNorm1d(4)
    norm.running_mean.uniform_(-0.2, 0.2)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return nn.Sequential(conv, norm)


@pytest.fixture
def network(tmp_path):
    """A TorchScript file in the released layout, and the module it is of."""
    torch.manual_seed(0)
    model = PredModel()
    path = tmp_path / "released_125.pkl"
    torch.jit.trace(model.eval(), torch.randn(3, 1, 20)).save(str(path))
    return path, model


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """``write(layers) -> (path, module)``: a checkpoint with an object of a class ``utils.MetricsCheckpoint``."""
    utils = types.ModuleType("utils")
    utils.MetricsCheckpoint = type(
        "MetricsCheckpoint",
        (),
        {"__module__": "utils", "__init__": lambda self, **data: self.__dict__.update(key=None, data=data)},
    )

    def write(layers=1):
        torch.manual_seed(layers)
        model = Fitted(layers).eval()
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "utils", utils)
            content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}
            content["metrics"] = utils.MetricsCheckpoint(loss=0.5, acc1=0.99)
            content["test_metrics"] = utils.MetricsCheckpoint(loss=0.25)
            path = tmp_path / f"best_checkpoint{layers}.pth"
            torch.save(content, path)
        return path, model

    return write


def test_the_six_tensors_give_equal_spikes(network):
    path, model = network
    sdn = read_network(path)
    assert (sdn.tau, sdn.n_weights()) == (0.125, 153)
    x = torch.randn(50, 1, 300, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mem = model(x)
        torch.testing.assert_close(sdn(x[:, 0]), mem, rtol=0, atol=2e-6)
    spikes = make_neuron("sdn", 0.125, weights=str(path))(x[:, 0])
    assert 0.02 < float(spikes.mean()) < 0.9
    assert torch.equal(spikes, (mem + x[:, 0] - 1 >= 0).to(spikes))


def test_a_layer_takes_the_released_file_as_its_sdn(network):
    from models.spike.ssm import SpikingSSM

    model = SpikingSSM(8, 1, layer={"neuron": "sdn", "sdn": str(network[0]), "d_state": 4})
    assert model(torch.randn(2, 16, 8))[0].shape == (2, 16, 8)


def test_one_command_converts_it(network, tmp_path, capsys):
    path, model = network
    out = tmp_path / "sdn.safetensors"
    assert convert.main([str(path), str(out)]) == 0
    said = capsys.readouterr().out
    assert "153 weights for tau 0.125" in said
    assert "is tau right?" in said  # these weights are random
    sdn = load_reduced(out, 0.125)
    x = torch.randn(4, 100)
    torch.testing.assert_close(sdn(x), model(x[:, None]).detach(), rtol=0, atol=2e-6)
    assert sdn.meta["source"] == "released network released_125.pkl"


def test_tau_comes_from_the_name_or_the_user(network, tmp_path):
    path, _ = network
    assert tau_of("mem_pred(x)_125.pkl") == 0.125
    assert tau_of("training-mem-T1024-N(0,1.0)-5000-tau_0.2.pt") == 0.2
    assert tau_of("best_checkpoint.pth") is None
    nameless = path.rename(tmp_path / "network.pkl")
    with pytest.raises(UserError, match="nothing tells for which tau"):
        read_network(nameless)
    assert read_network(nameless, 0.125).tau == 0.125
    assert load_reduced(nameless, 0.125).tau == 0.125
    with pytest.raises(UserError, match=r"by its name for tau 0.125, not 0.2"):
        read_network(nameless.rename(path), 0.2)


def test_a_good_network_is_not_doubted():
    assert convert._doubt(convert.judge(load_reduced(0.125))) == ""


@pytest.mark.parametrize("layers", [1, 2])
def test_a_checkpoint_becomes_its_reduced_network(checkpoint, tmp_path, layers):
    path, model = checkpoint(layers)
    assert "utils" not in sys.modules
    state, facts = read_checkpoint(path)
    assert facts == {"epoch": 7, "val_loss": 0.5, "val_acc1": 0.99, "test_loss": 0.25}
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    out = tmp_path / "sdn.safetensors"
    assert convert.main([str(path), str(out), "--tau", "0.2"]) == 0
    sdn = load_reduced(out)
    x = torch.randn(6, 80)
    torch.testing.assert_close(sdn(x), model(x[:, None])[:, 0].detach(), rtol=1e-5, atol=1e-5)
    assert (sdn.tau, sdn.n_layers, sdn.meta["epoch"]) == (0.2, layers, 7)
    with pytest.raises(UserError, match=r"python -m sdn\.convert"):
        load_reduced(path)


def test_a_data_set_of_transposed_int32_becomes_ours(tmp_path):
    current = torch.randn(64, 30)  # time first, as it was simulated
    mem, spike, _ = lif_reference(current.T.contiguous(), 0.2)
    content = {"input": current.T, "mem": mem.T.contiguous().T, "spike": spike.int().T.contiguous().T}
    path = tmp_path / "training-mem-T64-N(0.0,1.0)-30-tau_0.2.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match="not a data set of simulated neurons"):
        data.load(path)
    out = tmp_path / "ours.pt"
    assert convert.main([str(path), str(out)]) == 0
    ours = data.load(out, tau=0.2)
    for name in content:
        assert torch.equal(getattr(ours, name), content[name].to(data.DTYPES[name])), name
        assert getattr(ours, name).is_contiguous()
    assert (ours.header["law"], ours.header["mean"], ours.header["std"]) == ("white", 0.0, 1.0)
    assert torch.load(out, weights_only=True)["input"].is_contiguous()


def test_data_of_another_tau_or_shape_are_refused(tmp_path, capsys):
    current = torch.randn(10, 64)
    mem, spike, _ = lif_reference(current, 0.2)
    path = tmp_path / "data.pt"
    torch.save({"input": current, "mem": mem, "spike": spike.int()}, path)
    for arguments, sentence in (
        ([], "nothing tells for which tau"),
        (["--tau", "0.5"], "not those of a neuron with tau 0.5"),
        (["--tau", "1.5"], "tau"),
    ):
        assert convert.main([str(path), str(tmp_path / "out.pt"), *arguments]) == 2
        assert sentence in capsys.readouterr().err
    assert convert.main([str(path), str(tmp_path / "out.safetensors"), "--tau", "0.2"]) == 2
    assert "is written as .pt" in capsys.readouterr().err
    assert list(tmp_path.glob("out*")) == []


class Payload:
    """An object that would run a command of the attacker's when unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("kind", ["network", "checkpoint"])
def test_no_code_of_a_file_is_run(tmp_path, network, kind):
    mark, path = tmp_path / "mark", tmp_path / "evil_125.pkl"
    torch.save({"model": collections.OrderedDict(), "metrics": Payload(mark)}, path)
    if kind == "network":  # the same pickle within an archive that looks like TorchScript
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("archive/code/__torch__.py", "")
        assert is_torchscript(path)
    with pytest.raises(UserError, match=r"names posix.system|names nt.system"):
        (read_network if kind == "network" else read_checkpoint)(path)
    assert not mark.exists()


@pytest.mark.parametrize("what", ["cut", "flipped", "text", "ours", "other", "missing", "storage"])
def test_bad_files_are_one_sentence(network, tmp_path, what):
    path, _ = network
    raw = path.read_bytes()
    if what == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif what == "flipped":
        at = raw.index(b"_rebuild_tensor_v2")
        path.write_bytes(raw[:at] + b"X" + raw[at + 1 :])
    elif what == "text":
        path.write_text("no network")
    elif what == "ours":
        path = PRETRAINED / "tau_0.125.safetensors"
    elif what == "other":
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    elif what == "missing":
        path.unlink()
    else:
        _rewrite(path, "data/0", lambda content: content[:-4])
    with pytest.raises(UserError):
        read_network(path)
    with pytest.raises(UserError):
        read_checkpoint(path)


def _rewrite(path, ending, change):
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, change(content) if name.endswith(ending) else content)


def test_a_tensor_cannot_reach_beyond_its_storage(network):
    path, _ = network

    def lie(content):
        return content.replace(b"K\x08K\x01K\x08t", b"K\x08K\x01K\x7ft", 1)  # 8 x 1 x 127 numbers of 64

    _rewrite(path, "/data.pkl", lie)
    with pytest.raises(UserError, match="beyond its storage"):
        read_network(path)


def test_pickles_that_are_no_objects(tmp_path):
    path = tmp_path / "x_125.pkl"
    for content in (pickle.dumps(3), pickle.dumps({"model": 3}), b"", b"\x80\x02"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", content)
            archive.writestr("x/code/y.py", "")
        with pytest.raises(UserError):
            read_network(path)
        with pytest.raises(UserError):
            read_checkpoint(path)
