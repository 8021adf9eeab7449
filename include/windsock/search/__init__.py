"""Choosing parameters: trials over time-ordered folds, within a budget, in one process or several."""
