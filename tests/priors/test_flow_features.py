import torch

from kg4d.data.records import VideoFeatures
from kg4d.priors.flow_features import FlowFeatures


def shifted(frames: int, step: int, height: int = 64, width: int = 96) -> torch.Tensor:
    """A textured picture that goes to the right."""
    noise = torch.rand(1, 3, height // 4, (width + 40) // 4, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(noise, (height, width + 40), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)
    parts = [wide[:, 40 - step * frame : 40 - step * frame + width] for frame in range(frames)]
    return torch.cat([torch.stack(parts), torch.ones(frames, height, width, 1)], dim=-1)


def test_maps_are_an_eighth_and_tell_where_things_go():
    provider = FlowFeatures()
    maps = provider(shifted(4, 3))
    assert maps.shape == (4, VideoFeatures.CHANNELS, 8, 12)
    assert maps.isfinite().all()
    ahead, behind = maps[:, 0], maps[:, 2]  # x of the flow to the next frame, and to the one before
    assert (ahead[:3, 2:6, 2:8] > 0.3).all()
    assert (behind[1:, 2:6, 4:10] < -0.3).all()
    assert (ahead[3] == 0).all()
    assert (behind[0] == 0).all()
    faster = FlowFeatures()(shifted(4, 6))
    assert torch.equal(maps, provider(shifted(4, 3)))
    assert faster.shape == maps.shape


def test_the_identity_names_the_weights():
    assert {"opencv", "weights", "channels"} <= set(FlowFeatures().identity())
