"""The pretended GPUs refuse what CUDA refuses, let pass what it lets pass, and see what waits."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from kg4d.kernels.image_loss import ImageWeights, image_loss
from tests.pretended_gpu import PretendedGpus, pretend_gpus


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpus]:
    with pretend_gpus(monkeypatch, 2) as mode:
        yield mode


def here() -> Tensor:
    return torch.ones(3)


def there() -> Tensor:
    return torch.ones(3, device="cuda")


@pytest.mark.parametrize(
    "mixed",
    [
        lambda: here() + there(),
        lambda: torch.where(here() > 0, there(), there()),
        lambda: torch.cat([here(), there()]),
        lambda: here() @ there(),
        lambda: torch.stack([here().sum(), there().sum()]),
        lambda: there().sum() * here(),
        lambda: torch.ones(3, device="cuda:0") + torch.ones(3, device="cuda:1"),
        lambda: here()[torch.zeros(1, dtype=torch.int64, device="cuda")],
        lambda: there().index_select(0, torch.zeros(1, dtype=torch.int64)),
        lambda: here().add_(there()),
        lambda: there().__setitem__(torch.tensor([0, 1]), torch.ones(2)),
        lambda: setattr(there().requires_grad_(), "grad", here()),
        lambda: torch.nn.functional.linear(there(), torch.ones(2, 3)),
    ],
)
def test_devices_are_not_mixed(mode: PretendedGpus, mixed: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="device|gradient on|value on|indices on"):
        mixed()


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda: there().numpy(),
        lambda: torch.rand(3, generator=torch.Generator(), device="cuda"),
        lambda: there().uniform_(generator=torch.Generator()),
        lambda: image_loss(*[torch.ones(1, 16, 16, 3, device="cuda")] * 2, weights=ImageWeights(1, 1)),
    ],
)
def test_what_only_the_cpu_can_do_is_refused(mode: PretendedGpus, forbidden: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        forbidden()


def test_what_cuda_allows_passes_and_keeps_the_device(mode: PretendedGpus) -> None:
    scalar, index = torch.tensor(2.0), torch.tensor([0, 2])
    for result in (
        there() * scalar,
        there()[index],
        there().new_zeros(2),
        torch.zeros_like(there()),
        there()[1:].view(2),
        torch.nn.Parameter(there()),
        here().to("cuda:0"),
        there().requires_grad_().square().sum(),
        torch.nn.Linear(3, 2).to("cuda")(there()),
    ):
        assert result.device == torch.device("cuda", 0)
    assert there().cpu().device.type == "cpu"
    assert there().to("cuda:1").device.index == 1


def test_gradients_lie_where_their_tensors_do(mode: PretendedGpus) -> None:
    leaf = there().requires_grad_()
    leaf.square().sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.device == leaf.device
    assert torch.autograd.grad(leaf.square().sum(), leaf)[0].device == leaf.device
    assert leaf.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("waiting", "number"),
    [
        (lambda: there().sum().item(), 1),
        (lambda: bool(there().sum() > 0), 1),
        (lambda: (there() > 0).nonzero(), 1),
        (lambda: there()[there() > 0], 1),
        (lambda: here().to("cuda"), 1),
        (lambda: torch.tensor([1.0], device="cuda"), 1),
        (lambda: there().new_tensor([1.0]), 1),
        (lambda: there()[[0, 1]], 1),
        (lambda: there()[torch.tensor([0, 1])], 1),
        (lambda: there().cpu(), 1),
        (lambda: torch.cuda.synchronize(), 1),
        (lambda: here().pin_memory().to("cuda", non_blocking=True), 0),
        (lambda: there().sum() * 2 + there()[1], 0),
        (lambda: here().sum().item(), 0),
        (lambda: torch.zeros(3, device="cuda").add_(1), 0),
    ],
)
def test_what_waits_is_seen(mode: PretendedGpus, waiting: Callable[[], object], number: int) -> None:
    with mode.counted():
        waiting()
    assert sum(mode.waits.values()) == number


def test_operations_are_counted_backwards_too(mode: PretendedGpus) -> None:
    leaf = there().requires_grad_()
    with mode.counted():
        leaf.view(3, 1).exp()
    assert mode.operations == 1
    with mode.counted():
        (2 * leaf).sum().backward()
    assert mode.operations >= 4  # two forwards; the first gradient, and the product's
