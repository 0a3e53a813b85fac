"""What only the native renderer promises: threads, instruction sets, forks, denormals."""

import ctypes
import multiprocessing
import threading

import pytest
import torch

from kg4d import kernels
from kg4d.render.cpu import CpuRenderer
from tests.render.scenes import gradients, random_case, relative


def test_every_instruction_set_gives_the_same(isa: str) -> None:
    case = random_case(channels=5, cameras=2, depth=True, absgrad=True)
    renderer = CpuRenderer(threads=1)
    output, found = gradients(case.on(renderer), renderer)
    kernels.use_isa("generic")
    plain, expected = gradients(case.on(renderer), renderer)
    assert torch.allclose(output.image, plain.image, atol=5e-6)
    for name, value in expected.items():
        assert relative(found[name], value) < 2e-5, name


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    case = random_case(count=3000, width=150, height=90, cameras=2, channels=4, depth=True, absgrad=True)
    results = []
    for threads in (1, 2, 3):
        renderer = CpuRenderer(threads=threads)
        output, found = gradients(case.on(renderer), renderer)
        results.append((output.image, output.alpha, output.depth, output.radii, *found.values()))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_two_python_threads_may_render_at_once() -> None:
    case = random_case(count=500, channels=3)
    renderer = CpuRenderer(threads=2)
    expected = case.on(renderer).render(renderer).image
    images: list[torch.Tensor] = []

    def work() -> None:
        for _ in range(20):
            images.append(case.on(renderer).render(renderer).image)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(images) == 60
    assert all(torch.equal(image, expected) for image in images)


def _render_in_child(case: object, connection: object) -> None:
    renderer = CpuRenderer(threads=2)
    image = case.on(renderer).render(renderer).image  # type: ignore[attr-defined]
    connection.send(image.detach().numpy().tobytes())  # type: ignore[attr-defined]


def test_a_forked_child_can_render() -> None:
    case = random_case(count=2000, width=100, height=100)
    renderer = CpuRenderer(threads=2)
    expected = case.on(renderer).render(renderer).image
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_render_in_child, args=(case, theirs))
    child.start()
    assert ours.poll(30), "the child hangs"
    assert ours.recv() == expected.detach().numpy().tobytes()
    child.join()


def test_denormals_survive_the_library() -> None:
    kernels.native_library()
    tiny = torch.tensor([1e-40]) * torch.tensor([1.0])
    assert float(tiny) > 0
    assert 5e-324 * 1.0 > 0


def test_a_frame_gives_statistics() -> None:
    renderer = CpuRenderer(threads=1)
    output, _ = gradients(random_case().on(renderer), renderer)
    assert isinstance(output.handle, kernels.RenderPlan)
    statistics = output.handle.statistics()
    assert statistics.forward > 0
    assert statistics.backward > 0
    assert 0 < statistics.backward_visits <= statistics.forward_visits


def test_more_splats_than_indices_can_name_are_refused() -> None:
    frame, scene, images = kernels.RenderPlan(), kernels.NativeScene(), kernels.Images()
    scene.gaussians, scene.cameras, scene.channels, scene.width, scene.height = 1 << 20, 1 << 11, 1, 16, 16
    native = kernels.native_library()
    status = native.kg4d_forward(frame.pointer, ctypes.byref(scene), ctypes.byref(images))
    with pytest.raises(ValueError, match="range"):
        kernels.check_status(status)
    with pytest.raises(MemoryError):
        kernels.check_status(3)


def test_a_bad_thread_count_is_refused() -> None:
    with pytest.raises(ValueError, match="thread"):
        CpuRenderer(threads=0)
