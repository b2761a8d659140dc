"""Optuna as a pure function: a sampler is made from the records of the trials so far, asked once, and forgotten."""

from typing import Any

from engine.search.space import Space, Values
from engine.search.trials import TrialRecord
from engine.settings.search import Dimension


def library() -> Any:
    """Optuna. Raises ValueError when it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ValueError(
            "search.sampler: optuna is not installed: pip install '.[search]', or set sampler: random"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def suggest(space: Space, seed: list[int], history: list[TrialRecord]) -> Values:
    """Values of a trial by the tree-structured Parzen estimator, from the score of trials that reported and the places of those that run."""
    optuna = library()
    distributions = {path: _distribution(optuna, dimension) for path, dimension in space.items()}
    number = int(sum(part * 1009**power for power, part in enumerate(seed)) % 2**32)
    sampler = optuna.samplers.TPESampler(
        seed=number, constant_liar=True, multivariate=True, warn_independent_sampling=False
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for record in history:
        if record.state != "failed" and (params := _inside(record.trial.values, distributions, space)):
            state = optuna.trial.TrialState.RUNNING if record.value is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(
                optuna.trial.create_trial(state=state, params=params, distributions=distributions, value=record.value)
            )
    params = study.ask(distributions).params
    return {path: _value(dimension, params[path]) for path, dimension in space.items()}


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    kinds = optuna.distributions
    if dimension.values is not None:  # by position: a value may be a list, which Optuna does not take
        return kinds.CategoricalDistribution(list(range(len(dimension.values))))
    if dimension.integer is not None:
        return kinds.IntDistribution(*dimension.integer)
    if dimension.loguniform is not None:
        return kinds.FloatDistribution(*dimension.loguniform, log=True)
    assert dimension.uniform is not None, "a dimension is a list or a range"
    return kinds.FloatDistribution(*dimension.uniform)


def _inside(values: Values, distributions: dict[str, Any], space: Space) -> Values:
    """A trial's values as Optuna knows them; none for one that lies outside the space, as the config's own may."""
    known: Values = {}
    for path, distribution in distributions.items():
        value = values.get(path)
        choices = space[path].values
        if choices is not None:
            if value not in choices:
                return {}
            known[path] = choices.index(value)
        elif value is None or not distribution._contains(distribution.to_internal_repr(value)):
            return {}
        else:
            known[path] = value
    return known


def _value(dimension: Dimension, param: Any) -> Any:
    if dimension.values is not None:
        return dimension.values[param]
    if dimension.integer is not None:
        return int(param)
    low, high = dimension.uniform or dimension.loguniform or (param, param)
    return min(high, max(low, float(f"{param:.4g}")))
