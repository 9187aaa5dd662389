"""Serving with a client: scores, latents and samples of a model that runs in another process.

The server comes first, in another terminal: `tfnvp serve digits` for development, or TF Serving
with an export, `tfnvp export MODEL.keras --to saved_models/mine`, as docs/serving.md has it. TF
Serving answers by gRPC, too: URL is "grpc://127.0.0.1:8500" then, and nothing else changes. The
program prints bits/dim of five images, the largest error of going to latents and back, in levels,
and the error that a bad request gets; served.png has sixteen samples.
"""

import numpy as np

import tfnvp

URL = "http://127.0.0.1:8501"

images = next(iter(tfnvp.data.load("digits", split="test", batch_size=5)))

# A server that is still loading its model is asked again, for half a minute at most.
with tfnvp.serving.Client(URL, model="digits", timeout=30, retries=10) as client:
    print("bits/dim:", *client.bits_per_dim(images).round(2))

    z = client.encode(images)  # float32 [5, 8, 8, 1]
    errors = np.abs(client.decode(z).astype(int) - images)
    print("from latents back, the largest error is", errors.max())

    # A sample depends on its own seed alone, whatever else the server is asked.
    samples = client.sample(seeds=range(16), temperature=0.8)  # uint8 [16, 8, 8, 1]

    try:
        client.log_prob(np.full([1, 8, 8, 1], 200, "uint8"))
    except tfnvp.serving.ServingError as error:
        print("a pixel of 200 in a model of 17 levels:", error)

tfnvp.plotting.save_png(tfnvp.plotting.image_grid(samples / 16), "served.png")
