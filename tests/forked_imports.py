"""What the children of the fork server find imported: every heavy library, and Feast without torch."""

# ruff: noqa: E402, F401
import gc

gc.disable()  # what an import makes stays: to look for garbage in it is a fifth of the time

from windsock.featurestore.repo import import_feast

import_feast()

import duckdb
import great_expectations.expectations
import lightgbm
import mlflow
import optuna
import psycopg2
import pyarrow.dataset
import pyarrow.parquet

import gradient_learner
import kill
import windsock.completeness
import windsock.features.step
import windsock.features.view_sql
import windsock.featurestore.retrieval
import windsock.featurestore.step
import windsock.ingest.sources.simulator
import windsock.ingest.step
import windsock.promotion.step
import windsock.registry.versions
import windsock.scoring.step
import windsock.search.search
import windsock.validate.docs
import windsock.validate.engine

gc.freeze()
gc.enable()
