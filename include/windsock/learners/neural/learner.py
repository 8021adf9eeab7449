"""Networks as search and trainer see them; the other answer is ``windsock.learners.booster``.

A user's own network is one Python file of the model folder, frozen by its hash when the rows are assembled. A request
carries its ``file``, ``class``, ``source`` and ``sha256``. What is served is the ONNX graph that it becomes.
"""

import hashlib
import linecache
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

import torch
from pydantic import ValidationError

from windsock.errors import SpecError
from windsock.learners.learner import Params, Report, Rows
from windsock.learners.neural import device as devices
from windsock.learners.neural.data import Batches, keeps_resident, make_table
from windsock.learners.neural.loop import Checkpoints, Training, fingerprint
from windsock.learners.neural.step import Plan
from windsock.learners.neural.trained import TrainedNetwork
from windsock.learners.ranks import world
from windsock.runs.run_folder import CheckpointFolder
from windsock.served.formats.network import Perceptron, Preparation, TabularNetwork, threads_limited
from windsock.served.matrix import Feature
from windsock.spec import ModelSpec
from windsock.spec.estimators import NetworkParams, TorchSpec

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
        if module is not None and hashlib.sha256(module["source"].encode()).hexdigest() != module["sha256"]:
            raise SpecError(
                f"{self._where}: the request's {module['file']} is not the one it names. Run 'assemble' again."
            )
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


def build_module(
    module: Mapping[str, str], where: str, inputs: int, categories: Sequence[int], arguments: Mapping[str, Any]
) -> Any:
    """Construct a user's own network and try it on two rows; its file is run in the trainer only.

    It gets the number of prepared numbers in a row, how many different codes each categorical input has, and the
    arguments of the spec or its search; ``where`` names model and estimator in messages.

    Raises:
        SpecError: The file or its class does not work, or does not give one output per row.
    """
    given = {"inputs": inputs, "categories": list(categories), **arguments}
    file, name = module["file"], module["class"]
    try:
        made = getattr(_loaded(module), name)(**given).float()
        tried = made.eval()(torch.zeros(2, inputs), torch.zeros((2, len(categories)), dtype=torch.int64))
        shape, learns = tuple(tried.shape), tried.requires_grad
    except Exception as err:
        call = f"{name}({', '.join(f'{argument}={value!r}' for argument, value in given.items())})"
        raise SpecError(
            f"{where}: {file}: {call} does not work: {type(err).__name__}: {str(err)[:300]}. "
            "It must be a torch.nn.Module with forward(numbers, codes); see docs/models.md."
        ) from err
    if shape not in ((2,), (2, 1)):
        raise SpecError(
            f"{where}: {file}: {name} gives shape {shape} for 2 rows; one output per row is needed, shape (2,) or "
            "(2, 1)."
        )
    if not learns:
        raise SpecError(
            f"{where}: {file}: what {name} gives depends on no weight that could be trained. Give it layers, and "
            "compute with them without torch.no_grad or detach."
        )
    return made


def _loaded(module: Mapping[str, str]) -> ModuleType:
    name, source = f"windsock_user_module_{module['sha256'][:16]}", module["source"]
    if name not in sys.modules:
        loaded = ModuleType(name)
        # Known by name and line to whatever asks: dataclasses, tracebacks, PyTorch's tracing.
        loaded.__file__ = f"<{module['file']}>"
        linecache.cache[loaded.__file__] = (len(source), None, source.splitlines(True), loaded.__file__)
        sys.modules[name] = loaded
        try:
            exec(compile(source, loaded.__file__, "exec"), loaded.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
