"""The dense flow of the pairs of a batch, as the losses read it."""

from kg4d.data.batch import DynamicBatch
from kg4d.ot.flow_targets import FlowField, flow_field


class FlowFields:
    """Fields of the pairs that a stage has seen; each is formed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], FlowField] = {}

    def of(self, batch: DynamicBatch) -> list[FlowField] | None:
        """One for each pair; None without a dense flow."""
        if batch.flow is None or batch.flow_weights is None:
            return None
        names = list(zip(batch.frames[batch.pairs[:, 0]].tolist(), batch.strides.tolist(), strict=True))
        for index, name in enumerate(names):
            if name not in self._known:
                self._known[name] = flow_field(batch.flow[index], batch.flow_weights[index])
        return [self._known[name] for name in names]
