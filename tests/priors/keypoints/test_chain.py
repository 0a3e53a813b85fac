"""The chain against enumeration of all paths, and what its weights say about hidden and ambiguous points."""

import itertools
import math

import pytest
import torch

from kg4d.priors.keypoints.chain import FLOOR, Candidates, Estimates, Move, follow
from kg4d.priors.keypoints.settings import ChainConfig


def descriptors(count: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 64, generator=torch.Generator().manual_seed(seed)), dim=-1)


def standing(candidates: Candidates, spread: float = 0.1) -> Move:
    return Move(candidates.points, torch.full((len(candidates.points),), spread))


def grid(side: int, step: float) -> torch.Tensor:
    along = torch.arange(side) * step
    return torch.cartesian_prod(along, along)


def test_the_posterior_is_that_of_all_paths():
    """Five images of three candidates: 6^5 paths, summed one by one."""
    config = ChainConfig(near=0.01, wander=0.3)
    points = torch.tensor([[0.0, 0.0], [0.4, 0.0], [0.0, 0.5]])
    chain = [Candidates(points, descriptors(3, seed=seed)) for seed in range(5)]
    looks = descriptors(1, seed=9) + 2 * chain[0].descriptors[:1]
    looks = looks / looks.norm()
    found = follow(chain, [standing(candidates) for candidates in chain[:-1]], points[:1], looks, config)

    level = (looks @ chain[0].descriptors.T).mean()
    odds = [
        torch.exp(config.evidence * ((looks @ candidates.descriptors.T - level) / (1 - level) - config.threshold))[0]
        for candidates in chain
    ]
    squared = (points[:, None] - points).square().sum(-1)
    wander = torch.exp(-squared / (2 * 0.3**2)) + FLOOR
    wander = wander / wander.sum(1, keepdim=True)
    moves = []
    for current, following in itertools.pairwise(chain):
        logits = config.affinity * current.descriptors @ following.descriptors.T - squared / (2 * 0.1**2)
        both = logits.softmax(1) * logits.softmax(0)
        moves.append(both / both.sum(1, keepdim=True))
    mass = torch.zeros(5, 6)
    for path in itertools.product(range(6), repeat=5):  # states 3 to 5: hidden at candidates 0 to 2
        if path[0] != 0:
            continue
        weight = 1.0
        for step, (before, after) in enumerate(itertools.pairwise(path)):
            source, target = before % 3, after % 3
            if before < 3:
                move = (1 - config.hide) * moves[step] if after < 3 else config.hide * wander
            else:
                move = (config.reappear if after < 3 else 1 - config.reappear) * wander
            weight *= float(move[source, target] * (odds[step + 1][target] if after < 3 else 1))
        for image, state in enumerate(path):
            mass[image, state] += weight
    mass = mass / mass.sum(1, keepdim=True)
    best = (mass[:, :3] + mass[:, 3:]).argmax(1)
    assert torch.allclose(found.points[:, 0], points[best], atol=1e-5)
    assert torch.allclose(found.weights[:, 0], mass[torch.arange(5), best], atol=1e-4)


def shuffled(frames: int = 6) -> tuple[list[Candidates], list[torch.Tensor]]:
    """25 candidates that look the same but lie in another order in every image; and where the first ones are."""
    points, looks = grid(5, 0.1), descriptors(25)
    chain, order = [], torch.arange(25)
    truth = []
    for frame in range(frames):
        order = torch.randperm(25, generator=torch.Generator().manual_seed(frame)) if frame else order
        chain.append(Candidates(points, looks[order]))
        truth.append(points[order.argsort()])
    return chain, truth


def follow_all(chain: list[Candidates], config: ChainConfig | None = None, spread: float = 10.0) -> Estimates:
    config = config or ChainConfig(wander=0.3)
    moves = [standing(candidates, spread) for candidates in chain[:-1]]
    return follow(chain, moves, chain[0].points, chain[0].descriptors, config)


