"""Rows a second in training and scoring, of tfnvp's vector model and zuko's RealNVP.

Each maker takes D, the rows of a batch and how many parameters the model is to have about, and
gives the number that it has, and functions that train for some steps and score as many batches.
"""

import numpy as np

COUPLINGS, HIDDEN = 8, (64, 64)


def rows(size, batch):
    """Rows [batch, size] that both see."""
    return np.random.RandomState(0).normal(size=(batch, size)).astype("float32")


def tfnvp(size, batch, parameters=None):
    """`VectorRealNVP` as it comes, trained as `fit` does, several steps at a time."""
    import tensorflow as tf

    import tfnvp

    count = steps(batch)
    model = tfnvp.VectorRealNVP(size, COUPLINGS, HIDDEN, seed=0)
    x = rows(size, batch)
    model.adapt(x)
    model.compile(
        tfnvp.optimizers.Adam(1e-4, global_clipnorm=10.0),
        steps_per_execution=count,
        jit_compile=False,
    )
    batches = iter(tf.data.Dataset.from_tensors(tf.constant(x)).repeat())
    model.make_train_function()
    # The halves of triangular matrices that stay zero do not count.
    idle = COUPLINGS * size * (size + 1) if size > 1 else 0
    used = sum(int(np.prod(v.shape)) for v in model.trainable_variables) - idle
    x = tf.constant(x)
    return (
        used,
        lambda: float(model.train_function(batches)["loss"]),
        lambda: [model.log_prob(x).numpy() for _ in range(count)],
    )


def zuko(size, batch, parameters):
    """zuko's RealNVP, of the width that comes nearest to the parameters."""
    import torch
    import zuko

    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = []
    for width in range(16, 257):
        # Masked linear maps do not count what they mask.
        flow = zuko.flows.RealNVP(size, transforms=COUPLINGS, hidden_features=(width, width))
        count = sum(p.numel() for p in flow.parameters())
        found.append((abs(count - parameters), count, flow))
        if count > parameters:
            break
    _, count, flow = min(found, key=lambda entry: entry[0])
    optimizer = torch.optim.Adam(flow.parameters(), 1e-4)
    x = torch.tensor(rows(size, batch))

    def train():
        for _ in range(steps(batch)):
            optimizer.zero_grad()
            loss = -flow().log_prob(x).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
            optimizer.step()
        return loss.item()

    def score():
        with torch.no_grad():
            return [flow().log_prob(x).numpy() for _ in range(steps(batch))]

    return count, train, score


def steps(batch):
    """Steps of training in a turn: about as long for each batch."""
    return max(2, 8192 // batch)
