"""Entities, views and services of every model, made from the specs in ``include/models``.

``windsock apply`` registers the same objects; this file lets Feast's own command line see
them (``feast -c feature_repo apply``). Objects of your own go into other files beside it.
"""

from windsock.featurestore.definitions import repo_objects
from windsock.settings import Settings

globals().update({f"{type(o).__name__}_{o.name}": o for o in repo_objects(Settings.from_env())})
