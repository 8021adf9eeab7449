"""The network as search and trainer see it; the other answer is ``windsock.learners.booster``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from windsock.errors import SpecError
from windsock.learners.neural import device as devices
from windsock.learners.neural.distributed import ensure_process_group
from windsock.learners.ranks import rank, world
from windsock.learners.rows import Rows
from windsock.runs.checkpoints import CheckpointFolder
from windsock.served.matrix import Feature
from windsock.spec import ModelSpec
from windsock.spec.estimators import NetworkParams, TorchSpec

if TYPE_CHECKING:
    from windsock.learners.neural.learned import LearnedNetwork
    from windsock.learners.neural.loop import Plan

log = logging.getLogger(__name__)

_CHECKPOINT_FORMAT = "windsock-network-checkpoint/1"


class NetworkLearner:
    """Trains networks with fixed inputs."""

    def __init__(self, spec: ModelSpec, estimator: TorchSpec, features: Sequence[Feature]) -> None:
        """Join the other processes, if there are any: what follows is decided together."""
        self._spec, self._estimator, self._features = spec, estimator, tuple(features)
        ensure_process_group()

    @property
    def device(self) -> str:
        """Name of what is trained on."""
        return devices.describe(devices.choose_device())

    @property
    def most_rounds(self) -> int:
        """Epochs at most."""
        return self._estimator.epochs

    def own_params(self) -> dict[str, Any]:
        """Return the spec's own parameters over the defaults."""
        return self._estimator.params.model_dump(mode="json")

    def train(
        self,
        params: dict[str, Any],
        rows: Rows,
        rounds: int,
        judged: Rows | None = None,
        *,
        checkpoint: CheckpointFolder | None = None,
        report: Callable[[int, float], None] | None = None,
    ) -> LearnedNetwork:
        """Train one network; with judged rows, stop early on their loss.

        Args:
            params: As :class:`~windsock.spec.estimators.NetworkParams` has them.
            rows: What to learn from.
            rounds: Epochs at most.
            judged: What the curve is measured on.
            checkpoint: Where progress is kept; a training that finds its own there goes on from it.
            report: Told of every epoch on judged rows; an error it raises ends the training.

        Raises:
            SpecError: A parameter is refused, or the training diverged.
        """
        wanted = self._checked(params)
        device = devices.choose_device()
        estimator = self._estimator
        with devices.threads_limited(), devices.deterministic(estimator.deterministic):
            return self._train(wanted, rows, rounds, judged, checkpoint, report, device)

    def _train(
        self,
        params: NetworkParams,
        rows: Rows,
        rounds: int,
        judged: Rows | None,
        checkpoint: CheckpointFolder | None,
        report: Callable[[int, float], None] | None,
        device: Any,
    ) -> LearnedNetwork:
        import torch

        from windsock.learners.neural.batches import Batches, keeps_resident, make_table
        from windsock.learners.neural.checkpoint import Checkpoints
        from windsock.learners.neural.learned import LearnedNetwork
        from windsock.learners.neural.loop import Training
        from windsock.learners.neural.network import TabularNetwork

        estimator, plan = self._estimator, self._plan(params, rows, rounds, device)
        binary = self._spec.label.task == "binary"
        network = TabularNetwork(
            self._features, rows.x, rows.y, hidden=params.hidden, binary=binary,
            positive_weight=plan.positive_weight, seed=plan.seed,
        )  # fmt: skip
        target = rows.y if binary else (rows.y - network.target[0].item()) / network.target[1].item()
        table = make_table(network, rows.x, target)
        resident = keeps_resident(estimator.data, table, device)
        log.info(
            "%s: training on %s, %s, %s rows, %d weights", estimator.name, devices.describe(device),
            "bfloat16" if plan.bf16 else "float32", "resident" if resident else "streamed",
            sum(p.numel() for p in network.parameters()),
        )  # fmt: skip
        batches = Batches(
            table, device, resident=resident, batch_size=params.batch_size, seed=plan.seed, rank=rank(), world=world()
        )
        measured = None
        if judged is not None:
            prepared = make_table(network, judged.x, judged.y)[:, :-1]
            measured = (prepared.to(device) if resident else prepared, torch.from_numpy(judged.y))
        checkpoints = None
        if checkpoint is not None:
            checkpoints = Checkpoints(checkpoint, self._mark(plan, params, rows, judged))
        training = Training(network, plan, device, batches, measured)
        training.run(checkpoints, report)
        final, kept = training.averages()
        return LearnedNetwork(
            network.to("cpu"), self._features, self._spec.label.task, training.curve, final, kept, plan, rows
        )

    def _checked(self, params: dict[str, Any]) -> NetworkParams:
        from pydantic import ValidationError

        try:
            return NetworkParams.model_validate(params)
        except ValidationError as err:
            raise SpecError(
                f"{self._spec.name}: estimator {self._estimator.name!r} cannot be trained with these parameters: "
                f"{err}. They were: {params}."
            ) from err

    def _plan(self, params: NetworkParams, rows: Rows, rounds: int, device: Any) -> Plan:
        from windsock.learners.neural.loop import Plan

        binary, weight = self._spec.label.task == "binary", 1.0
        share = float(rows.y.mean()) if binary else 0.0
        if binary:
            balanced = (1 - share) / share if 0 < share < 1 else 1.0
            weight = balanced if params.positive_weight == "balanced" else float(params.positive_weight)
            if not weight > 0:
                raise SpecError(
                    f"{self._spec.name}: estimator {self._estimator.name!r}: params.positive_weight is {weight:g}, "
                    "but a positive row must count for something. Give a number above zero, or balanced."
                )
        absolute = self._spec.training.metric == "mean_absolute_error"
        return Plan(
            loss="log" if binary else "absolute" if absolute else "square",
            positive_weight=weight,
            mean_weight=1 + (weight - 1) * share,
            learning_rate=params.learning_rate,
            weight_decay=params.weight_decay,
            dropout=params.dropout,
            hidden=params.hidden,
            seed=self._spec.training.seed,
            epochs=rounds,
            patience=self._estimator.patience,
            bf16=devices.uses_bf16(self._estimator.precision, device),
            checkpoint_steps=self._estimator.checkpoint_steps,
        )

    def _mark(self, plan: Plan, params: NetworkParams, rows: Rows, judged: Rows | None) -> str:
        from dataclasses import asdict, replace

        from windsock.learners.neural.checkpoint import fingerprint

        about = {
            "format": _CHECKPOINT_FORMAT,
            # How often to write decides nothing about the result.
            "plan": asdict(replace(plan, checkpoint_steps=1)),
            "batch_size": params.batch_size,
            "features": [f.to_json() for f in self._features],
            "world": world(),
        }
        return fingerprint(about, rows, judged)


__all__ = ["NetworkLearner"]
