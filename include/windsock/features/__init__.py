"""Features: DuckDB SQL over the lookback, exact to the microsecond, only what was known by the end of the day.

``view_sql`` computes one view for one day, ``feature_tables`` says what its table is called and holds,
``step`` publishes a day of all views, ``frame`` lists the rows that a model sees.
"""
