"""Where a pipeline lies on a GPU: there as a whole, unless it is short of memory."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kg4d.priors.diffusion.checkpoint import Checkpoint, networks_device
from tests.pretended_gpu import pretend_gpus

WEIGHTS = 4 * 1000  # bytes


class Pipeline:
    """What is asked of a pipeline of diffusers."""

    def __init__(self) -> None:
        self.components = {"unet": torch.nn.Linear(1000, 1, bias=False), "scheduler": SimpleNamespace()}
        self.where: list[str] = []

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> "Pipeline":
        return cls()

    def set_progress_bar_config(self, disable: bool) -> None:
        pass

    def to(self, device: torch.device) -> None:
        self.where.append(f"on {device}")

    def enable_model_cpu_offload(self, device: torch.device) -> None:
        self.where.append(f"offloaded from {device}")


@pytest.mark.parametrize(
    ("free", "can_offload", "where"),
    [
        (2 * WEIGHTS, True, "on cuda:0"),
        (2 * WEIGHTS - 1, True, "offloaded from cuda:0"),
        (2 * WEIGHTS - 1, False, "on cuda:0"),
    ],
)
def test_idle_parts_leave_a_gpu_that_is_short_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, can_offload: bool, where: str
) -> None:
    pretend_gpus(monkeypatch)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    checkpoint = Checkpoint("views.model", "some/model", tmp_path)
    loaded = checkpoint.load_pipeline(Pipeline, networks_device(), False, can_offload=can_offload)
    assert loaded.where == [where]


def test_networks_compute_where_the_renderer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, 2)
    torch.cuda.set_device("cuda:1")
    assert networks_device() == torch.device("cuda", 1)
