"""Model formats that Windsock can serve: each module's ``read`` gives what computes, and how rows are scored with it.

Every format is data that is read, never code that runs.
"""
