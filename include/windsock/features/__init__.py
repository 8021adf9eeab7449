"""Features: DuckDB SQL over the lookback, exact to the second, only what was known by the end of the day.

``windows`` computes one view for one day, ``step`` publishes a day of all views,
``staleness`` finds the days that a changed day makes out of date, ``frame`` lists the
rows that a model sees.
"""
