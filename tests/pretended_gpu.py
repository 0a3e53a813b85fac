"""GPUs on a machine without one: tensors say that they lie on one, and what CUDA would refuse is refused.

Every tensor carries a pretended device, all numbers are real and on the CPU, so that whole fits run. Under
`PretendedGpus` each call of torch from Python is checked: tensors on different devices, CUDA tensors turned into NumPy
arrays, generators of the CPU that draw on CUDA, native CPU kernels that get a pointer to CUDA memory. What would make
the host wait for the device is noted: values that are read, indices that depend on values, copies from pageable memory.

Not checked: what runs inside the backward pass. torch's FakeTensorMode cannot take this place: without CUDA in the
build its first differentiable operation ends the process, and it stops where a value is read.
"""

import collections
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import kg4d
from kg4d.gaussians.state import GaussianState
from kg4d.geometry.cameras import Cameras
from kg4d.render import reference
from kg4d.render.base import RasterOptions
from kg4d.render.cpu import CpuRenderer
from tests.render.fake_gsplat import use_instead_of_gsplat

CPU = torch.device("cpu")
_PACKAGE = str(Path(kg4d.__file__).parent)
_DEVICE, _IS_CUDA, _IS_CPU = (
    Tensor.device.__get__,
    Tensor.is_cuda.__get__,
    Tensor.is_cpu.__get__,
)
_DATA, _GRAD = Tensor.data.__set__, Tensor.grad.__set__
_FACTORIES = {
    *(torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.tensor, torch.as_tensor, torch.eye),
    *(torch.linspace, torch.rand, torch.randn, torch.randint, torch.randperm, torch.asarray, torch.from_numpy),
    *(torch.tril_indices, torch.triu_indices, torch.empty_strided, torch.logspace),
}
_DRAWS = {
    *("uniform_", "normal_", "exponential_", "bernoulli_", "random_", "multinomial", "bernoulli", "normal", "poisson"),
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "trunc_normal_"),
}
_READS = {
    *("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero", "argwhere", "masked_select"),
    *("unique", "bincount", "equal", "allclose", "is_nonzero", "__format__", "__repr__", "__contains__", "isin"),
}
_TAKES_ANY = {"_has_compatible_shallow_copy_type", "is_same_size", "backward"}
# These take no scalar from another device either.
_STRICT = {
    *("cat", "stack", "matmul", "__matmul__", "mm", "bmm", "addmm", "linear", "gather", "scatter", "scatter_", "lerp"),
    *(
        "scatter_reduce",
        "scatter_add",
        "scatter_add_",
        "index_select",
        "index_add",
        "index_add_",
        "embedding",
        "conv2d",
    ),
    *("conv3d", "grid_sample", "cdist", "searchsorted", "cross", "einsum", "layer_norm", "group_norm", "batch_norm"),
    *("interpolate", "isin", "cartesian_prod", "meshgrid", "scaled_dot_product_attention", "mse_loss", "l1_loss"),
}


def device_of(tensor: Tensor) -> torch.device:
    """Where a tensor says that it lies."""
    return getattr(tensor, "pretended", CPU)


def put(tensors: Any, device: torch.device | None) -> Any:
    """Let every tensor in nested containers say that it lies on `device`."""
    for tensor in _tensors_in(tensors) if device is not None else ():
        tensor.pretended = device  # type: ignore[attr-defined]
    return tensors


