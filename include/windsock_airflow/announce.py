"""Saying that a day is due, without doing anything for it."""

from airflow.sdk import Asset, BaseOperator, Context

from windsock_airflow.runs import RunFacts


class AnnounceDay(BaseOperator):
    """Post the run's day on every outlet, with what the DAGs after it need to know of the cause."""

    def execute(self, context: Context) -> None:
        """Post the events."""
        facts = RunFacts.of(context, keyed=True)
        for asset in self.outlets:
            if isinstance(asset, Asset):
                context["outlet_events"][asset].extra = facts.event_extra()
