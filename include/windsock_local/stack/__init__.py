"""The embedded stack: PostgreSQL, MLflow and Airflow as children of one supervisor.

``lifecycle`` is what the CLI calls, ``supervisor`` keeps the children alive,
``parts`` says what they are, ``airflow_config`` how Airflow is tuned. Everybody
else needs only what is exported here: find the running stack, speak to it.
"""

from windsock_local.stack.environment import stack_env, stack_settings
from windsock_local.stack.state import PartInfo, StackInfo, read_stack

__all__ = ["PartInfo", "StackInfo", "read_stack", "stack_env", "stack_settings"]
