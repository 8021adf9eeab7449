"""The kinds of model that a spec may train, one class each.

With several in ``training.estimators``, the one that did best in the time-ordered folds goes on to the gate.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from windsock.spec.base import Name, Part, check_in_folder
from windsock.spec.operations import ComputeSpec


class IntRange(Part):
    """Whole numbers from ``low`` to ``high``."""

    kind: Literal["int"]
    low: int
    high: int
    log: bool = False


class FloatRange(Part):
    """Numbers from ``low`` to ``high``."""

    kind: Literal["float"]
    low: float
    high: float
    log: bool = False


class Choice(Part):
    """One of a few values."""

    kind: Literal["choice"]
    values: tuple[int | float | str | bool, ...] = Field(min_length=1)


SearchRange = Annotated[IntRange | FloatRange | Choice, Field(discriminator="kind")]


class SearchBudget(Part):
    """When a search ends beside its number of trials, and by how many it is done."""

    minutes: float | None = Field(None, gt=0, description="No trial begins later than this after the first one.")
    gpu_hours: float | None = Field(None, gt=0, description="No trial begins once the trials took so many GPU-hours.")
    parallel: PositiveInt = Field(
        1, le=64, description="Pods (or processes) that share the search; more than 1 needs `WINDSOCK_STUDIES`."
    )
    pruning: bool = Field(True, description="Stop a trial early that does worse than most did at the same point.")


class _Searched(Part):
    """What the built-in kinds have in common."""

    search: dict[str, SearchRange] = Field(default_factory=dict)
    trials: PositiveInt = Field(8, description="Parameter sets tried, the spec's own first.")
    budget: SearchBudget = SearchBudget()
    compute: ComputeSpec = ComputeSpec()


class LightGBMSpec(_Searched):
    """Gradient-boosted trees."""

    kind: Literal["lightgbm"] = "lightgbm"
    name: Name = "lightgbm"
    params: dict[str, int | float | str | bool] = Field(default_factory=dict, description="LightGBM's own parameters.")
    rounds: PositiveInt = Field(200, description="Boosting rounds at most.")


class NetworkParams(Part):
    """A feed-forward network for tables and how it is trained; all of these can be searched."""

    hidden: tuple[PositiveInt, ...] = Field((128, 64), min_length=1, max_length=8, description="Units of each layer.")
    dropout: float = Field(0.1, ge=0, lt=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    batch_size: PositiveInt = 1024
    positive_weight: float | Literal["balanced"] = Field(
        1.0, description="Weight of a positive row's loss; balanced: negatives over positives."
    )


_OWN_NETWORK = frozenset({"hidden", "dropout"})
"""Parameters that a network of the user's own has no use for."""


class TorchSpec(_Searched):
    """A neural network in PyTorch: Windsock's own for tables, or a module of the user's own."""

    kind: Literal["torch"]
    name: Name = "torch"
    params: NetworkParams = NetworkParams()
    epochs: PositiveInt = Field(20, description="Passes over the training rows at most.")
    patience: PositiveInt = Field(4, description="Epochs without improvement on a fold after which it ends.")
    precision: Literal["auto", "bf16", "float32"] = Field(
        "auto", description="auto: bfloat16 where the device has units for it, else float32."
    )
    data: Literal["auto", "resident", "streamed"] = Field(
        "auto", description="Rows kept on the device or sent batch by batch; auto: kept if they fit."
    )
    deterministic: bool = Field(True, description="Same inputs and seed, same weights; a little slower on GPUs.")
    execution: Literal["auto", "eager", "captured", "compiled"] = Field(
        "auto", description="How a GPU runs a step: captured as a CUDA graph, compiled before; auto: what pays."
    )
    checkpoint_steps: PositiveInt = Field(
        200, description="Steps between two checkpoints; writing them takes at most a twentieth of the time."
    )
    module: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_./-]+\.py(:[A-Za-z_][A-Za-z0-9_]*)?$",
        description="A network of your own: a Python file in the model's folder, and its class (default: `Network`).",
    )
    arguments: dict[str, int | float | str | bool | list[int | float | str | bool]] = Field(
        default_factory=dict, description="Given to the module's class beside `inputs` and `categories`."
    )

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Specs that do not use these keep the hash that they had before there were such fields.
        unused: dict[str, Any] = {"execution": "auto", "module": None, "arguments": {}}
        kept = {name: value for name, value in dump(self).items() if name not in unused or value != unused[name]}
        if self.module is not None and isinstance(kept.get("params"), dict):
            kept["params"] = {name: value for name, value in kept["params"].items() if name not in _OWN_NETWORK}
        return kept

    @property
    def module_file(self) -> str | None:
        """The file of the user's own network, relative to the model's folder."""
        return self.module.partition(":")[0] if self.module is not None else None

    @property
    def module_class(self) -> str:
        """The class in it."""
        return (self.module or "").partition(":")[2] or "Network"

    def own_params(self) -> dict[str, Any]:
        """Return what a training is given if nothing is searched: parameters, and the module's arguments."""
        params: dict[str, Any] = self.model_dump(mode="json")["params"]
        return params | self.arguments

    @model_validator(mode="after")
    def _module_takes_the_arguments(self) -> Self:
        if self.module is None and self.arguments:
            raise ValueError("arguments are for a module of your own: give module, or put them into params")
        if self.module is not None:
            check_in_folder(str(self.module_file))
            if wrong := sorted(self.params.model_fields_set & _OWN_NETWORK):
                raise ValueError(f"params.{wrong[0]} is of Windsock's own network: give it in arguments instead")
            ours = {"inputs", "categories", *NetworkParams.model_fields} - _OWN_NETWORK
            if taken := sorted(set(self.arguments) & ours):
                raise ValueError(f"arguments.{taken[0]}: Windsock gives this value itself; take another name")
        return self

    @model_validator(mode="after")
    def _search_varies_known_parameters(self) -> Self:
        known = self.own_params()
        if unknown := sorted(set(self.search) - set(known)):
            raise ValueError(f"search.{unknown[0]} is no parameter of this network; known: {', '.join(known)}")
        if "hidden" in self.search and self.module is None:
            raise ValueError("search.hidden cannot be varied: give several torch estimators with names of their own")
        return self


class CustomSpec(Part):
    """The user's own trainer: any program or image that keeps the trainer contract (docs/trainer.md)."""

    kind: Literal["custom"]
    name: Name = "custom"
    command: tuple[str, ...] = Field(
        (), description="Program and arguments; locally run in the model's folder; absent in pods: the image's own."
    )
    data: Literal["parquet", "csv"] = Field("parquet", description="How it gets the training rows; csv: gzip, in full.")
    params: dict[str, Any] = Field(default_factory=dict, description="Handed on as they are.")
    compute: ComputeSpec = ComputeSpec()

    @model_validator(mode="after")
    def _can_be_started(self) -> Self:
        if not self.command and self.compute.image is None:
            raise ValueError(
                "a custom estimator needs command (a program in the model's folder), compute.image or both"
            )
        return self


def _kind(raw: Any) -> str:
    return str(raw.get("kind", "lightgbm") if isinstance(raw, dict) else getattr(raw, "kind", "lightgbm"))


Estimator = Annotated[
    Annotated[LightGBMSpec, Tag("lightgbm")]
    | Annotated[TorchSpec, Tag("torch")]
    | Annotated[CustomSpec, Tag("custom")],
    Discriminator(_kind),
]
BuiltIn = LightGBMSpec | TorchSpec
"""Kinds that Windsock's own trainer trains."""
