"""Features: DuckDB SQL over the lookback, exact to the second, only what was known by the end of the day.

``view_sql`` computes one view for one day, ``step`` publishes a day of all views,
``inputs`` says what a day was made from, ``frame`` lists the rows that a model sees.
"""