def _tensors_in(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors_in(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors_in(value)


def _named(device: torch.device | str | int | None) -> torch.device | None:
    """With its number: without one it is the current device."""
    if device is None:
        return None
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if found == torch.device("cuda") else found


def _place() -> str:
    """File and line of the innermost frame inside the package, else of the first that is not torch's."""
    frame, found = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE):
            return f"kg4d{name.removeprefix(_PACKAGE)}:{frame.f_lineno}"
        if not found and "/torch/" not in name and name != __file__:
            found = f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return found


class PretendedGpus(TorchFunctionMode):
    """Checks devices while it is entered.

    Attributes:
        waits: How often the host would have waited for the device, by what and where.
        operations: How many operations torch was asked for while `counted` was entered, those of the backward pass
            included; views and empty tensors launch nothing and do not count.
        renders: Calls of the stand-in for gsplat, each with the number of its images.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: collections.Counter[tuple[str, str]] = collections.Counter()
        self.operations = 0
        self.renders: list[int] = []

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count from 0 what runs inside."""
        self.waits.clear()
        self.renders.clear()
        counter = _Operations()
        with counter:
            yield
        self.operations = counter.count

    def __enter__(self) -> "PretendedGpus":
        super().__enter__()
        return self

    def wait(self, what: str) -> None:
        """The host waits for the device here."""
        self.waits[what, _place()] += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", str(func))
        if name in ("numpy", "__array__", "__dlpack__", "data_ptr") and device_of(args[0]).type == "cuda":
            raise TypeError(f"{name} of a tensor on {device_of(args[0])}: NumPy and our kernels read it, at {_place()}")
        special = self._special(func, name, args)
        if special is not None:
            return special(func, name, args, kwargs)
        return self._computed(func, name, args, kwargs)

    def _special(self, func: Any, name: str, args: Any) -> Callable[..., Any] | None:
        """What handles a function whose result does not just lie where its arguments do."""
        by_name = {
            **dict.fromkeys(("__get__", "__set__"), self._attribute),
            **dict.fromkeys(("to", "cuda", "cpu"), self._moved),
            "pin_memory": self._pinned,
            "__getitem__": self._read,
            "__setitem__": self._assigned,
            "copy_": self._copied,
        }
        if name in by_name:
            return by_name[name]
        if isinstance(func, collections.abc.Hashable) and func in _FACTORIES:
            return self._made
        like = name.endswith("_like") or (name.startswith("new_") and isinstance(args[0], Tensor))
        return self._made_like if like else None

    def _pinned(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        pinned: Tensor = args[0].clone()
        pinned.pinned = True  # type: ignore[attr-defined]
        return pinned

    def _made_like(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        device = _named(kwargs.pop("device", None)) or device_of(args[0])
        self._check_generator(name, device, args, kwargs)
        if name == "new_tensor" and device.type == "cuda":
            self.wait("copy of new_tensor(list)")
        return put(func(*args, **kwargs), device)

    def _read(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        self._check_index(*args)
        return put(func(*args, **kwargs), device_of(args[0]))

    def _copied(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if device_of(args[0]) != device_of(args[1]):
            self.wait("copy_")
        return put(func(*args, **kwargs), device_of(args[0]))

    def _attribute(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        if func == _DEVICE:
            return device_of(tensor)
        if func in (_IS_CUDA, _IS_CPU):
            return device_of(tensor).type == ("cuda" if func == _IS_CUDA else "cpu")
        if func == _GRAD and isinstance(args[1], Tensor) and device_of(args[1]) != device_of(tensor):
            raise RuntimeError(f"gradient on {device_of(args[1])} for a tensor on {device_of(tensor)}, at {_place()}")
        out = func(*args)
        if func == _DATA:
            put(tensor, device_of(args[1]))
        return put(out, device_of(tensor)) if isinstance(out, Tensor) else out

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if not isinstance(args[0], Tensor):  # a module: its tensors come here one by one
            return func(*args, **kwargs)
        tensor, given = args[0], [*args[1:], *(v for k, v in kwargs.items() if k in ("device", "dtype", "other"))]
        here = target = device_of(tensor)
        if name in ("cpu", "cuda"):
            target = CPU if name == "cpu" else _named(given[0] if given else "cuda") or here
            given = []
        for value in given:
            if isinstance(value, Tensor):
                target = device_of(value)
            elif isinstance(value, torch.device | str) or type(value) is int:
                target = _named(value) or here
        dtypes = [v.dtype if isinstance(v, Tensor) else v for v in given if isinstance(v, Tensor | torch.dtype)]
        dtype = dtypes[0] if dtypes else tensor.dtype
        settings = {k: v for k, v in kwargs.items() if k in ("copy", "memory_format")}
        if target == here:
            return tensor if tensor.dtype == dtype and not settings else put(tensor.to(dtype, **settings), here)
        from_pinned = getattr(tensor, "pinned", False) and kwargs.get("non_blocking", False)
        if not from_pinned:
            self.wait(f"copy to {target.type}")
        return put(tensor.to(dtype, copy=True), target)

    def _made(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        given, device = list(_tensors_in((args, kwargs))), _named(kwargs.pop("device", None))
        if device is None and given and name in ("as_tensor", "asarray"):
            device = device_of(given[0])
        device = device or CPU
        self._check_generator(name, device, args, kwargs)
        if any(device_of(tensor).type == "cuda" for tensor in given) or (
            name in ("tensor", "as_tensor") and device.type == "cuda"
        ):
            self.wait(f"torch.{name}")
        kwargs.pop("pin_memory", None)
        return put(func(*args, **kwargs), device)

    def _check_generator(self, name: str, device: torch.device, args: Any, kwargs: Any) -> None:
        drawn_by_cpu = any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))
        if name in _DRAWS and drawn_by_cpu and device.type == "cuda":
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu', {name} at {_place()}")

    def _check_index(self, tensor: Tensor, index: Any) -> None:
        parts = index if isinstance(index, tuple) else (index,)
        on_cuda = device_of(tensor).type == "cuda"
        if on_cuda and any(isinstance(part, list) for part in parts):
            self.wait("copy of a list of indices")
        for chosen in _tensors_in(parts):
            elsewhere = device_of(chosen) != device_of(tensor)
            if elsewhere and chosen.dim() > 0 and device_of(chosen).type == "cuda":
                what = f"indices on {device_of(chosen)} for a tensor on {device_of(tensor)}"
                raise RuntimeError(f"{what}: they should be on the same device, at {_place()}")
            if on_cuda and chosen.dtype in (torch.bool, torch.uint8):
                self.wait("boolean index")
            elif on_cuda and elsewhere and chosen.dim() > 0:
                self.wait("copy of indices")

    def _assigned(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        tensor, index, value = args
        self._check_index(tensor, index)
        if isinstance(value, Tensor) and device_of(value) != device_of(tensor):
            by_tensor = any(True for _ in _tensors_in(index if isinstance(index, tuple) else (index,)))
            if value.dim() > 0 and by_tensor:
                raise RuntimeError(f"value on {device_of(value)} for a tensor on {device_of(tensor)}, at {_place()}")
            self.wait("copy by assignment")
        return func(*args, **kwargs)

    def _computed(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        given = list(_tensors_in((args, kwargs)))
        made_on = _named(kwargs.pop("device", None)) if "device" in kwargs else None
        devices = {device_of(tensor) for tensor in given}
        cudas = {device for device in devices if device.type == "cuda"}
        if cudas and name not in _TAKES_ANY and not name.startswith("_foreach"):
            large = {device_of(tensor) for tensor in given if tensor.dim() > 0}
            if len(devices) > 1 and (len(large) > 1 or len(cudas) > 1 or name in _STRICT or large == {CPU}):
                found = ", ".join(sorted(map(str, devices)))
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two: {found}; "
                    f"{name} at {_place()}"
                )
            read_sizes = name == "repeat_interleave" and "output_size" not in kwargs and len(given) > 1
            if name in _READS or read_sizes or (name == "where" and len(args) == 1):
                self.wait(name)
            self._check_generator(name, next(iter(cudas)), args, kwargs)
        return put(func(*args, **kwargs), made_on or (next(iter(cudas)) if cudas else CPU if given else None))


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (
            func.is_view or "empty" in func.__name__ or func.__name__.startswith(("_unsafe_view", "lift"))
        )
        return func(*args, **(kwargs or {}))


@contextmanager
def unwatched() -> Iterator[None]:
    """Nothing inside is checked or counted: it stands for kernels."""
    with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
        yield


class _Event:
    """A CUDA event, at once over."""

    def __init__(self, enable_timing: bool = False) -> None:
        pass

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: "_Event") -> float:
        return 1.0


def pretend_gpus(patch: pytest.MonkeyPatch, count: int = 1) -> PretendedGpus:
    """Let torch and Lightning find `count` GPUs for the length of a test; enter the result to check devices."""
    mode, current = PretendedGpus(), [0]

    def set_device(device: torch.device | str | int) -> None:
        found = _named(device)
        assert found is not None
        current[0] = found.index or 0

    properties = SimpleNamespace(name="a pretended GPU", major=9, minor=0, total_memory=80 << 30)
    found: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: count,
        "current_device": lambda: current[0],
        "set_device": set_device,
        "synchronize": lambda device=None: mode.wait("torch.cuda.synchronize"),
        "get_device_name": lambda device=None: properties.name,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: properties,
        "max_memory_allocated": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "mem_get_info": lambda device=None: (80 << 30, 80 << 30),
        "empty_cache": lambda: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state_all": list,
        "set_rng_state_all": lambda states: None,
        "is_current_stream_capturing": lambda: False,
        "Event": _Event,
    }
    for name, stand_in in found.items():
        patch.setattr(torch.cuda, name, stand_in)
    _pretend_to_lightning(patch, count)
    _follow_devices(patch)
    use_instead_of_gsplat(patch, pretended_rasterization(mode))
    return mode


def _pretend_to_lightning(patch: pytest.MonkeyPatch, count: int) -> None:
    import lightning.fabric.accelerators.cuda as of_fabric
    import lightning.pytorch.accelerators.cuda as of_pytorch

    patch.setattr(of_fabric, "num_cuda_devices", lambda: count)
    patch.setattr(of_fabric, "is_cuda_available", lambda: True)
    patch.setattr(of_fabric, "_get_all_visible_cuda_devices", lambda: list(range(count)))
    for module in (of_fabric, of_pytorch):
        patch.setattr(module, "_check_cuda_matmul_precision", lambda device: None)
        patch.setattr(module, "_clear_cuda_memory", lambda: None)
    for accelerator in (of_fabric.CUDAAccelerator, of_pytorch.CUDAAccelerator):
        patch.setattr(accelerator, "is_available", staticmethod(lambda: True))
        patch.setattr(accelerator, "auto_device_count", staticmethod(lambda: count))
    patch.setattr(of_pytorch.CUDAAccelerator, "set_nvidia_flags", staticmethod(lambda local_rank: None))


def _follow_devices(patch: pytest.MonkeyPatch) -> None:
    """Pretended devices through what is not a function of torch: parameters, files, gradients."""
    new, load, grad = torch.nn.Parameter.__new__, torch.load, torch.autograd.grad

    def parameter(cls: Any, data: Any = None, requires_grad: bool = True) -> Any:
        made = new(cls, data, requires_grad)
        return put(made, device_of(data)) if isinstance(data, Tensor) else made

    def loaded(file: Any, map_location: Any = None, **rest: Any) -> Any:
        return put(load(file, map_location="cpu", **rest), _named(map_location) or CPU)

    def gradients(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found = grad(outputs, inputs, *args, **kwargs)
        for one, of in zip(found, _tensors_in(inputs)):
            put(one, device_of(of))
        return found

    for kernel in torch.autograd.Function.__subclasses__():
        if kernel.__module__.startswith("kg4d."):  # inside them torch asks no mode
            patch.setattr(kernel, "apply", _refusing_gpus(kernel.apply))
    patch.setattr(torch.nn.Parameter, "__new__", parameter)
    patch.setattr(torch, "load", loaded)
    patch.setattr(torch.autograd, "grad", gradients)


def _refusing_gpus(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A native CPU kernel that is not called with pointers to the memory of a GPU."""

    def apply(*args: Any) -> Any:
        elsewhere = {str(device_of(tensor)) for tensor in _tensors_in(args) if device_of(tensor).type == "cuda"}
        if elsewhere:
            raise RuntimeError(f"a native CPU kernel got pointers of {', '.join(elsewhere)}, at {_place()}")
        return kernel(*args)

    return apply


class _Drawn(torch.autograd.Function):
    """One call of gsplat, drawn by the CPU renderer; it counts as no operation."""

    @staticmethod
    def forward(ctx: Any, call: "_GsplatCall", *given: Tensor) -> tuple[Tensor, ...]:
        with unwatched(), torch.enable_grad():
            leaves = [tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in given]
            outputs, call.means2d = call.draw(*leaves)
        ctx.leaves, ctx.outputs, ctx.call = leaves, outputs, call
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *received: Tensor) -> tuple[Tensor | None, ...]:
        with unwatched():
            torch.autograd.backward(ctx.outputs, received, inputs=ctx.leaves)
            ctx.call.publish()
        return None, *(leaf.grad for leaf in ctx.leaves)


@dataclass
class _GsplatCall:
    """The settings of a call, and the projected centres on both sides of it."""

    width: int
    height: int
    options: RasterOptions
    depth: bool
    absgrad: bool
    device: torch.device
    means2d: list[Tensor] = field(default_factory=list)  # of the renders inside
    published: Tensor | None = None  # what the caller got

    def draw(self, *parts: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Image (with depth) and coverage; the projected centres of each set of the batch."""
        renderer, one = CpuRenderer(1), parts[0].dim() == 2
        images, alphas, centres = [], [], []
        for own in [parts] if one else zip(*parts, strict=True):
            means, quats, scales, opacities, colors, viewmats, Ks, *behind = own
            gaussians = GaussianState(means, quats, scales, opacities, means.detach(), means[:, :0])
            cameras = Cameras(viewmats.detach(), Ks.detach(), self.width, self.height)
            rules = {"depth": self.depth, "absgrad": self.absgrad, "options": self.options}
            background = behind[0].detach() if behind else None
            out = renderer(gaussians, cameras, features=colors, background=background, **rules)
            images.append(out.image if out.depth is None else torch.cat([out.image, out.depth], dim=-1))
            alphas.append(out.alpha)
            centres.append(out.means2d)
        outputs = [images[0], alphas[0]] if one else [torch.stack(images), torch.stack(alphas)]
        return outputs, centres

    def publish(self) -> None:
        """Hand on the screen-space gradients, as gsplat does."""
        if self.published is None or len(self.means2d) != 1:
            return
        self.published.grad = self.means2d[0].grad
        if self.absgrad:
            self.published.absgrad = put(self.means2d[0].absgrad, self.device)  # type: ignore[attr-defined]


def pretended_rasterization(mode: PretendedGpus) -> Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """gsplat's `rasterization` on pretended GPUs: fast, and one call to the counts; it waits once, as gsplat does."""

    def rasterization(
        *shape: Any,
        covars: Tensor | None,
        near_plane: float,
        far_plane: float,
        radius_clip: float,
        eps2d: float,
        packed: bool,
        tile_size: int,
        backgrounds: Tensor | None,
        render_mode: str,
        absgrad: bool,
        rasterize_mode: str,
        channel_chunk: int,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        assert covars is None, "no test draws covariances on a pretended GPU"
        *tensors, width, height = shape
        given = [*tensors, *([] if backgrounds is None else [backgrounds])]
        devices = {device_of(tensor) for tensor in given}
        device = device_of(tensors[0])
        if devices != {device} or device.type != "cuda":
            raise RuntimeError(f"gsplat got pointers of {sorted(map(str, devices))}: illegal memory access")
        mode.wait("gsplat counts its tiles")
        mode.renders.append(math.prod(tensors[5].shape[:-2]))
        options = RasterOptions(eps2d, near_plane, far_plane, radius_clip, rasterize_mode == "antialiased")
        call = _GsplatCall(width, height, options, render_mode == "RGB+ED", absgrad, device)
        image, alpha = put(_Drawn.apply(call, *given), device)
        with unwatched(), torch.no_grad():
            info = _projected(tensors, width, height, options)
        info["means2d"].requires_grad_(tensors[0].requires_grad)
        call.published = info["means2d"]
        return image, alpha, put(info, device)

    return rasterization


def _projected(tensors: list[Tensor], width: int, height: int, options: RasterOptions) -> dict[str, Tensor]:
    *shape, _, viewmats, Ks = (tensor.detach() for tensor in tensors)
    if shape[0].dim() == 3:
        parts = [
            _projected([*own, own[0], view, K], width, height, options)
            for *own, view, K in zip(*shape, viewmats, Ks, strict=True)
        ]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    gaussians = GaussianState(*shape, shape[0], shape[0][:, :0])
    found = reference._project(gaussians, Cameras(viewmats, Ks, width, height), options)
    return {name: getattr(found, name) for name in ("means2d", "conics", "opacities", "depths", "radii")}
