"""Networks as search and trainer see them; the other answer is ``windsock.learners.booster``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from windsock.errors import SpecError
from windsock.learners.learner import Params, Report, Rows
from windsock.learners.neural import device as devices
from windsock.learners.neural.user_module import build_module, check_source
from windsock.learners.ranks import world
from windsock.runs.checkpoints import CheckpointFolder
from windsock.served.formats.network import threads_limited
from windsock.served.matrix import Feature
from windsock.spec import ModelSpec
from windsock.spec.estimators import NetworkParams, TorchSpec

if TYPE_CHECKING:
    from windsock.learners.neural.step import Plan
    from windsock.learners.neural.trained import TrainedNetwork
    from windsock.served.network import TabularNetwork

log = logging.getLogger(__name__)

_CHECKPOINT_FORMAT = "windsock-network-checkpoint/2"


class NetworkLearner:
    """Trains networks with fixed inputs."""

    def __init__(
        self,
        spec: ModelSpec,
        estimator: TorchSpec,
        features: Sequence[Feature],
        module: Mapping[str, str] | None = None,
    ) -> None:
        """Join the other processes, if there are any: what follows is decided together.

        ``module`` is the user's own network as the request carries it; None: Windsock's.

        Raises:
            SpecError: The request lacks the module, or it is not the one that the request names.
        """
        self._where = f"{spec.name}: estimator {estimator.name!r}"
        if estimator.module is not None and module is None:
            raise SpecError(f"{self._where}: the request lacks {estimator.module}. Run 'assemble' again.")
        if module is not None:
            check_source(module, self._where)
        self._spec, self._estimator, self._features, self._module = spec, estimator, tuple(features), module
        self._binary = spec.label.task == "binary"
        devices.ensure_process_group()

    @property
    def device(self) -> str:
        """Name of what is trained on."""
        return devices.describe(devices.choose_device())

    @property
    def most_rounds(self) -> int:
        """Epochs at most."""
        return self._estimator.epochs

    def own_params(self) -> Params:
        """Return the spec's own parameters over the defaults; with them the arguments of a user's module."""
        return self._estimator.own_params()

    def train(
        self,
        params: Params,
        rows: Rows,
        rounds: int,
        judged: Rows | None = None,
        *,
        checkpoint: CheckpointFolder | None = None,
        report: Report | None = None,
    ) -> TrainedNetwork:
        """Train one network; see :meth:`windsock.learners.learner.Learner.train`."""
        device = devices.choose_device()
        import torch

        from windsock.learners.neural.checkpoint import Checkpoints, fingerprint
        from windsock.learners.neural.data import Batches, keeps_resident, make_table
        from windsock.learners.neural.loop import Training
        from windsock.learners.neural.trained import TrainedNetwork

        estimator, wanted = self._estimator, self._checked(params)
        with threads_limited(), devices.deterministic(estimator.deterministic):
            steps = rounds * math.ceil(len(rows.y) / wanted.batch_size)
            plan = self._plan(wanted, rows, rounds, device, steps)
            network = self._network(params, wanted, rows, plan)
            middle, spread = network.target.tolist()
            table = make_table(network.preparation, rows.x, (rows.y - middle) / spread)
            resident = keeps_resident(estimator.data, table, device)
            log.info(
                "%s: training on %s, %s, %s, %s rows", estimator.name, devices.describe(device),
                "bfloat16" if plan.bf16 else "float32", f"{plan.mode} steps", "resident" if resident else "streamed",
            )  # fmt: skip
            batches = Batches(table, device, resident=resident, batch_size=wanted.batch_size, seed=plan.seed)
            measured = None
            if judged is not None:
                prepared = make_table(network.preparation, judged.x, judged.y)
                measured = (prepared.to(device) if resident else prepared, torch.from_numpy(judged.y))
            checkpoints = None
            if checkpoint is not None:
                about = {
                    "format": _CHECKPOINT_FORMAT,
                    # How often to write decides nothing about the result.
                    "plan": asdict(replace(plan, checkpoint_steps=1)),
                    "params": params,
                    "module": self._module["sha256"] if self._module else None,
                    "features": [f.to_json() for f in self._features],
                    "world": world(),
                }
                checkpoints = Checkpoints(checkpoint, fingerprint(about, rows, judged))
            training = Training(network, plan, device, batches, measured, checkpoints, report)
            training.run()
        return TrainedNetwork(network.to("cpu"), self._features, training, plan, rows)

    def _checked(self, params: Params) -> NetworkParams:
        known = {name: value for name, value in params.items() if name not in self._estimator.arguments}
        try:
            return NetworkParams.model_validate(known)
        except ValidationError as err:
            raise SpecError(
                f"{self._where} cannot be trained with these parameters: {err}. They were: {params}."
            ) from err

    def _plan(self, params: NetworkParams, rows: Rows, rounds: int, device: Any, steps: int) -> Plan:
        from windsock.learners.neural.step import Plan

        share, weight = float(rows.y.mean()) if self._binary else 0.0, 1.0
        if self._binary:
            balanced = (1 - share) / share if 0 < share < 1 else 1.0
            weight = balanced if params.positive_weight == "balanced" else float(params.positive_weight)
            if not weight > 0:
                raise SpecError(
                    f"{self._where}: params.positive_weight is {weight:g}, but a positive row must count for "
                    "something. Give a number above zero, or balanced."
                )
        absolute = self._spec.training.metric == "mean_absolute_error"
        return Plan(
            loss="log" if self._binary else "absolute" if absolute else "square",
            positive_weight=weight,
            mean_weight=1 + (weight - 1) * share,
            learning_rate=params.learning_rate,
            weight_decay=params.weight_decay,
            dropout=params.dropout,
            seed=self._spec.training.seed,
            epochs=rounds,
            patience=self._estimator.patience,
            bf16=devices.uses_bf16(self._estimator.precision, device),
            mode=devices.choose_mode(self._estimator.execution, device, steps),
            deterministic=self._estimator.deterministic,
            checkpoint_steps=self._estimator.checkpoint_steps,
        )

    def _network(self, params: Params, wanted: NetworkParams, rows: Rows, plan: Plan) -> TabularNetwork:
        """Return the network before its first step: prepared for these rows, with first weights of the seed."""
        import torch

        from windsock.served.network import Perceptron, Preparation, TabularNetwork

        preparation = Preparation.fit(self._features, rows.x)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            if self._module is not None:
                arguments = {name: params[name] for name in self._estimator.arguments}
                body = build_module(self._module, self._where, preparation.width, preparation.tables, arguments)
            else:
                body = Perceptron(preparation.width, preparation.tables, wanted.hidden)
        network = TabularNetwork(preparation, body, binary=self._binary)
        with torch.no_grad():
            if not self._binary:
                network.target.copy_(torch.tensor([float(rows.y.mean()), float(rows.y.std()) or 1.0]))
                return network
            network.shift.fill_(math.log(plan.positive_weight))
            if self._module is None:
                share = min(max(float(rows.y.mean()), 1e-6), 1 - 1e-6)
                body.layers[-1].bias.fill_(math.log(share / (1 - share) * plan.positive_weight))
        return network
