"""Alerts of tasks that failed: to the log always, to Slack if it is configured, and never at a run's expense."""
