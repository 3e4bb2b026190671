import zipfile

import pytest
import torch

from sdn.errors import UserError
from sdn.fitting.data import load
from sdn.lif import lif_reference


def rewrite(path, **changed):
    """Save the file again with some entries changed; a function is applied to the old value."""
    content = torch.load(path, weights_only=True)
    for name, value in changed.items():
        content[name] = value(content[name]) if callable(value) else value
    torch.save(content, path)
    return path


def with_nan(x):
    x[3, 4] = float("nan")
    return x


def with_infinity(x):
    x[3, 4] = float("inf")
    return x


#: what is done to a good file -> words of the one sentence it must bring
BROKEN = {
    "missing": (lambda p: p.unlink(), "does not exist"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "is a folder"),
    "empty": (lambda p: p.write_bytes(b""), "truncated, damaged"),
    **{
        f"cut by {n}": (lambda p, n=n: p.write_bytes(p.read_bytes()[:-n]), "truncated, damaged")
        for n in (1, 30, 5000, 17000)
    },
    "text": (lambda p: p.write_text("not a data set"), "truncated, damaged"),
    "other zip": (lambda p: zipfile.ZipFile(p, "w").close(), "truncated, damaged"),
    "code inside": (lambda p: torch.save({"input": print}, p), "truncated, damaged"),
    "foreign": (lambda p: torch.save({"weight": torch.ones(3)}, p), "not a data set"),
    "no dict": (lambda p: torch.save(torch.ones(3), p), "not a data set"),
    "no header": (lambda p: rewrite(p, header=None), "not a data set"),
    "newer": (lambda p: rewrite(p, header=lambda h: h | {"version": 99}), "version 99"),
    "no tau": (lambda p: rewrite(p, header=lambda h: h | {"tau": None}), "no tau"),
    "tau 2": (lambda p: rewrite(p, header=lambda h: h | {"tau": 2.0}), "between 0 and 1"),
    "false tau": (lambda p: rewrite(p, header=lambda h: h | {"tau": 0.3}), "not those of a neuron with tau 0.3"),
    "no mem": (lambda p: rewrite(p, mem=None), "no tensor 'mem'"),
    "shape": (lambda p: rewrite(p, mem=lambda x: x[:, 1:]), "mem .* has shape"),
    "one axis": (lambda p: rewrite(p, input=lambda x: x[0]), "input .* has shape"),
    "no rows": (lambda p: rewrite(p, input=lambda x: x[:0]), "input .* has shape"),
    "double": (lambda p: rewrite(p, input=lambda x: x.double()), "is torch.float64"),
    "int spikes": (lambda p: rewrite(p, spike=lambda x: x.int()), "is torch.int32"),
    "NaN input": (lambda p: rewrite(p, input=with_nan), "input .* NaN"),
    "infinite mem": (lambda p: rewrite(p, mem=with_infinity), "mem .* NaN or infinite"),
    "spike 2": (lambda p: rewrite(p, spike=lambda x: x + 1), "other than 0 and 1"),
    "false spikes": (lambda p: rewrite(p, spike=lambda x: 1 - x), "not those of a neuron"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_file_brings_one_sentence(data_file, how):
    path = data_file()
    breaks, words = BROKEN[how]
    breaks(path)
    with pytest.raises(UserError, match=words) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_loads_as_documented(data_file):
    path = data_file(number=30, timestep=40, tau=0.125)
    content = torch.load(path, weights_only=True, mmap=True)
    assert list(content) == ["input", "mem", "spike", "header"]
    for name, dtype in (("input", torch.float32), ("mem", torch.float32), ("spike", torch.uint8)):
        value = content[name]
        assert value.shape == (30, 40)
        assert value.dtype == dtype
        assert value.is_contiguous()
        assert value.data_ptr() % 64 == 0
    assert content["header"]["tau"] == 0.125
    data = load(path, tau=0.125)
    assert len(data) == 30
    mem, spike, _ = lif_reference(data.input, 0.125)
    assert torch.equal(mem, data.mem)
    assert torch.equal(spike, data.spike.float())


def test_file_is_a_sound_zip_and_its_checksums_tell_data_apart(data_file):
    one, two = data_file(), data_file("test")
    assert zipfile.ZipFile(one).testzip() is None
    assert load(one).fingerprint() == load(one).fingerprint()
    assert load(one).fingerprint() != load(two).fingerprint()


def test_another_tau_is_refused(data_file):
    with pytest.raises(UserError, match=r"tau 0.2, not 0.125"):
        load(data_file(tau=0.2), tau=0.125)


def test_what_torch_saved_loads_too(data_file):
    path = data_file()
    before = load(path).mem.clone()
    rewrite(path)
    assert torch.equal(load(path).mem, before)


def test_a_changed_number_is_noticed_wherever_it_stands(data_file):
    path = data_file()
    last = load(path).mem[-1, -4:].numpy().tobytes()
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(last)] ^= 1  # the lowest bit of one potential
    path.write_bytes(raw)
    with pytest.raises(UserError, match="not what was written"):
        load(path)
