"""A network of one's own for tables: embeddings, then blocks that add to what they are given."""

import torch
from torch import nn


class Block(nn.Module):
    """Adds to each row what two layers make of it."""

    def __init__(self, units, dropout):
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(units),
            nn.Linear(units, 2 * units),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * units, units),
        )

    def forward(self, h):
        return h + self.layers(h)


class Network(nn.Module):
    """What ``training.estimators[].module`` names."""

    def __init__(self, inputs, categories, units=32, blocks=2, dropout=0.1):
        """Windsock gives ``inputs`` and ``categories``; the rest are the spec's ``arguments``.

        Args:
            inputs: Numbers in a row, prepared: standardised, without gaps.
            categories: How many codes each categorical input has; the last stands for missing and unknown values.
            units: Width of a row within the network.
            blocks: How many blocks.
            dropout: Share of units that a training step leaves out.
        """
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(codes, 4) for codes in categories)
        self.first = nn.Linear(inputs + 4 * len(categories), units)
        self.blocks = nn.Sequential(*(Block(units, dropout) for _ in range(blocks)))
        self.norm = nn.LayerNorm(units)
        self.last = nn.Linear(units, 1)

    def forward(self, numbers, codes):
        """Return the log odds of a positive (binary) or the standardised value (regression) of each row.

        Args:
            numbers: float32, shape ``(rows, inputs)``.
            codes: int64, shape ``(rows, categories)``.

        Returns:
            Shape ``(rows, 1)``.
        """
        looked_up = [table(codes[:, i]) for i, table in enumerate(self.tables)]
        return self.last(self.norm(self.blocks(self.first(torch.cat([numbers, *looked_up], dim=1)))))
