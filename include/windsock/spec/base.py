"""Shared ground of the spec's parts: frozen, and strict about unknown fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""Names of models, views and entities: they become table, DAG and asset names."""

Column = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Column names: plain identifiers, so that they need no quoting in SQL."""


class Part(BaseModel):
    """One part of a model spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")
