"""Features of a video's motion: what each source tells, and that files and weights are part of who it is."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kg4d.data.records import VideoFeatures
from kg4d.errors import InputError
from kg4d.priors.build import decide_flow_features
from kg4d.priors.cache.store import PriorCache
from kg4d.priors.flow_features import DisAndMaps, DisAndVgg, FlowFeatures, RaftAlone, components
from kg4d.priors.settings import FlowFeaturesConfig, FlowFeaturesKind
from kg4d.priors.workbench import Workbench
from tests.priors.rafts import Raft

DEEP = VideoFeatures.CHANNELS - 10


def shifted(frames: int, step: int, height: int = 64, width: int = 96) -> Tensor:
    """A textured picture that goes to the right."""
    noise = torch.rand(1, 3, height // 4, (width + 40) // 4, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(noise, (height, width + 40), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)
    parts = [wide[:, 40 - step * frame : 40 - step * frame + width] for frame in range(frames)]
    return torch.cat([torch.stack(parts), torch.ones(frames, height, width, 1)], dim=-1)


def brightening(frames: int, height: int, width: int) -> Tensor:
    shades = torch.linspace(0.2, 0.8, frames)[:, None, None, None].expand(frames, height, width, 3)
    return torch.cat([shades, torch.ones(frames, height, width, 1)], dim=-1)


def test_maps_are_an_eighth_and_tell_where_things_go() -> None:
    provider = FlowFeatures(DisAndVgg())
    maps = provider(shifted(4, 3))
    assert maps.shape == (4, VideoFeatures.CHANNELS, 8, 12)
    assert maps.isfinite().all()
    ahead, behind = maps[:, 0], maps[:, 2]  # x of the flow to the next frame, and to the one before
    assert (ahead[:3, 2:6, 2:8] > 0.3).all()
    assert (behind[1:, 2:6, 4:10] < -0.3).all()
    assert (ahead[3] == 0).all()
    assert (behind[0] == 0).all()
    faster = FlowFeatures(DisAndVgg())(shifted(4, 6))
    assert torch.equal(maps, provider(shifted(4, 3)))
    assert faster.shape == maps.shape


def test_the_identity_names_the_weights() -> None:
    assert {"kind", "opencv", "weights", "channels"} <= set(FlowFeatures(DisAndVgg()).identity())


def test_components_are_the_axes_of_greatest_variance() -> None:
    generator, count = torch.Generator().manual_seed(0), DEEP + 4
    signals = torch.randn(3 * 5 * 6, count, generator=generator).double()
    signals = torch.linalg.qr(signals - signals.mean(0)).Q  # uncorrelated, of mean zero and of one size
    sizes = torch.linspace(1, 3, count).double()
    turn = torch.linalg.qr(torch.randn(count, count, generator=generator).double()).Q
    mixed = (signals * sizes) @ turn + 7
    found = components(mixed.float().reshape(3, 5, 6, count).movedim(-1, 1))
    rows = found.movedim(1, -1).reshape(-1, DEEP).double()
    expected = (signals * sizes)[:, -DEEP:] / sizes[-1] * len(signals) ** 0.5
    signs = (rows * expected).sum(0).sign()
    torch.testing.assert_close(rows * signs, expected, atol=2e-4, rtol=0)
    assert float(rows[:, -1].square().mean()) == pytest.approx(1, abs=1e-4)


def test_few_channels_stay_as_they_are() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = components(maps)
    assert found.shape == (2, DEEP, 4, 5)
    torch.testing.assert_close(found[:, :3], maps / maps.square().mean().sqrt())
    assert (found[:, 3:] == 0).all()


def test_maps_take_the_place_of_the_deep_features() -> None:
    video, maps = shifted(3, 3), torch.randn(3, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    found = FlowFeatures(DisAndMaps(maps))(video)
    assert torch.equal(found[:, :10], FlowFeatures(DisAndVgg())(video)[:, :10])
    assert torch.equal(found[:, 10:], components(maps))


def test_raft_tells_flow_and_what_it_remembers(raft: Raft) -> None:
    video = brightening(4, 130, 133)
    seen = RaftAlone(None)(video)
    assert torch.equal(seen.forward, torch.tensor([3.0, -2.0]).expand(3, 130, 133, 2))
    assert torch.equal(seen.backward, torch.tensor([-3.0, 2.0]).expand(3, 130, 133, 2))
    assert seen.deep.shape == (4, DEEP, 16, 16)
    assert len(raft.seen) == 3
    assert not raft.update_block._forward_hooks
    # what differs between the frames, and nowhere within one, are the brightness and the state
    apart = seen.deep - seen.deep[:1]
    torch.testing.assert_close(apart, apart[..., :1, :1].expand_as(apart), atol=1e-4, rtol=0)
    assert (apart[1:].abs().amax(dim=(1, 2, 3)) > 0.1).all()
    maps = FlowFeatures(RaftAlone(None))(video)
    width = 133
    rms = ((9 + 4) * 3 / (2 * 4)) ** 0.5 / width  # of four channels in four frames, of which three have each flow
    torch.testing.assert_close(maps[:3, 0], torch.full((3, 16, 16), 3 / width / rms))
    torch.testing.assert_close(maps[1:, 3], torch.full((3, 16, 16), 2 / width / rms))


def test_raft_lays_its_cells_over_small_images(raft: Raft) -> None:
    """Images half as large as it needs are enlarged; four of its cells are one of ours."""
    small, large = RaftAlone(None)(brightening(3, 64, 96)), RaftAlone(None)(brightening(3, 128, 192))
    assert small.deep.shape == (3, DEEP, 8, 12)
    pooled = torch.nn.functional.avg_pool2d(large.deep, 2)
    torch.testing.assert_close(small.deep, pooled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(small.forward[0, 0, 0], torch.tensor([1.5, -1.0]))


def both(path: Path, video: Tensor) -> tuple[Tensor, Tensor]:
    return (FlowFeatures(RaftAlone(str(path)))(part) for part in (video, video.flip(0)))  # type: ignore[return-value]


def test_the_real_network_sees_time_run_backwards(random_weights: Path) -> None:
    video = shifted(4, 3, 128, 160)
    maps, reversed_maps = both(random_weights, video)
    assert maps.shape == (4, VideoFeatures.CHANNELS, 16, 20)
    assert maps.isfinite().all()
    assert not maps.requires_grad
    back = reversed_maps.flip(0)
    swapped = torch.cat([back[:, [2, 3, 0, 1, 6, 7, 4, 5, 9, 8]], back[:, 10:]], dim=1)
    torch.testing.assert_close(swapped[:, :10], maps[:, :10], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(swapped[:, -4:], maps[:, -4:], atol=2e-2, rtol=2e-2)
    assert torch.equal(maps, FlowFeatures(RaftAlone(str(random_weights)))(video))


def test_the_real_network_sees_small_images(random_weights: Path) -> None:
    maps = FlowFeatures(RaftAlone(str(random_weights)))(shifted(3, 2, 44, 60))
    assert maps.shape == (3, VideoFeatures.CHANNELS, 5, 7)
    assert maps.isfinite().all()
    assert float(maps[:, -1].std()) > 0.1


def test_who_it_is_holds_the_files_and_the_weights(raft: Raft, tmp_path: Path) -> None:
    maps = torch.randn(3, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    weights = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for index, file in enumerate(weights):
        file.write_bytes(bytes([index]))
    raft_of = RaftAlone(None)
    told = [DisAndVgg(), DisAndMaps(maps), DisAndMaps(maps.flip(0)), DisAndMaps(maps.flip(3)), raft_of]
    identities = [dict(FlowFeatures(source).identity()) for source in told]
    for file in weights:
        raft_of._path = str(file)
        identities.append(dict(FlowFeatures(raft_of).identity()))
    assert all(one not in identities[:index] for index, one in enumerate(identities))
    assert FlowFeatures(DisAndMaps(maps.clone())).identity() == identities[1]


def test_what_it_sees_is_computed_once(tmp_path: Path) -> None:
    video, maps = shifted(3, 3), torch.randn(3, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    bench = Workbench(PriorCache(tmp_path), progress_bar=False)

    def asked(maps: Tensor) -> Tensor:
        provider = FlowFeatures(DisAndMaps(maps))
        return bench.run(provider, {"video": video}, lambda: {"maps": provider(video)})["maps"]

    first = asked(maps)
    assert torch.equal(asked(maps.clone()), first)
    assert len(bench.cache.entries()) == 1
    assert not torch.equal(asked(maps.flip(0)), first)
    assert len(bench.cache.entries()) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "dis", "path": "."}, r"flow_features\.path: is not read where flow_features\.kind=dis"),
        ({"kind": "files"}, r"flow_features\.path: names no file"),
        ({"kind": "files", "path": "/nowhere/at/all"}, r"flow_features\.path: no such file or folder"),
        ({"path": "/nowhere/at/all"}, r"flow_features\.path: no such file or folder"),
        ({"kind": "raft", "path": "/nowhere/at/all"}, r"flow_features\.path: no such file or folder"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings: dict[str, str], words: str) -> None:
    config = FlowFeaturesConfig(FlowFeaturesKind(settings.get("kind", "auto")), settings.get("path"))
    with pytest.raises(InputError, match=words) as caught:
        decide_flow_features(config)
    assert "\n" not in str(caught.value)


def test_auto_fetches_nothing(tmp_path: Path, raft: Raft) -> None:
    auto = FlowFeaturesConfig()
    assert decide_flow_features(auto).kind == "dis"
    assert decide_flow_features(replace(auto, path=str(tmp_path))).kind == "files"
    assert decide_flow_features(FlowFeaturesConfig(FlowFeaturesKind.RAFT)).kind == "raft"
