"""Records that are equal."""

from dataclasses import fields, is_dataclass

import torch


def assert_same(a: object, b: object, *, atol: float = 1e-6) -> None:
    """The same type and values, field by field; floating-point tensors to within `atol`."""
    assert type(a) is type(b)
    if is_dataclass(a):
        for field in filter(lambda field: field.compare, fields(a)):
            assert_same(getattr(a, field.name), getattr(b, field.name), atol=atol)
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other, atol=atol)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.allclose(a, b, atol=atol) if a.is_floating_point() else torch.equal(a, b)
    else:
        assert a == b
