"""The commands of a machine of one's own, as ``windsock.cli`` lists them: where each lives, its line in the help."""

COMMANDS = {
    "up": ("windsock_local.cli.stack:up", "Start PostgreSQL, MLflow and Airflow on this machine."),
    "down": ("windsock_local.cli.stack:down", "Stop them; --wipe also removes their state."),
    "status": ("windsock_local.cli.stack:status", "Show what runs, where, and whether it is well."),
    "doctor": ("windsock_local.cli.stack:doctor", "Check this machine and say what to mend."),
    "backup": ("windsock_local.cli.backup:backup", "Back up store, databases, secrets and home."),
    "restore": ("windsock_local.cli.backup:restore", "Put a backup where nothing is yet."),
    "upgrade": ("windsock_local.cli.upgrade:upgrade", "Bring what an earlier version left to this one."),
    "mlflow-key": ("windsock_local.cli.mlflow_key:mlflow_key", "Print a key to MLflow for a program of your own."),
    "demo": ("windsock_local.cli.demo:demo", "Run the whole loop, from data to a retrained model."),
    "backfill": ("windsock_local.cli.runs:backfill", "Run a range of days through Airflow."),
    "trigger": ("windsock_local.cli.runs:trigger", "Start a run of a DAG."),
}
