"""The file of a reduced SDN: a round trip keeps every bit, and whatever else lies there is refused in one sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdn import weights
from sdn.errors import UserError
from sdn.fitting.reduce import reduce
from sdn.network import SDN, ReducedSDN, reduced_shapes
from sdn.neurons import make_neuron
from sdn.weights import load_reduced, pretrained_taus, save_reduced


@pytest.fixture
def sdn():
    torch.manual_seed(0)
    return reduce(SDN(n_layers=2).eval(), 0.3, {"law": "N(0,1)", "seed": 3})


@pytest.fixture
def file(sdn, tmp_path):
    path = tmp_path / "sdn.safetensors"
    save_reduced(sdn, path)
    return path


def rewrite(path, tensors=None, **header):
    """The file again with another header or other tensors."""
    with weights.safe_open(path, "pt") as opened:
        before = opened.metadata()
    after = {key: value for key, value in (before | header).items() if value is not None}
    save_file(load_file(path) if tensors is None else tensors, path, after or None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_round_trip(sdn, tmp_path, dtype):
    path = tmp_path / "made" / "here.safetensors"
    sdn = sdn.to(dtype)
    save_reduced(sdn, path)
    again = load_reduced(str(path), tau=0.3)
    assert (again.tau, again.meta) == (sdn.tau, sdn.meta)
    assert all(torch.equal(a, b) for a, b in zip(sdn.buffers(), again.buffers(), strict=True))
    x = torch.randn(3, 20)
    assert torch.equal(sdn(x), again(x))


def test_header_says_which_neuron(file):
    with weights.safe_open(file, "pt") as opened:
        header = opened.metadata()
    assert header["format"] == "sdn-reduced"
    assert (header["tau"], header["kernel_size"], header["d_model"], header["n_layers"]) == ("0.3", "8", "8", "2")
    assert json.loads(header["meta"]) == {"law": "N(0,1)", "seed": 3}


def test_nothing_is_written_when_the_facts_are_not_plain(sdn, tmp_path):
    sdn.meta["tensor"] = torch.zeros(1)
    with pytest.raises(UserError, match="plain numbers"):
        save_reduced(sdn, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_reduced(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="is a folder; name the file"):
        load_reduced(tmp_path)
    with pytest.raises(UserError, match="is a folder; name the file"):  # an empty name is no wish for the default
        make_neuron("sdn", weights="")


@pytest.mark.parametrize(
    "content",
    [b"", b"not safetensors at all", b"\xff" * 64, b"PK\x03\x04" + bytes(100)],
    ids=["empty", "text", "ff", "zip"],
)
def test_foreign_files(tmp_path, content):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        load_reduced(path)


def test_a_torch_checkpoint_is_refused(tmp_path):
    torch.save({"model": SDN().state_dict()}, tmp_path / "last_checkpoint.pth")
    with pytest.raises(UserError, match=r"damaged or not a safetensors file.*train\.py"):
        load_reduced(tmp_path / "last_checkpoint.pth")


def test_truncated_file(file):
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        load_reduced(file)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "something"}, "not a reduced SDN"),
        ({"format": None}, "not a reduced SDN"),
        ({"version": "2"}, "format version 2"),
        ({"tau": "fast"}, "header.*damaged"),
        ({"tau": None}, "header.*damaged"),
        ({"tau": "1.5"}, "tau"),
        ({"meta": "{"}, "header.*damaged"),
        ({"meta": "3"}, "header.*damaged"),
    ],
    ids=str,
)
def test_wrong_headers(file, header, message):
    rewrite(file, **header)
    with pytest.raises(UserError, match=message):
        load_reduced(file)


def test_wrong_tensors(file):
    rewrite(file, load_file(file) | {"conv_weight": torch.full((8, 8), torch.nan)})
    with pytest.raises(UserError, match="NaN") as caught:
        load_reduced(file)
    assert str(file) in str(caught.value)


def test_wrong_tau(file):
    with pytest.raises(UserError, match=r"tau 0\.3, not 0\.2"):
        load_reduced(file, tau=0.2)


def test_unknown_pretrained_tau():
    with pytest.raises(UserError, match=r"tau 0\.31 .*shipped: 0\.125, 0\.2.*generate\.py --tau 0\.31"):
        load_reduced(0.31)
    with pytest.raises(UserError, match="between 0 and 1"):
        load_reduced(2)


def test_pretrained_refused_for_another_neuron():
    with pytest.raises(UserError, match=r"tau 0\.2, not 0\.125"):
        load_reduced(0.2, tau=0.125)


def test_every_shipped_file_has_a_card_and_no_more_weights_than_the_paper_s():
    assert pretrained_taus() == [0.125, 0.2]
    for tau, sizes in {0.125: (6, 4, 2), 0.2: (8, 8, 1)}.items():
        sdn = load_reduced(tau)
        assert isinstance(sdn, ReducedSDN)
        assert sdn.tau == tau
        assert sdn.n_weights() <= 153
        assert {n: tuple(b.shape) for n, b in sdn.named_buffers()} == reduced_shapes(*sizes)
        card = weights.pretrained_path(tau).with_suffix(".md").read_text(encoding="utf-8")
        assert sdn.meta["command"] in card


def test_any_changed_bit_of_the_file_is_refused(sdn, file):
    """In the header, the weights or the frame; where it is not, the network is the same."""
    raw = file.read_bytes()
    step = len(raw) * 8 // 300
    for place in range(0, len(raw) * 8, step):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        try:
            again = load_reduced(file)
        except UserError:
            continue
        assert (again.tau, again.meta) == (sdn.tau, sdn.meta)
        assert all(torch.equal(a, b) for a, b in zip(sdn.buffers(), again.buffers(), strict=True))
