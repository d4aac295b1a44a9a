"""Relations between tokens equal the published ones in value and gradient."""

from preceptor.distillers.relations import TokenImportance, token_importance, token_similarity
from preceptor.segmentors.base import Segmentation, Tap


def test_similarity_equals_the_original(loss_cases):
    for case in loss_cases.of("similarity_skd"):
        inputs = loss_cases.inputs(case)
        loss_cases.check(case, inputs, token_similarity(inputs["student"], inputs["teacher"], case["config"]["T"]))


def test_importance_is_the_published_mean_over_stages(loss_cases):
    for case in loss_cases.of("imd"):
        inputs = loss_cases.inputs(case)
        stages = [token_importance(inputs[f"student{i}"], inputs[f"teacher{i}"]) for i in range(3)]
        loss_cases.check(case, inputs, sum(stages) / 3)


def test_the_importance_distiller_sums_to_the_published_mean(loss_cases):
    (case,) = loss_cases.of("imd")
    inputs = loss_cases.inputs(case)

    def network(whose: str) -> Segmentation:
        features = {}
        for i in range(3):
            tokens = inputs[f"{whose}{i}"]
            side = int(tokens.shape[1] ** 0.5)
            features[str(i)] = tokens.transpose(1, 2).reshape(2, -1, side, side)
        return Segmentation(inputs["student0"], features)

    taps = tuple(Tap(str(i), inputs[f"student{i}"].shape[2], 2**i) for i in range(3))
    losses = TokenImportance(taps, taps)(network("student"), network("teacher"))
    loss_cases.check(case, inputs, sum(losses.values()))
