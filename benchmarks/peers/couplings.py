"""The couplings of a `tfnvp.ImageRealNVP`, for peers that take its weights."""


def couplings(model):
    """Lists pairs of conditioner and moments in the order in which data meets them."""
    conditioners, norms = [], []
    for bijector in _in_order(model.distribution.bijector):
        conditioners += [bijector.conditioner] if hasattr(bijector, "conditioner") else []
        norms += [bijector.moments] if hasattr(bijector, "moments") else []
    return list(zip(conditioners, norms, strict=True))


def _in_order(bijector):
    if hasattr(bijector, "bijectors"):
        return [inner for part in bijector.bijectors for inner in _in_order(part)]
    return _in_order(bijector.bijector) if hasattr(bijector, "bijector") else [bijector]
