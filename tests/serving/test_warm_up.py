"""The requests with which TF Serving gets a version ready; test_cpp_runtime.py has them too."""

import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp

prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
tfb, tfd = tfp.bijectors, tfp.distributions


class Bounded(tfnvp.FlowModel):
    """Vectors in (0, 1)."""

    def build_distribution(self):
        mask = tfnvp.masks.ChannelHalves(0, event_ndims=1)
        coupling = tfnvp.bijectors.AffineCoupling(mask, tfnvp.layers.DenseNetwork(1, [8]))
        base = tfd.MultivariateNormalDiag(tf.zeros(2))
        return tfd.TransformedDistribution(base, tfb.Chain([tfb.Sigmoid(), coupling]))


@pytest.mark.parametrize("num_classes", [None, 2])
def test_the_warm_up_is_of_data_that_the_flow_has(num_classes, tmp_path):
    """A request that fails would keep a strict export from being loaded."""
    model = Bounded(num_classes=num_classes)
    path = tfnvp.export_saved_model(model, tmp_path, strict=True)
    served = tf.saved_model.load(str(path)).signatures
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    counts = []
    for record in tf.data.TFRecordDataset(str(file)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {key: tf.make_ndarray(x) for key, x in request.inputs.items()}
        answer = served[request.model_spec.signature_name](
            **{key: tf.constant(x) for key, x in inputs.items()}
        )
        counts.append(len(next(iter(answer.values()))))
    assert counts == 4 * [1, 8, 64]
