import pytest
import torch


@pytest.fixture
def random_sdn():
    """Make neurons with an SDN of random weights."""
    from sdn.fitting.reduce import reduce
    from sdn.network import SDN
    from sdn.neurons import SDNNeuron

    def make(seed=0):
        torch.manual_seed(seed)
        return SDNNeuron(reduce(SDN().eval(), 0.125))

    return make
