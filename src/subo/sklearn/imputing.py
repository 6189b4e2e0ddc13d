"""Missing cells for the estimator: filled by the fitted model, or by refits of it."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.meaning import Meaning
from subo.evaluation.imputation import check_refits
from subo.recipes.for_data import model_of
from subo.runtime.arguments import checked_arguments
from subo.sklearn.arrays import seed_of
from subo.sklearn.rows import starting_rows
from subo.training.bootstrap import bootstrap

__all__ = ["ImputationMethods", "Recipe"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """How the model of a table was fitted, to be fitted again.

    Attributes:
        data: Its rows.
        meaning: What their columns are.
        options: Options of the recipe.
        training: Settings of :func:`subo.fit`.
    """

    data: Data
    meaning: Meaning
    options: Mapping[str, Any]
    training: Mapping[str, Any]

    def refitted(self, refits: int, *, seed: int) -> list[Any]:
        """Models fitted to rows drawn with replacement, on the CPU in float64."""

        def build(data: Data, own_seed: int) -> Objective:
            examples, context = starting_rows(data.train, own_seed)
            known: dict[str, Any] = {"examples": examples, "context": context, "meaning": self.meaning}
            return model_of("vae", self.options, data.train.event_shape, **known, seed=own_seed)

        fits = bootstrap(build, self.data, refits=refits, seed=seed, **self.training)
        return [objective.model.cpu().double().eval() for objective in fits]


class ImputationMethods:
    """The method ``impute``."""

    if TYPE_CHECKING:
        model_: Any
        seed_: int
        evaluation_samples: int
        _table: Any
        _recipe: Recipe | None
        _checked: Any

    @checked_arguments
    def impute(
        self,
        X: Any,
        *,
        draws: int | None = None,
        refits: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Copies of a table with its missing cells filled, given the observed cells of their rows.

        z is drawn from q(z|x) `evaluation_samples` times and weighted by p(x, z) / q(z|x); a draw takes one z by these
        weights, then the missing cells from p(x|z) (Mattei and Frellsen, 2019). A warning says where few samples have
        nearly all the weight.

        Args:
            X: Rows, ``(N, D)``, of the table or new ones.
            draws: Number of copies, each with its own draw of every missing cell: what is computed from each varies as
                the missing cells may, and :func:`subo.pooled` joins it. None for one copy with the best guess of each
                cell, from 100 draws: the mean, the median of ordered levels, the most frequent of others. Guesses are
                good for single cells, and too regular for a whole table.
            refits: Number of models among which the draws are divided, each fitted to rows drawn from those of the fit
                with replacement, and as long. By default the draws are from one model, as if its parameters were known:
                intervals from the copies are then too narrow. ``subo.pooled(..., refits=refits)`` joins those of
                refits, which follow each other.
            random_state: Random state for the draws; None for those that belong to the fit, the same at every call.

        Returns:
            A copy of X: of its class, index, columns and types, where these can hold the filled cells. Observed cells,
            and columns that are not modeled, are as they came. With `draws` a list of such copies.

        Raises:
            InputError: A row is outside the likelihood's support, or the draws cannot be divided among the refits.
        """
        check_is_fitted(self)
        if refits is not None:
            check_refits(draws, refits)
        if self._table is None:
            self._checked(X)  # in which no cell is missing
            return deepcopy(X) if draws is None else [deepcopy(X) for _ in range(draws)]
        seed = self.seed_ if random_state is None else seed_of(random_state)
        frame = self._table.arranged(self, X)
        models = [self.model_] if refits is None or self._recipe is None else self._recipe.refitted(refits, seed=seed)
        return self._table.imputed(models, X, frame, draws=draws, num_samples=self.evaluation_samples, seed=seed)
