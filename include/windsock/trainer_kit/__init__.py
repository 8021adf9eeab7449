"""For those who bring a trainer of their own: practice rows, and a check of every clause of the contract."""
