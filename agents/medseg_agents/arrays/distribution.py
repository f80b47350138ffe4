"""A distribution over array actions: a tool, then a place on a grid of cells given the tool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from medseg_gym.prompts import TOOLS

_PLACES = {"box": 2, "positive_point": 1, "negative_point": 1}
"""Places that a tool names: two corners, or one click. The other tools name none."""


def count_maps(tools: Sequence[str]) -> int:
    """Number of place maps that a view with these tools needs."""
    return len(place_maps(tools))


def place_maps(tools: Sequence[str]) -> list[tuple[str, int]]:
    """Return the place maps that a view with these tools needs, in the order of the inputs.

    Returns:
        For each its tool, and the column of an action that holds its x (y is in the next one): 1
        for a click and a box's first corner, 3 for the other corner.
    """
    return [(tool, 1 + 2 * place) for tool in tools for place in range(_PLACES.get(tool, 0))]


class PromptDistribution:
    """p(tool) p(place | tool), and for a box p(corner | box) p(other corner | box).

    Places are cells of a `cells` x `cells` grid, whatever the number of bins of the action: a cell
    is written as the bin that holds its centre, and every bin inside a cell is read as that cell.
    Entries that a tool does not use are 0 and have no probability of their own, so that the
    log-probability is that of the prompt, not of five numbers.

    Args:
        inputs: B x (T + P * cells^2) logits: the T tools in the view's order, then P place maps,
            row by row: for a box its two corners, for a click one.
        tools: Of the view, in the order of `TOOLS`.
        bins: Of the view.
        cells: Side of the grid of places, at most `bins`.
    """

    def __init__(self, inputs: torch.Tensor, tools: Sequence[str], bins: int, cells: int) -> None:
        self.tools, self.bins, self.cells = tuple(tools), bins, cells
        count = len(self.tools)
        self.tool_logp = functional.log_softmax(inputs[:, :count].float(), dim=-1)
        maps = inputs[:, count:].float().unflatten(-1, (count_maps(self.tools), cells * cells))
        self.place_logp = functional.log_softmax(maps, dim=-1)
        # Which maps a tool uses: (T, P) 0 or 1.
        shown = place_maps(self.tools)
        owner = [self.tools.index(tool) for tool, _ in shown]
        self._owner = torch.tensor(owner, device=inputs.device, dtype=torch.long)
        self._uses = functional.one_hot(self._owner, count).T.to(self.place_logp)
        self._columns = [column for _, column in shown]

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """Log-probability, (B,), of B x 5 actions."""
        actions = actions.long()
        tool = actions[:, 0]
        log_prob = self.tool_logp.gather(1, tool[:, None])[:, 0]
        places = [self._cell(actions[:, c], actions[:, c + 1]) for c in self._columns]
        if places:
            chosen = self.place_logp.gather(2, torch.stack(places, 1)[..., None])[..., 0]
            log_prob = log_prob + torch.where(self._owner == tool[:, None], chosen, 0.0).sum(1)
        return log_prob

    def cross_entropy(
        self, tool: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of a certain tool with uncertain places under these distributions, in nats.

        Args:
            tool: B int64, of the tools.
            places: B x P x cells^2, for each map a distribution over its cells. Maps of other
                tools count nothing.

        Returns:
            -log p(tool), and the sum over the tool's maps of -sum q log p; (B,) each.
        """
        tools = -self.tool_logp.gather(1, tool[:, None])[:, 0]
        apart = -(places * self.place_logp).sum(2)
        return tools, torch.where(self._owner == tool[:, None], apart, 0.0).sum(1)

    def entropy(self) -> torch.Tensor:
        """Exact entropy in nats, (B,)."""
        tool = self.tool_logp.exp()
        own = -(tool * self.tool_logp).sum(1)
        places = -(self.place_logp.exp() * self.place_logp).sum(2)  # B x P
        return own + (tool @ self._uses * places).sum(1)

    def kl(self, other: PromptDistribution) -> torch.Tensor:
        """Exact KL(self || other) in nats, (B,)."""
        tool = self.tool_logp.exp()
        own = (tool * (self.tool_logp - other.tool_logp)).sum(1)
        places = (self.place_logp.exp() * (self.place_logp - other.place_logp)).sum(2)
        return own + (tool @ self._uses * places).sum(1)

    @property
    def num_draws(self) -> int:
        """Uniform numbers that one action takes."""
        return 1 + self.place_logp.shape[1]

    def sample(self, draws: torch.Tensor | None = None) -> torch.Tensor:
        """Draw actions, B x 5 int64.

        Args:
            draws: B x `num_draws` uniform in [0, 1); by default from torch's own generator.
        """
        if draws is None:
            draws = torch.rand(len(self.tool_logp), self.num_draws, device=self.tool_logp.device)
        tool = _invert(self.tool_logp[:, None], draws[:, :1])[:, 0]
        return self._actions(tool, _invert(self.place_logp, draws[:, 1:]))

    def mode(self) -> torch.Tensor:
        """The likeliest tool, and the likeliest places given it, B x 5 int64."""
        return self._actions(self.tool_logp.argmax(1), self.place_logp.argmax(2))

    def _actions(self, tool: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        actions = torch.zeros(len(tool), 5, dtype=torch.long, device=tool.device)
        actions[:, 0] = tool
        for number, column in enumerate(self._columns):
            used = self._owner[number] == tool
            y, x = cells[:, number] // self.cells, cells[:, number] % self.cells
            actions[:, column] = torch.where(used, self._bin(x), actions[:, column])
            actions[:, column + 1] = torch.where(used, self._bin(y), actions[:, column + 1])
        return actions

    def _bin(self, cell: torch.Tensor) -> torch.Tensor:
        return (2 * cell + 1) * self.bins // (2 * self.cells)

    def _cell(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        column, row = ((2 * v + 1) * self.cells // (2 * self.bins) for v in (x, y))
        return row * self.cells + column


def _invert(logp: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """B x P indices whose cumulative probability first exceeds B x P uniform numbers."""
    cumulative = logp.double().exp().cumsum(-1)
    at = torch.searchsorted(
        cumulative, (draws.double() * cumulative[..., -1])[..., None], right=True
    )
    return at[..., 0].clamp(max=logp.shape[-1] - 1)


def tool_names(tools: Sequence[str]) -> tuple[str, ...]:
    """Tools in the order in which an action's first entry counts them."""
    return tuple(tool for tool in TOOLS if tool in tools)