def test_looks_are_found_wherever_they_go():
    chain, truth = shuffled()
    found = follow_all(chain)
    assert torch.allclose(found.points, torch.stack(truth), atol=0.02)
    assert found.weights.min() > 0.8


def test_what_is_gone_has_low_weight_and_comes_back():
    points, looks = grid(5, 0.1), descriptors(25)
    covered = torch.where(torch.arange(25)[:, None] == 7, -looks, looks)
    chain = [Candidates(points, covered if frame in (2, 3) else looks) for frame in range(6)]
    found = follow_all(chain, ChainConfig(), spread=0.1)
    assert found.weights[[2, 3], 7].max() < 0.5
    assert found.weights[[1, 5], 7].min() > 0.7
    assert torch.allclose(found.points[4:, 7], points[7], atol=0.02)
    others = [index for index in range(25) if index != 7]
    assert found.weights[2:4, others].min() > 0.9


def test_of_two_that_look_alike_neither_is_sure():
    looks = descriptors(25)
    looks[24] = looks[0]
    chain = [Candidates(grid(5, 0.2), looks) for _ in range(3)]
    found = follow(
        chain, [standing(candidates, 10.0) for candidates in chain[:-1]], chain[0].points[:2], looks[:2], ChainConfig()
    )
    assert found.weights[1:, 0].max() < 0.6
    assert found.weights[1:, 1].min() > 0.9


def test_motion_tells_apart_what_looks_alike():
    looks = descriptors(25)
    looks[24] = looks[0]
    chain = [Candidates(grid(5, 0.2), looks) for _ in range(3)]
    found = follow(
        chain, [standing(candidates) for candidates in chain[:-1]], chain[0].points[:1], looks[:1], ChainConfig()
    )
    assert torch.allclose(found.points[:, 0], chain[0].points[0].expand(3, 2), atol=0.02)
    assert found.weights.min() > 0.9


def test_a_ring_that_closes_is_surer_at_its_end():
    chain, truth = shuffled(6)
    noisy = [chain[0]]
    for index, (points, looks) in enumerate(chain[1:]):
        noise = descriptors(25, seed=20 + index)
        noisy.append(Candidates(points, torch.nn.functional.normalize(looks + 1.2 * noise, dim=-1)))
    ring = [*noisy, noisy[0]]
    moves = [standing(candidates, 10.0) for candidates in ring[:-1]]
    config = ChainConfig(wander=0.3)
    closed = follow(ring, moves, ring[0].points, ring[0].descriptors, config, closed=True)
    opened = follow(noisy, moves[:-1], ring[0].points, ring[0].descriptors, config)
    misses = [(found.points[5] - truth[5]).norm(dim=-1).mean() for found in (closed, opened)]
    assert misses[0] < misses[1]


def test_a_start_off_the_object_is_followed_nowhere():
    chain, _ = shuffled()
    start = torch.tensor([[0.0, 0.0], [3.0, -2.0]])
    found = follow(chain, [standing(candidates) for candidates in chain[:-1]], start, descriptors(2), ChainConfig())
    assert (found.weights[:, 1] == 0).all()
    assert found.points.isfinite().all()
    assert (found.weights[0, 0]) > 0.9


def test_one_image_and_one_place():
    candidates = Candidates(torch.zeros(1, 2), descriptors(1))
    found = follow([candidates], [], torch.zeros(1, 2), descriptors(1), ChainConfig())
    assert torch.equal(found.points, torch.zeros(1, 1, 2))
    assert found.weights.item() == pytest.approx(1)


def test_equal_descriptors_everywhere_stay_finite():
    looks = descriptors(1).expand(25, -1)
    found = follow_all([Candidates(grid(5, 0.1), looks)] * 3, spread=1e-4)
    assert found.points.isfinite().all()
    assert ((found.weights >= 0) & (found.weights <= 1)).all()


@pytest.mark.parametrize("wrong", [{"hide": 0.0}, {"hide": 1.0}, {"reappear": math.nan}, {"near": 0.0}, {"places": 0}])
def test_impossible_models_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="chain: "):
        ChainConfig(**wrong)
